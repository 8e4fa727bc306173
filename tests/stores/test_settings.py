"""External engines are named by two variables, and a wrong one is refused without repeating it."""

from __future__ import annotations

import pytest

from tidegate.base.errors import StoreError
from tidegate.stores.settings import StoreSettings, read_store_settings


def test_nothing_set_means_embedded() -> None:
    assert read_store_settings({"TIDEGATE_VALKEY_URL": " "}) == StoreSettings()


def test_both_are_read() -> None:
    environment = {"TIDEGATE_DATABASE_URL": "postgresql://h/d", "TIDEGATE_VALKEY_URL": "redis://h"}
    expected = StoreSettings(database_url="postgresql://h/d", valkey_url="redis://h")
    assert read_store_settings(environment) == expected


@pytest.mark.parametrize("variable", ["TIDEGATE_DATABASE_URL", "TIDEGATE_VALKEY_URL"])
def test_an_unknown_scheme_is_refused_and_not_repeated(variable: str) -> None:
    with pytest.raises(StoreError) as raised:
        read_store_settings({variable: "mysql://user:hunter2@host"})
    assert raised.value.code == "store_url_invalid"
    assert variable in raised.value.message
    assert "hunter2" not in str(raised.value)


@pytest.mark.parametrize(
    ("variable", "url"),
    [
        ("TIDEGATE_DATABASE_URL", "postgresql://user:hunter2%@host/db"),
        ("TIDEGATE_DATABASE_URL", "postgresql://user:hunter2@[::1/db"),
        ("TIDEGATE_VALKEY_URL", "redis://:hunter2/x@host"),
        ("TIDEGATE_VALKEY_URL", "valkey://u:hunter2@[host"),
    ],
)
def test_what_nobody_can_connect_to_is_refused_and_not_repeated(variable: str, url: str) -> None:
    """The libraries that connect repeat what they cannot read, password and all."""
    with pytest.raises(StoreError) as raised:
        read_store_settings({variable: url})
    assert raised.value.code == "store_url_invalid"
    assert "hunter2" not in str(raised.value)


def test_a_url_of_several_hosts_is_read() -> None:
    url = "postgresql://u:p%25@h1:1,h2:2/db?sslmode=require"
    assert read_store_settings({"TIDEGATE_DATABASE_URL": url}).database_url == url


def test_the_patience_with_valkey_is_a_duration() -> None:
    assert read_store_settings({}).valkey_deadline == 0.025
    assert read_store_settings({"TIDEGATE_VALKEY_DEADLINE": "100ms"}).valkey_deadline == 0.1
    with pytest.raises(StoreError) as error:
        read_store_settings({"TIDEGATE_VALKEY_DEADLINE": "soon"})
    assert error.value.code == "store_deadline_invalid"
