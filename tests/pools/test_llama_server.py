"""The chat pool on the real small model, through the official client."""

from __future__ import annotations

import contextlib
import json
import socket
import time

import httpx
import openai
import psutil
import pytest

from tidegate.pools import ModelPool

pytestmark = pytest.mark.timeout(600)  # the first test may have to fetch the weights

ASK = [{"role": "user", "content": "Say hello to zanzibarites."}]


def listener(pool: ModelPool) -> psutil.Process:
    """The process that listens on the pool's port; it listens nowhere else than on loopback."""
    for process in psutil.Process().children(recursive=True):
        for door in process.net_connections("tcp"):
            if door.status == psutil.CONN_LISTEN and door.laddr.port == pool.port:
                assert door.laddr.ip == "127.0.0.1"
                return process
    raise AssertionError(f"nobody listens on {pool.port}")


def busy_slots(pool: ModelPool) -> int:
    """Requests in the engine's slots, by its own metrics."""
    headers = {"authorization": f"Bearer {pool.address.api_key}"}
    text = httpx.get(f"http://127.0.0.1:{pool.port}/metrics", headers=headers).text
    line = next(x for x in text.splitlines() if x.startswith("llamacpp:requests_processing "))
    return int(float(line.split()[1]))


def test_answers_with_text_usage_and_finish_reason(chat: openai.OpenAI) -> None:
    answer = chat.chat.completions.create(model="smollm2", messages=ASK, max_tokens=8)
    assert answer.model == "smollm2"
    assert answer.choices[0].message.content
    assert answer.choices[0].finish_reason in ("length", "stop")
    assert answer.usage is not None
    assert 0 < answer.usage.completion_tokens <= 8
    assert answer.usage.prompt_tokens > 8


def test_streams_tokens_and_then_usage(chat: openai.OpenAI) -> None:
    chunks = list(
        chat.chat.completions.create(
            model="smollm2",
            messages=ASK,
            max_tokens=8,
            stream=True,
            stream_options={"include_usage": True},
        )
    )
    texts = [c.choices[0].delta.content for c in chunks if c.choices and c.choices[0].delta.content]
    assert len(texts) > 1
    assert chunks[-1].usage is not None
    assert chunks[-1].usage.completion_tokens <= 8
    assert [c.choices[0].finish_reason for c in chunks if c.choices][-1] in ("length", "stop")


def test_keeps_to_a_json_schema(chat: openai.OpenAI) -> None:
    schema = {
        "type": "object",
        "properties": {"level": {"enum": ["beginner", "athlete"]}, "days": {"enum": [3, 5]}},
        "required": ["level", "days"],
        "additionalProperties": False,
    }
    answer = chat.chat.completions.create(
        model="smollm2",
        messages=ASK,
        max_tokens=40,
        response_format={"type": "json_schema", "json_schema": {"name": "plan", "schema": schema}},
    )
    value = json.loads(answer.choices[0].message.content or "")
    assert set(value) == {"level", "days"}
    assert value["level"] in ("beginner", "athlete")
    assert value["days"] in (3, 5)


def test_refuses_a_prompt_that_is_longer_than_a_slot(chat: openai.OpenAI) -> None:
    long = [{"role": "user", "content": "knee " * 600}]
    with pytest.raises(openai.BadRequestError) as refused:
        chat.chat.completions.create(model="smollm2", messages=long, max_tokens=8)
    assert refused.value.type == "exceed_context_size_error"


def test_refuses_another_key(chat_pool: ModelPool) -> None:
    stranger = openai.OpenAI(base_url=chat_pool.address.base_url, api_key="no", max_retries=0)
    with stranger, pytest.raises(openai.AuthenticationError):
        stranger.chat.completions.create(model="smollm2", messages=ASK, max_tokens=1)


def test_a_client_that_goes_away_frees_its_slot(chat: openai.OpenAI, chat_pool: ModelPool) -> None:
    stream = chat.chat.completions.create(
        model="smollm2", messages=ASK, max_tokens=400, stream=True, extra_body={"ignore_eos": True}
    )
    next(iter(stream))
    assert busy_slots(chat_pool) == 1
    left = time.monotonic()
    stream.close()
    while busy_slots(chat_pool):
        assert time.monotonic() - left < 10
        time.sleep(0.02)


def test_the_key_stands_neither_on_the_command_line_nor_in_the_log(chat_pool: ModelPool) -> None:
    process = listener(chat_pool)
    assert chat_pool.address.api_key not in " ".join(process.cmdline())
    assert "--port" in process.cmdline()
    assert chat_pool.address.api_key not in chat_pool.spec.log.read_text()


def test_prompts_do_not_reach_the_log(chat: openai.OpenAI, chat_pool: ModelPool) -> None:
    chat.chat.completions.create(model="smollm2", messages=ASK, max_tokens=2)
    assert "zanzibarites" not in chat_pool.spec.log.read_text()


def test_the_page_and_the_slots_of_the_engine_are_closed(chat_pool: ModelPool) -> None:
    headers = {"authorization": f"Bearer {chat_pool.address.api_key}"}
    root = f"http://127.0.0.1:{chat_pool.port}"
    assert httpx.get(f"{root}/slots", headers=headers).status_code != 200
    assert "<html" not in httpx.get(root, headers=headers).text.lower()


def test_it_still_proves_its_health_while_many_requests_wait(chat_pool: ModelPool) -> None:
    body = json.dumps({"model": "smollm2", "messages": ASK, "max_tokens": 300, "stream": True})
    head = (
        "POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n"
        f"authorization: Bearer {chat_pool.address.api_key}\r\ncontent-length: {len(body)}\r\n\r\n"
    )
    with contextlib.ExitStack() as clients:
        for _ in range(60):
            client = clients.enter_context(socket.create_connection(("127.0.0.1", chat_pool.port)))
            client.sendall((head + body).encode())
        time.sleep(0.5)
        probe = chat_pool.spec.probe
        assert probe is not None
        assert probe()
        assert busy_slots(chat_pool) == 1
    left = time.monotonic()
    while busy_slots(chat_pool):
        assert time.monotonic() - left < 10
        time.sleep(0.05)
