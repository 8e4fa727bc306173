"""Measure the gateway beside its peers: one machine, one run, one constant upstream.

Holds:    process accounting, load and stream clients, a stamped upstream, one file per system.
Not here: how the peers are installed (bench/peers), figures of past runs (docs/benchmarks.md).
Reads:    the product's commands and the status of its loader.   Writes: bench/results.
Words:    system, door, round, added, held back, floor, bar
"""
