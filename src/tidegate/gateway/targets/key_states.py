"""States of a secret's keys: those on this machine's disk, combined with what operators have set.
Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from tidegate.gateway.targets.keys import KeyPool, KeySetting
from tidegate.secrets import fingerprint
from tidegate.switches import SecretKey


def settings_of(keys: Sequence[str], said: Iterable[SecretKey]) -> list[KeySetting]:
    """The setting of each key that is not revoked; a key that no operator has set is active."""
    states = {one.fingerprint: one for one in said}
    settings = []
    for key in keys:
        one = states.get(fingerprint(key))
        if one is None or one.state == "active":
            settings.append(KeySetting(key))
        elif one.state != "revoked":
            settings.append(KeySetting(key, one.state, one.share))
    return settings


def draining(pools: Iterable[KeyPool]) -> dict[str, float]:
    """Gauges: tries under way with each key that takes no new ones."""
    found: dict[str, float] = {}
    for pool in pools:
        for one in pool.statistics(0.0):
            if one.state == "draining" and one.fingerprint is not None:
                name = f"draining {one.fingerprint}"
                found[name] = found.get(name, 0) + one.in_flight
    return found


def not_here(keys: Sequence[str], said: Iterable[SecretKey]) -> list[str]:
    """Fingerprints of keys that should serve but are not on this machine."""
    here = {fingerprint(key) for key in keys}
    serving = (one.fingerprint for one in said if one.state != "revoked")
    return [mark for mark in serving if mark not in here]
