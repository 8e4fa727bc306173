"""How long a switch takes to every worker: ``python -m bench.switches``."""
