"""``tidegate mock`` as a process: says where it listens, serves, ends in order."""

from __future__ import annotations

import json
import subprocess

import httpx
import pytest
from click.testing import CliRunner

from tests.cli.command import command as typed
from tidegate.base.errors import PoolError, UsageError
from tidegate.cli.mock import command
from tidegate.testing import ModelServer

ASK = {"model": "m", "messages": [{"role": "user", "content": "x"}]}


def test_serves_until_it_is_asked_to_end() -> None:
    options = ["--port", "0", "--tokens", "3", "--fault", "index=1 status=429 retry_after=2"]
    with subprocess.Popen(
        typed("mock", *options, "--json"),
        stdout=subprocess.PIPE,
        text=True,
    ) as mock:
        assert mock.stdout is not None
        try:
            address = json.loads(mock.stdout.readline())
            url = f"{address['base_url']}/chat/completions"
            answers = [httpx.post(url, json=ASK) for _ in range(2)]
        finally:
            mock.terminate()
        assert mock.wait(10) == 0
    assert [answer.status_code for answer in answers] == [200, 429]
    assert answers[1].headers["retry-after"] == "2"
    assert len(answers[0].json()["choices"][0]["message"]["content"].split()) == 3


def test_a_taken_port_and_unreadable_options_are_named() -> None:
    run = CliRunner().invoke
    with ModelServer() as server:
        taken = run(command, ["--port", str(server.port)])
    assert isinstance(taken.exception, PoolError)
    for options in (["--fault", "nope"], ["--first-token", "soon"]):
        assert isinstance(run(command, options).exception, UsageError)


@pytest.mark.parametrize("word", ["--first-token", "x-mock-fault", "every=10 status=429"])
def test_help_shows_how(word: str) -> None:
    assert word in CliRunner().invoke(command, ["--help"]).output
