"""Small exact things that every room stands on.

Holds:    the error tree, ids, hashing, money, durations, templates, child processes, the runtime.
Not here: anything that knows what a route, a model or a receipt is.
Reads:    nothing.   Writes: nothing.
Words:    error code, cure, digest, micro-dollar, child, runtime
"""
