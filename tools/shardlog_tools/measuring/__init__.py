"""Measuring shardlog: what `shardlog bench` shows a user, and what the project's own comparisons in `bench/` build on.

Every figure is a comparison within one run. Contestants take turns, round by round (A B C A B C ...), so that whatever
else the machine does meets them alike; a ratio is one of medians over the rounds. Goals are printed, never asserted.

`results` and `changes` are pure. Here are shardlog and the limit, the bare loop that does only what cannot be left out;
other stores are peers of the project's comparisons, and no business of an installed package.
"""
