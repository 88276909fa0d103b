"""Benchmarks of the project: shardlog beside what a user would pick instead (`python -m bench --help`).

What is measured of shardlog alone, how contestants take turns and how results are held is `shardlog_tools.measuring`,
which is installed and serves `shardlog bench`, too. Here are `peers`, the other stores; `workloads`, what all are made
to do; `children`, what has to run in a process of its own; and what shows results: `comparison`, `pictures`, `readme`.
`test_hot_functions` measures single functions against a stored baseline. Not part of the installed package.
"""
