"""Run an app's release somewhere; so far on this machine, as `tidegate up` does.

Holds:    the order in which the parts of an app start and stop, their command lines, the first key.
Not here: supervising one process (base), what a model server is (pools), what is served (gateway).
Reads:    release, stores, switches.   Writes: .tidegate/run.
Words:    part, start order, ready, stop
"""
