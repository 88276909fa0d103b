"""Benchmarks: workloads, what they are compared with, and the runner (`python -m bench --help`).

Every figure is a comparison within one run. Contestants take turns, round by round (A B C A B C ...), so that whatever
else the machine does meets them alike; a ratio is one of medians over the rounds. Goals are printed, never asserted.

`results` and `changes` are pure; `peers` holds the contestants, `workloads` what they are made to do, `children` what
has to run in a process of its own. Not part of the installed package.
"""
