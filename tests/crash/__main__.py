"""The long form: `python -m tests.crash`. Exit status 1 where a promise was broken, or too little was tried."""

from __future__ import annotations

import argparse
import os
import random
import sys

from tests.crash.exploration import Plan, Tally, explore_together
from tests.crash.workloads import WORKLOADS, sweeps, torn_sweep

from shardlog.testing.crash_states import Strategy


def main() -> int:
    """Judge crash states until the time is up or all were judged."""
    parser = argparse.ArgumentParser(prog="python -m tests.crash", description=__doc__)
    parser.add_argument("--seconds", type=float, default=570)
    parser.add_argument("--processes", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--at-least", type=int, default=0, help="distinct images, or it fails")
    arguments = parser.parse_args()
    workloads = [*WORKLOADS, *sweeps("fsync"), *sweeps("os"), *torn_sweep()]
    random.Random(arguments.seed).shuffle(workloads)
    workloads.sort(key=lambda workload: workload not in WORKLOADS)
    plan = Plan(Strategy(random_choices=12, seed=arguments.seed), recovered_one_in=16)
    tally = Tally()
    for done, tally in enumerate(explore_together(workloads, plan, arguments.processes, arguments.seconds), 1):
        if sys.stderr.isatty():
            sys.stderr.write(f"\r{done} of {len(workloads)} workloads, {len(tally.distinct)} images ")
    sys.stdout.write(f"seed {arguments.seed}, {len(workloads)} workloads\n{tally.report()}\n")
    return int(bool(tally.failures) or len(tally.distinct) < arguments.at_least)


if __name__ == "__main__":
    sys.exit(main())
