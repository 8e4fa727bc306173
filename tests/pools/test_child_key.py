"""A server's key comes from the environment or a private file, and nowhere else."""

from __future__ import annotations

from pathlib import Path

import pytest

from tidegate.base.errors import PoolError
from tidegate.pools.child_key import read_child_key
from tidegate.pools.ports import KEY_VARIABLE


def test_the_environment_forgets_the_key() -> None:
    environment = {KEY_VARIABLE: "k", "PATH": "/bin"}
    assert read_child_key(environment, None) == "k"
    assert environment == {"PATH": "/bin"}


def test_a_private_file_is_read(tmp_path: Path) -> None:
    file = tmp_path / "key"
    file.write_text("k\n")
    file.chmod(0o600)
    assert read_child_key({}, file) == "k"
    file.chmod(0o640)
    with pytest.raises(PoolError) as error:
        read_child_key({}, file)
    assert error.value.code == "pool_key_exposed"


def test_no_key_is_refused() -> None:
    with pytest.raises(PoolError) as error:
        read_child_key({}, None)
    assert error.value.code == "pool_key_missing"
