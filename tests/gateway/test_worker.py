"""What a worker asks of the machine."""

from __future__ import annotations

import resource
from collections.abc import Iterator

import pytest

from tidegate.gateway.worker import OPEN_FILES, allow_connections


@pytest.fixture
def limits() -> Iterator[tuple[int, int]]:
    """The soft and hard limit of open files, put back afterwards."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    yield soft, hard
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_a_worker_may_open_as_many_connections_as_its_user(limits: tuple[int, int]) -> None:
    _, hard = limits
    most = OPEN_FILES if hard == resource.RLIM_INFINITY else min(hard, OPEN_FILES)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(256, most), hard))
    allow_connections()
    assert resource.getrlimit(resource.RLIMIT_NOFILE) == (most, hard)


def test_a_limit_that_is_already_higher_stays(limits: tuple[int, int]) -> None:
    _, hard = limits
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    allow_connections()
    assert resource.getrlimit(resource.RLIMIT_NOFILE) == (hard, hard)
