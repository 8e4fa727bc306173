"""No ``Any`` on the path of a request, but for JSON from outside.

One ``Any`` in a signature turns off the type checker for all that is reached through it: a misspelt
field of a plan then fails at the first request, not in ``make check``. A file that reads or writes
other people's JSON may use it, and says so here.
"""

from __future__ import annotations

import ast
from collections.abc import Mapping

from house.source import Source

FOLDER = "gateway/"
ALLOWED: dict[str, str] = {
    # file: whose JSON (or whose untyped object) it handles
    "gateway/formats/": "bodies of clients and of providers in OpenAI's shape",
    "gateway/providers/": "bodies of providers",
    "gateway/plan/template.py": "inputs of a prompt, as the client sent them",
    "gateway/plan/loaded.py": "what a flag is targeted by: the client's own context",
    "gateway/ports.py": "inputs of a prompt, as the client sent them",
    "gateway/wire/http_server.py": "the transport: uvloop's, which no public type describes",
    "gateway/wire/upstream.py": "the transport and httptools' parser, which have no types",
}


def problems(source: Source, allowed: Mapping[str, str] | None = None) -> list[str]:
    """Each use of ``Any`` in the gateway outside the files that may."""
    allowed = ALLOWED if allowed is None else allowed
    found = []
    used: set[str] = set()
    for module in source.modules:
        if not module.path.startswith(FOLDER):
            continue
        place = next((one for one in allowed if module.path.startswith(one)), None)
        if place is not None:
            used.update([place] if uses(module.tree) else [])
            continue
        for line in uses(module.tree):
            found.append(
                f"{module.path}:{line}: Any hides misspelt names from the type checker: use the "
                "real type, or object where nothing is read from it; a file that handles JSON from "
                "outside is named, with whose, in scripts/house/anys.py"
            )
    found += [
        f"{place} uses no Any any more: take its line out of ALLOWED in scripts/house/anys.py"
        for place in sorted(allowed.keys() - used)
    ]
    return found


def uses(tree: ast.Module) -> list[int]:
    """Lines that use ``Any``, imports aside."""
    return sorted(
        node.lineno
        for node in ast.walk(tree)
        if (isinstance(node, ast.Name) and node.id == "Any")
        or (isinstance(node, ast.Attribute) and node.attr == "Any")
    )
