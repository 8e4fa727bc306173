"""``tidegate mock``: serve the simulated model server until it is interrupted."""

from __future__ import annotations

import json
import os

import click

from tidegate.testing import Echo, ModelServer, Script, ScriptedAnswer, Words, parse_timing

_EPILOG = """\b
Examples:
  tidegate mock --port 9000 --first-token lognormal:200ms,0.3 --inter-token 20ms --tokens 60
  tidegate mock --fault 'every=10 status=429 retry_after=2' --fault 'rate=0.01 cut=5' --seed 7

\b
Timings: 20ms | lognormal:MEDIAN,SIGMA | exponential:MEAN | empirical:T1,T2,...
Faults:  status=N context_length content_policy key_revoked key_forbidden quota prefill loading
         reset hang silence slow_first_token=T slow_tokens=T cut=K stall=K invalid_event=K
         duplicate=K bad_body=empty|truncated|html missing_field=NAME
         mutate=drop|rename|retype|break filtered=K missing_done error_event=K drip=T
         no_usage usage_with_choices
For:     index=0,1 first=N after=N every=N times=N rate=0.01 key=KEY model=NAME path=/v1/...
         after_seconds=S until_seconds=S period_seconds=S when=prefill|stream
A request may bring its own fault in the header x-mock-fault.
"""


@click.command(epilog=_EPILOG)
@click.option("--host", default="127.0.0.1", show_default=True)
@click.option("--port", default=9000, show_default=True, help="0 takes a free port.")
@click.option("--first-token", default="0ms", show_default=True, help="Time to the first token.")
@click.option("--inter-token", default="0ms", show_default=True, help="Time between tokens.")
@click.option("--tokens", default=16, show_default=True, help="Words of a generated answer.")
@click.option("--answer", help="Answer with this text instead of generated words.")
@click.option("--echo", is_flag=True, help="Answer with the last user message.")
@click.option("--model", "models", multiple=True, help="A model name to list; repeat for more.")
@click.option("--fault", "faults", multiple=True, help="A step of the script; repeat for more.")
@click.option("--cached-share", default=0.0, help="Share of prompt tokens reported as cached.")
@click.option("--reasoning-tokens", default=0, help="Reasoning tokens reported in the usage.")
@click.option("--api-key", envvar="TIDEGATE_MOCK_API_KEY", help="Refuse other keys with 401.")
@click.option("--seed", default=0, show_default=True, help="Same seed, same answers and times.")
@click.option("--reuse-port", is_flag=True, help="Let several mocks share the port.")
@click.option("--json", "as_json", is_flag=True, help="Say the address as one JSON object.")
def command(
    host: str,
    port: int,
    first_token: str,
    inter_token: str,
    tokens: int,
    answer: str | None,
    echo: bool,
    models: tuple[str, ...],
    faults: tuple[str, ...],
    cached_share: float,
    reasoning_tokens: int,
    api_key: str | None,
    seed: int,
    reuse_port: bool,
    as_json: bool,
) -> None:
    """Run a simulated model server (OpenAI and Anthropic dialects) until it is interrupted."""
    said: ScriptedAnswer = answer if answer is not None else Echo() if echo else Words(tokens)
    server = ModelServer(
        said,
        script=Script.of(*faults),
        first_token=parse_timing(first_token),
        inter_token=parse_timing(inter_token),
        seed=seed,
        models=models or ("mock",),
        api_key=api_key,
        cached_share=cached_share,
        reasoning_tokens=reasoning_tokens,
        host=host,
        port=port,
        keep=0,
    )

    def ready() -> None:
        if as_json:
            address = {"base_url": server.base_url, "port": server.port, "pid": os.getpid()}
            click.echo(json.dumps(address))
        else:
            click.echo(f"simulated model server on {server.base_url} (Ctrl-C ends it)")

    server.serve_forever(ready, reuse_port=reuse_port)
    if not as_json:
        seen = server.statistics()
        click.echo(f"{seen.requests} requests, {sum(seen.faults.values())} with a fault", err=True)
