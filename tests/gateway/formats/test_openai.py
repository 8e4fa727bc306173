"""The OpenAI format and the neutral values say the same to each other."""

from __future__ import annotations

import itertools
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.gateway.calls import CHAT
from tests.gateway.providers.test_anthropic import STREAM as MESSAGES
from tests.gateway.streams import Heard
from tidegate.gateway.formats.openai import ChunkReader, read_conversation, write_fields
from tidegate.gateway.neutral import (
    AudioPart,
    Conversation,
    FilePart,
    ImagePart,
    Message,
    OfferedTool,
    OutputFormat,
    RefusalPart,
    Sampling,
    TextPart,
    ToolCallPart,
    ToolResultPart,
    Transcript,
    Untranslatable,
)
from tidegate.gateway.providers.anthropic import AnthropicProvider
from tidegate.gateway.wire.sse import EventSplitter

TEXT = st.text(st.characters(exclude_categories=("Cs",)), min_size=1, max_size=8)
MARKS = st.sampled_from([None, "5m", "1h"])
TEXTS = st.builds(TextPart, TEXT, MARKS)
IMAGES = st.one_of(
    st.builds(ImagePart, url=st.just("https://x/y.png"), detail=st.sampled_from([None, "low"])),
    st.builds(ImagePart, media_type=st.just("image/png"), data=st.just("AAAA"), cache=MARKS),
)
OTHERS = st.one_of(
    st.builds(AudioPart, st.just("AAAA"), st.sampled_from(["wav", "mp3"])),
    st.builds(FilePart, file_id=TEXT),
    st.builds(FilePart, name=TEXT, data=st.just("AAAA")),
)
CALLS = st.builds(ToolCallPart, TEXT, TEXT, st.sampled_from(["{}", '{"a": 1}', "not JSON"]))
ONE_TEXT = TEXT.map(lambda text: (TextPart(text),))
SEVERAL = st.lists(st.one_of(TEXTS, IMAGES, OTHERS), min_size=2, max_size=4).map(tuple)
NAMES = st.none() | TEXT
MESSAGES_OF = st.one_of(
    st.builds(Message, st.just("system"), ONE_TEXT, NAMES),
    st.builds(
        Message,
        st.just("user"),
        st.one_of(ONE_TEXT, SEVERAL),
        NAMES,
    ),
    st.builds(
        Message,
        st.just("assistant"),
        st.tuples(ONE_TEXT, st.lists(CALLS, max_size=2)).map(lambda t: (*t[0], *t[1])),
    ),
    st.builds(Message, st.just("tool"), st.builds(ToolResultPart, TEXT, TEXT).map(lambda r: (r,))),
)  # fmt: skip
SCHEMAS = st.sampled_from([{"type": "object"}, {"type": "array", "items": {}}])
CONVERSATIONS = st.builds(
    Conversation,
    messages=st.lists(MESSAGES_OF, min_size=1, max_size=4).map(tuple),
    tools=st.lists(st.builds(OfferedTool, TEXT, st.none() | TEXT, SCHEMAS), max_size=2).map(tuple),
    tool_choice=st.sampled_from([None, "auto", "none", "required", "tool:find"]),
    parallel_tools=st.sampled_from([None, True, False]),
    format=st.one_of(
        st.none(),
        st.just(OutputFormat("object")),
        st.builds(OutputFormat, TEXT, SCHEMAS, st.sampled_from([None, True])),
    ),
    sampling=st.builds(
        Sampling,
        temperature=st.none() | st.floats(0, 2),
        top_p=st.none() | st.floats(0, 1),
        seed=st.none() | st.integers(0, 9),
        frequency_penalty=st.none() | st.floats(-2, 2),
        stop=st.lists(TEXT, max_size=2).map(tuple),
    ),
    output_tokens=st.none() | st.integers(1, 9999),
    choices=st.integers(1, 3),
    extras=st.dictionaries(st.sampled_from(["user", "later"]), st.just(b'"x"')),
)


@given(CONVERSATIONS)
def test_what_has_a_neutral_word_comes_back(asked: Conversation) -> None:
    assert read_conversation(write_fields(asked)) == asked


@given(CONVERSATIONS)
def test_what_is_written_is_a_request_that_this_gateway_takes(asked: Conversation) -> None:
    values = {name: msgspec.json.decode(raw) for name, raw in write_fields(asked).items()}
    client = CHAT.parse(msgspec.json.encode({"model": "m", **values}))
    assert client.ask.choices == asked.choices
    assert client.ask.conversation() == asked


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"messages": [{"role": "critic", "content": "x"}]}, "messages"),
        ({"messages": [{"role": "user", "content": [{"type": "video"}]}]}, "messages"),
        ({"messages": [], "tools": [{"type": "custom", "custom": {}}]}, "tools"),
        ({"messages": [], "tool_choice": {"type": "allowed_tools"}}, "tool_choice"),
        ({"messages": [], "response_format": {"type": "grammar"}}, "response_format"),
    ],
)
def test_what_has_none_is_named(fields: dict[str, Any], param: str) -> None:
    raw = {name: msgspec.json.encode(value) for name, value in fields.items()}
    with pytest.raises(Untranslatable) as raised:
        read_conversation(raw)
    assert raised.value.param == param


@given(st.lists(st.integers(0, 2000), max_size=10))
def test_a_translated_stream_says_what_the_original_said(places: list[int]) -> None:
    """Messages events, cut anywhere, written as chunks, and read again as a client would."""
    data = b"".join(MESSAGES)
    borders = [0, *sorted(place % len(data) for place in places), len(data)]
    heard, splitter = Heard(AnthropicProvider(), shows_usage=True), EventSplitter()
    out = b"".join(
        heard.feed(event)
        for a, b in itertools.pairwise(borders)
        for event in splitter.feed(data[a:b])
    )
    reader, again = ChunkReader(), Transcript()
    for event in EventSplitter().feed(out):
        again.add(reader.feed(event))
    said = heard.said
    assert again.completion() == said.completion()
    assert (again.text(), again.finish, again.usage) == (said.text(), said.finish, said.usage)
    assert (again.pieces, again.chars) == (said.pieces, said.chars)


def test_refusals_and_several_choices_are_written_too() -> None:
    message = Message("assistant", (RefusalPart("no"),))
    fields = write_fields(Conversation(messages=(message,)))
    assert read_conversation(fields).messages == (message,)
