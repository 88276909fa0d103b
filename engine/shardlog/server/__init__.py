"""The DynamoDB Streams API over a store.

`identifiers`, `attributes`, `records`, `parameters`, `protocol`, `faults`, `signing` are pure; `catalogue` and
`operations` know the store; `http` knows sockets' bytes, `running` the process. Needs the extra `server`.
"""
