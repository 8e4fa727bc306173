"""An hour of everyday traffic with faults, and whether anything grows.

Holds:    the app under soak, its traffic, what is sampled, and the judgement of the samples.
Not here: CPU and latency beside peers (bench.gateway), the faults one by one (bench.faults).
"""
