"""Releases and keys, loaded beside the requests while switches come."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import msgspec
import pytest

from tests.gateway.releases import sample_release
from tidegate.base.runtime import Runtime
from tidegate.gateway import boot
from tidegate.gateway.targets import KeySetting
from tidegate.registry.releases import put
from tidegate.secrets import fingerprint
from tidegate.switches import SecretKey

FIRST, SECOND = "sk-first-0123456789", "sk-second-987654321"
SECRETS = {"TIDEGATE_SECRET_PAIR": f"{FIRST},{SECOND}"}
Settings = Callable[[Sequence[str], Iterable[SecretKey]], list[KeySetting]]


def said(state: str) -> tuple[SecretKey, ...]:
    """Of the first key."""
    return (SecretKey(secret="pair", fingerprint=fingerprint(FIRST), state=state),)  # type: ignore[arg-type]


def loader_of(folder: Path) -> tuple[boot.Loader, str]:
    """A loader with a release that has the keys loaded, and another such release."""
    release = sample_release("http://127.0.0.1:9/v1")
    registry = folder / "registry"

    def keyed(upstream: str) -> str:
        small = msgspec.structs.replace(
            release.models["small"], keys="secret:pair", upstream=upstream
        )
        models = {**release.models, "small": small}
        return put(registry, msgspec.structs.replace(release, models=models), lambda path: iter(()))

    own, other = keyed("mock-1"), keyed("mock-2")
    runtime = Runtime(
        app=str(folder),
        state=str(folder),
        pid=1,
        release=own,
        database_url="unused",
        valkey_url="unused",
        gateway_url="unused",
        operator_url="unused",
        operator_token="unused",
    )
    loader = boot.Loader(runtime, SECRETS)
    loader.release(own)
    return loader, other


def once_meanwhile(monkeypatch: pytest.MonkeyPatch, work: Callable[[], object]) -> None:
    """``work`` runs between the reading of keys and their use, the first time."""
    real: Settings = boot.settings_of
    left = [work]

    def settings_of(keys: Sequence[str], said: Iterable[SecretKey]) -> list[KeySetting]:
        found = real(keys, said)
        if left:
            left.pop()()
        return found

    monkeypatch.setattr(boot, "settings_of", settings_of)


def test_keys_that_change_while_a_release_is_loaded_are_in_force_in_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    loader, other = loader_of(tmp_path)
    loader.take_secrets(said("canary"))
    once_meanwhile(monkeypatch, lambda: loader.take_secrets(said("revoked")))
    loaded = loader.release(other)
    assert loader.take_secrets(said("revoked")) == []  # as whenever a load is over
    keys = [one.fingerprint for one in loaded.targets["small"].keys.statistics(0.0)]
    assert keys == [fingerprint(SECOND)]


def test_a_release_may_be_loaded_while_keys_are_taken(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    loader, other = loader_of(tmp_path)
    once_meanwhile(monkeypatch, lambda: loader.release(other))
    assert loader.take_secrets(said("canary")) == []
