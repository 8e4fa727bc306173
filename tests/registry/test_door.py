"""The room's door: what it names is there, and the gateway's half brings no HTTP client."""

from __future__ import annotations

import subprocess
import sys

import pytest

import tidegate.registry


def test_a_name_that_is_not_there_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError):
        tidegate.registry.nothing  # noqa: B018


def test_loading_a_release_brings_neither_httpx_nor_pydantic() -> None:
    code = (
        "import sys, tidegate.registry, tidegate.secrets;"
        "sys.exit(' '.join({'httpx', 'pydantic', 'yaml', 'rich'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.stderr.strip() == ""
