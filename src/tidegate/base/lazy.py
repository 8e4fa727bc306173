"""Names of a face that are loaded when they are first asked for (PEP 562).

A room's face names all that other rooms may use, and a process that needs its light half must not
pay for the rest: a gateway that reads receipts' types loads no numpy. The face imports such names
under ``TYPE_CHECKING``, so that mypy sees them, and has them loaded here at run time.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Mapping, Sequence


def lazy(package: str, names: Mapping[str, Sequence[str]]) -> Callable[[str], object]:
    """The ``__getattr__`` of ``package``. ``names``: what each of its modules brings.

    No name may be that of a module of the package: importing that module would set it, and this
    function would not be asked any more.
    """
    homes = {name: module for module, group in names.items() for name in group}

    def load(name: str) -> object:
        home = homes.get(name)
        if home is None:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        value: object = getattr(importlib.import_module(f"{package}.{home}"), name)
        vars(sys.modules[package])[name] = value  # the next access does not come here
        return value

    return load
