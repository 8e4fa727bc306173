"""Which engine serves a model, a stranger's included."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from tests.pools.conftest import CHAT, EMBED
from tidegate.base.errors import PoolError
from tidegate.pools import Launch, find_engine, plan_pool


def test_built_in_engines_by_kind(tmp_path: Path) -> None:
    files = {"weights": tmp_path / "w", "tokenizer": tmp_path / "t"}
    chat = find_engine(CHAT)(Launch(model=CHAT, files=files, port=1))
    assert "tidegate.pools.llama_server" in chat.argv
    assert chat.argv[chat.argv.index("--context") + 1] == "512"
    embed = find_engine(EMBED)(Launch(model=EMBED, files=files, port=1))
    assert "tidegate.pools.embed_server" in embed.argv


def test_an_engine_of_another_package_is_found_by_its_entry_point(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # given an installed package that registers two engines, one under a built-in name
    (tmp_path / "stranger_engine.py").write_text(
        "from tidegate.pools import Command\n"
        "def engine(launch):\n"
        "    return Command(argv=('serve', str(launch.port)), env={'MODE': 'x'})\n"
    )
    info = tmp_path / "stranger-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: stranger\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(
        "[tidegate.engines]\nstranger.chat = stranger_engine:engine\n"
        "local.chat = stranger_engine:engine\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    # when a model names it as provider
    model = msgspec.structs.replace(CHAT, provider="stranger")
    pool = plan_pool(model, {}, tmp_path, port=4242, key="secret")
    # then its command is run with the key in the environment
    assert pool.spec.argv == ("serve", "4242")
    assert pool.spec.env == {"MODE": "x", "TIDEGATE_POOL_KEY": "secret"}
    # and the built-in name still means the built-in engine
    assert find_engine(CHAT).__module__ == "tidegate.pools.engines.llama"


def test_an_unknown_engine_names_those_that_are_there() -> None:
    with pytest.raises(PoolError, match=r"local\.chat, local\.embeddings") as error:
        find_engine(msgspec.structs.replace(CHAT, provider="vllm"))
    assert error.value.code == "engine_unknown"


def test_a_file_that_is_not_pinned_is_asked_for(tmp_path: Path) -> None:
    with pytest.raises(PoolError) as error:
        plan_pool(EMBED, {"weights": tmp_path}, tmp_path)
    assert error.value.code == "pool_file_missing"
    assert "artifacts.tokenizer" in error.value.cure
