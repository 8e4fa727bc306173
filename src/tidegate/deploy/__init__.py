"""Run an app's release somewhere; so far on this machine, as `tidegate up` does.

Holds:    the order in which the parts of an app start and stop, their command lines, the first key.
Not here: supervising one process (base), what a model server is (pools), what is served (gateway).
Reads:    release, stores, switches.   Writes: .tidegate/run.
Words:    part, start order, ready, stop
"""

from tidegate.deploy.local import plan_app, prepare_database
from tidegate.deploy.probes import ensure_port_free
from tidegate.deploy.rules import Doors
from tidegate.deploy.run import serve
from tidegate.deploy.upstreams import require_bindable
from tidegate.deploy.values import LocalApp

__all__ = [
    "Doors",
    "LocalApp",
    "ensure_port_free",
    "plan_app",
    "prepare_database",
    "require_bindable",
    "serve",
]
