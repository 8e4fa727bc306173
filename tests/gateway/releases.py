"""Releases made by hand: what the tests of the gateway serve."""

from __future__ import annotations

import msgspec

from tidegate.base.hashing import sha256
from tidegate.base.money import Price
from tidegate.release.values import (
    Breaker,
    Caps,
    DeclaredJourney,
    GatewaySettings,
    Hedge,
    Input,
    Model,
    OutputSchema,
    Pinned,
    Prompt,
    Release,
    Retries,
    Route,
    Timeouts,
)

PLAN = "Make a plan for {{ goal }} at level {{ level }}."
NO_RETRIES = Retries(most=0)
TIMEOUTS = Timeouts(connect=1, first_token=1.2, idle=0.8, total=3.5)
SCHEMA = {
    "type": "object",
    "properties": {"n": {"type": "integer"}},
    "required": ["n"],
    "additionalProperties": False,
}


def pinned(path: str, text: str) -> Pinned:
    return Pinned(path=path, sha256=sha256(text), size=len(text))


def sample_release(
    base_url: str,
    spare_url: str = "http://127.0.0.1:9/v1",
    anthropic_url: str = "http://127.0.0.1:9",
    *,
    keys: str = "required",
    timeouts: Timeouts = TIMEOUTS,
    retries: Retries = NO_RETRIES,
    breaker: Breaker | None = None,
) -> Release:
    """``retries`` and ``breaker`` are those of all routes and models; none unless a test is about
    them."""
    price = Price(input=1.0, output=2.0, cached_input=0.5)
    prompt = Prompt(
        name="plan",
        file=pinned("prompts/plan.md", PLAN),
        text=PLAN,
        role="user",
        inputs={
            "goal": Input(type="string"),
            "level": Input(
                type="string", choices=("beginner", "athlete"), required=False, default="beginner"
            ),
        },
    )
    models = {
        "small": Model(
            name="small", kind="chat", provider="openai", upstream="mock-1",
            base_url=base_url, price=price,
        ),
        "spare": Model(
            name="spare", kind="chat", provider="openai", upstream="mock-2",
            base_url=spare_url, price=price,
        ),
        "claude": Model(
            name="claude", kind="chat", provider="anthropic", upstream="mock-3",
            base_url=anthropic_url + "/v1", price=price,
        ),
        "unpriced": Model(
            name="unpriced", kind="chat", provider="openai", upstream="mock-4", base_url=base_url
        ),
        "embedder": Model(
            name="embedder", kind="embeddings", provider="openai", upstream="mock-e",
            base_url=base_url, price=Price(input=0.1),
        ),
    }  # fmt: skip
    routes = [
        Route(name="plain", kind="chat", models=("small",), timeouts=timeouts),
        Route(name="rescued", kind="chat", models=("small", "spare"), timeouts=timeouts),
        Route(
            name="plan", kind="chat", models=("small",), prompt="plan", cache_ttl=60,
            timeouts=timeouts,
        ),
        Route(
            name="capped", kind="chat", models=("small",), timeouts=timeouts,
            caps=Caps(prompt_tokens=50, output_tokens=16),
        ),
        Route(
            name="shaped", kind="chat", models=("small",), timeouts=timeouts,
            output=OutputSchema(file=pinned("s.json", "{}"), json_schema=SCHEMA),
        ),
        Route(name="claude", kind="chat", models=("claude",), timeouts=timeouts),
        Route(name="unpriced", kind="chat", models=("unpriced",), timeouts=timeouts),
        Route(
            name="private", kind="chat", models=("small",), timeouts=timeouts, store_content=False
        ),
        Route(
            name="embed", kind="embeddings", models=("embedder",), cache_ttl=60, timeouts=timeouts
        ),
        Route(
            name="held", kind="chat", models=("small", "spare"), timeouts=timeouts, hold="answer"
        ),
        Route(
            name="held-alone", kind="chat", models=("small",), timeouts=timeouts, hold="answer"
        ),
        Route(
            name="held-shaped", kind="chat", models=("small",), timeouts=timeouts, hold="answer",
            output=OutputSchema(file=pinned("s.json", "{}"), json_schema=SCHEMA),
        ),
        Route(
            name="hedged", kind="chat", models=("small", "spare"), timeouts=timeouts,
            hedge=Hedge(after=0.15, spend=1.0),
        ),
        Route(
            name="hedged-alone", kind="chat", models=("small",), timeouts=timeouts,
            hedge=Hedge(after=0.15, spend=1.0),
        ),
        Route(
            name="hedged-held", kind="chat", models=("small", "spare"), timeouts=timeouts,
            hedge=Hedge(after=0.15, spend=1.0), hold="answer",
        ),
        Route(
            name="thrifty", kind="chat", models=("small", "spare"), timeouts=timeouts,
            hedge=Hedge(after=0.1, spend=0.1),
        ),
        Route(
            name="measured", kind="chat", models=("small", "spare"), hold="answer",
            timeouts=Timeouts(connect=1, first_token=3, idle=3, total=30, min_rate=20),
        ),
        Route(
            name="measured-open", kind="chat", models=("small",),
            timeouts=Timeouts(connect=1, first_token=3, idle=3, total=30, min_rate=20),
        ),
        Route(
            name="small-answers", kind="chat", models=("small",), timeouts=timeouts,
            caps=Caps(answer_bytes=1024),
        ),
    ]  # fmt: skip
    models = {name: msgspec.structs.replace(one, breaker=breaker) for name, one in models.items()}
    routes = [msgspec.structs.replace(route, retries=retries) for route in routes]
    return Release(
        app="sample",
        models=models,
        prompts={"plan": prompt},
        routes={route.name: route for route in routes},
        journeys={"get-plan": DeclaredJourney(name="get-plan", routes=("plan",))},
        gateway=GatewaySettings(keys=keys, direct_models=True, max_body_bytes=65536),
    )
