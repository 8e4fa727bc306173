"""What a release needs from this machine is told at once and whole, before anything starts."""

from __future__ import annotations

from pathlib import Path

import pytest

from tidegate.base.errors import ReleaseError, SecretError
from tidegate.base.runtime import Runtime
from tidegate.deploy.upstreams import require_bindable
from tidegate.release.values import Model, Release, Route

VENDOR = {"TIDEGATE_SECRET_VENDOR": "sk-1"}


def model(name: str, provider: str = "openai", base_url: str = "http://127.0.0.1:9/v1") -> Model:
    return Model(
        name=name,
        kind="chat",
        provider=provider,
        upstream=f"{name}-1",
        base_url=base_url,
        keys="secret:vendor",
    )


def release(*models: Model) -> Release:
    route = Route(name="r", kind="chat", models=tuple(one.name for one in models))
    return Release(app="a", models={one.name: one for one in models}, routes={"r": route})


def runtime(state: Path) -> Runtime:
    return Runtime(
        app=str(state),
        state=str(state),
        pid=1,
        release="sha256:0",
        database_url="",
        valkey_url="",
        gateway_url="http://127.0.0.1:1",
        operator_url="http://127.0.0.1:2",
        operator_token="t",
    )


def test_nothing_is_missing(tmp_path: Path) -> None:
    require_bindable(release(model("a"), model("b")), runtime(tmp_path), VENDOR)


def test_one_missing_key_is_told_once_with_where_to_put_it(tmp_path: Path) -> None:
    with pytest.raises(SecretError, match="TIDEGATE_SECRET_VENDOR is not set") as told:
        require_bindable(release(model("a"), model("b")), runtime(tmp_path), {})
    assert told.value.code == "secret_missing"


def test_everything_that_is_missing_is_told_together(tmp_path: Path) -> None:
    wrong = release(model("a", base_url="${FAR_URL}"), model("b", provider="antropic"), model("c"))
    with pytest.raises(ReleaseError) as told:
        require_bindable(wrong, runtime(tmp_path), {})
    assert told.value.code == "models_unbound"
    for words in ("FAR_URL", "'vendor'", "TIDEGATE_SECRET_VENDOR"):
        assert words.strip("'") in told.value.message


def test_a_model_that_no_route_reaches_needs_nothing(tmp_path: Path) -> None:
    spare = Release(app="a", models={"spare": model("spare")}, routes={})
    require_bindable(spare, runtime(tmp_path), {})
