"""The segment log of one stream: format and files put together. It knows blocks, not what records mean."""
