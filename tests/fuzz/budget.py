"""How long the fuzz targets run: short and the same each time in `make test`, as long as asked and
different each time in `make fuzz`."""

from __future__ import annotations

import os

from hypothesis import HealthCheck, settings

EXAMPLES = int(os.environ.get("TIDEGATE_FUZZ", "0"))
"""Inputs for each target; 0: the short, fixed run."""


def fuzz(short: int = 200) -> settings:
    """Settings of one target; ``short``: how many inputs it gets in the fixed run."""
    return settings(
        max_examples=EXAMPLES or short,
        derandomize=not EXAMPLES,
        deadline=None,
        database=None,
        print_blob=True,
        suppress_health_check=list(HealthCheck),
    )
