"""Run local models as supervised child processes that speak the OpenAI API on loopback.

Holds:    the llama.cpp server, the MiniLM embeddings server, the table of engines, plans of pools.
Not here: supervision itself (base), fetching weights (registry), answering requests (gateway).
Reads:    release, registry.   Writes: .tidegate/log.
Words:    pool, engine, launch, slot, context, weights
"""

from tidegate.pools.engines import find_engine
from tidegate.pools.loopback import free_port
from tidegate.pools.ports import Command, Engine, Launch
from tidegate.pools.run import ModelPool, fetch_files, plan_pool, start_pool

__all__ = [
    "Command",
    "Engine",
    "Launch",
    "ModelPool",
    "fetch_files",
    "find_engine",
    "free_port",
    "plan_pool",
    "start_pool",
]
