"""What a process must not load at start: parsers that a gateway never needs, engines of others.

The import contracts see imports that are written; this sees what is loaded, through every face.
"""

from __future__ import annotations

import subprocess
import sys

LIGHT: dict[str, tuple[str, ...]] = {
    "tidegate.gateway.__main__, tidegate.gateway.worker": (
        "click",
        "httpx",
        "numpy",
        "openfeature",
        "opentelemetry",
        "pydantic",
        "rich",
        "starlette",
        "tokenizers",
        "yaml",
    ),
    "tidegate.cli.main": ("asyncio", "jinja2", "numpy", "psutil", "psycopg", "pydantic", "rich"),
    "tidegate.sdk": ("httpx", "jinja2", "numpy", "psutil", "psycopg", "pydantic"),
}
"""Modules that are imported, and what importing them must not load."""


def problems(_: object = None) -> list[str]:
    """Heavy modules that are loaded where a process only starts."""
    found = []
    for modules, heavy in LIGHT.items():
        code = f"import sys, {modules}; print(*sorted({set(heavy)!r} & set(sys.modules)))"
        done = subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=60
        )
        if done.returncode:
            found.append(f"import {modules} fails: {done.stderr.strip().splitlines()[-1]}")
        for name in done.stdout.split():
            found.append(
                f"import {modules} loads {name}: find the way with python -X importtime, and load "
                "the name lazily in the face that brings it (tidegate.base.lazy)"
            )
    return found
