"""``tidegate limits``: how each limit stands, read from the store."""

from __future__ import annotations

import asyncio
import json
import os
import time
from pathlib import Path

import msgspec
import pytest
from click.testing import CliRunner

from tests.gateway.releases import sample_release
from tidegate.base.errors import RuntimeStateError
from tidegate.base.runtime import Runtime, write_runtime
from tidegate.cli.limits import command
from tidegate.registry.releases import put
from tidegate.release.values import Limit
from tidegate.stores.counters import Counters
from tidegate.stores.reservations import (
    ReservationGranted,
    ReservationPart,
    ReservationTerms,
    Settlement,
)
from tidegate.stores.valkey_client import ValkeyClient
from tidegate.stores.windows import NANO, counter_stem, window_at


def running_app(folder: Path, valkey_url: str, *limits: Limit) -> Path:
    (folder / "tidegate.yaml").write_text("app: sample\n")
    release = msgspec.structs.replace(
        sample_release("http://127.0.0.1:9/v1"), limits={one.name: one for one in limits}
    )
    state = folder / ".tidegate"
    write_runtime(
        Runtime(
            app=str(folder),
            state=str(state),
            pid=os.getpid(),
            release=put(state / "registry", release, lambda path: iter(())),
            database_url="postgresql://nowhere/x",
            valkey_url=valkey_url,
            gateway_url="http://127.0.0.1:1",
            operator_url="http://127.0.0.1:1",
            operator_token="unused",
        )
    )
    return folder


SPEND = Limit(name="spend", per="tenant", unit="dollars", amount=50, calendar="day")
RATE = Limit(name="rate", per="app", unit="requests", amount=60, every=60.0, burst=10)


def test_each_limit_is_shown_with_what_is_used_reserved_and_left(
    tmp_path: Path, valkey_url: str
) -> None:
    app = running_app(tmp_path, valkey_url, SPEND, RATE)

    async def use() -> None:
        store = ValkeyClient(valkey_url, deadline=5.0)
        await store.start()
        stem = counter_stem("spend", "dollars", window_at("day", time.time()).name)
        key = f"{stem}acme [1]".encode()
        counters = Counters(store)
        parts = [ReservationPart(key, 1, 2 * NANO, False, 50 * NANO, 0.0, 60_000)]
        for _ in range(2):
            verdict = await counters.outcome(
                counters.reserve(parts, ReservationTerms(60_000, 1000, 1))
            )
            assert isinstance(verdict, ReservationGranted)
        counters.settle([Settlement(key, 2 * NANO, NANO // 2, 0.0, 60_000)], verdict)
        await asyncio.sleep(0.05)
        await store.stop()

    asyncio.run(use())
    told = CliRunner().invoke(command, [str(app), "--json"])
    assert told.exit_code == 0, told.output
    rate, spend = sorted(json.loads(told.output)["limits"], key=lambda one: one["limit"])
    assert (spend["scope"], spend["used"], spend["reserved"]) == ("acme [1]", 0.5, 2)
    assert (spend["remaining"], spend["most"], spend["on_outage"]) == (47.5, 50, "open")
    assert 0 < spend["resets_in"] <= 86_400
    assert (rate["used"], rate["remaining"], rate["resets_in"]) == (0, 10, 0)
    table = CliRunner().invoke(command, [str(app)]).output
    assert "47.50" in table
    assert "acme" in table


def test_an_app_without_limits_is_told_how_to_write_some(tmp_path: Path, valkey_url: str) -> None:
    told = CliRunner().invoke(command, [str(running_app(tmp_path, valkey_url))])
    assert told.exit_code == 0
    assert "limits:" in told.output


def test_a_store_that_is_away_and_an_app_that_does_not_run_are_named(tmp_path: Path) -> None:
    app = running_app(tmp_path, f"unix://{tmp_path}/nothing.sock", RATE)
    told = CliRunner().invoke(command, [str(app)])
    assert getattr(told.exception, "code", None) == "limits_unreadable"
    (tmp_path / ".tidegate/run/runtime.json").unlink()
    with pytest.raises(RuntimeStateError, match="nothing runs"):
        CliRunner().invoke(command, [str(app)], catch_exceptions=False)
