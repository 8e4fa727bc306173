"""Measure the gateway beside its peers: one machine, one run, one constant upstream.

Holds:    process accounting, load and stream clients, a stamped upstream, one file per system.
Not here: how the peers are installed (bench/peers), figures of past runs (docs/benchmarks.md).
Reads:    nothing of the product but its commands.   Writes: bench/results.
Words:    system, door, round, added, held back, floor, bar
"""
