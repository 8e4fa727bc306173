"""A store of its own for each test, and what must be left in it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.registry.file_server import Script, serving
from tidegate.registry.artifacts import Store
from tidegate.registry.settings import FetchSettings


@pytest.fixture
def store(tmp_path: Path) -> Store:
    cache = tmp_path / "cache"
    return Store(FetchSettings(cache=cache, backoff=0.01, attempts=2, idle_timeout=5.0))


@pytest.fixture
def left(store: Store) -> Callable[[], list[str]]:
    """Names of all files in the store except locks."""

    def names() -> list[str]:
        files = (path for path in store.root.rglob("*") if path.is_file())
        return sorted(path.name for path in files if path.parent.name != "locks")

    return names


@pytest.fixture
def server() -> Iterator[Script]:
    with serving(Script(body=bytes(range(256)) * 2000)) as script:
        yield script
