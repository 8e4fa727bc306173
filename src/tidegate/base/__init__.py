"""Small exact things that every room stands on.

Holds:    the error tree, clock, ids, hashing, money, durations, child processes, the runtime file.
Not here: anything that knows what a route, a model or a receipt is.
Reads:    nothing.   Writes: nothing.
Words:    error code, cure, digest, micro-dollar, child, runtime
"""
