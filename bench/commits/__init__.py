"""Compare two checkouts of Tidegate on one machine: the working tree against a commit.

Holds:    installing both beside each other, runs in turns, medians and spread, the bars.
Not here: load, streams, process accounting (bench.gateway), figures of past runs (docs).
Reads:    git, and the packages of this environment.   Writes: bench/results.
Words:    base, head, side, run, spread, bar
"""
