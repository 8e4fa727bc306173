"""What several tests of the ledger need."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tidegate.ledger.partitions import Connection
from tidegate.ledger.run import connect


@pytest.fixture
def connection(database_url: str) -> Iterator[Connection]:
    with connect(database_url) as opened:
        yield opened
