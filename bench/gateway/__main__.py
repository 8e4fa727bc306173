"""``python -m bench.gateway``: measure, print the tables, keep the raw results."""

from __future__ import annotations

import json
import signal
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import click
from rich.console import Console

from bench.gateway import report
from bench.gateway.children import BenchError
from bench.gateway.run import ALL, QUICK, Settings, run

_PLAIN = ("requests", "rounds", "seconds", "connections", "stream_connections", "workers")
_RESULTS = Path(__file__).resolve().parents[1] / "results"


def _names(_: click.Context, __: click.Parameter, value: str | None) -> tuple[str, ...] | None:
    if value is None:
        return None
    names = tuple(part.strip() for part in value.split(","))
    if unknown := [name for name in names if name not in ALL]:
        raise click.BadParameter(f"{', '.join(unknown)}; choose from {', '.join(ALL)}")
    return names


@click.command(
    epilog="""\b
Examples:
  make bench-gateway
  python -m bench.gateway --quick
  python -m bench.gateway --only nginx,tensorzero --rounds 1 --requests 0
  python -m bench.gateway --summary bench/results/gateway-20261123-190000.json
Needs make bench-peers. The whole run takes about five minutes, --quick one and a half.
Exit codes: 0 measured, 1 a system failed and was left out, 2 usage."""
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object as last line.")
@click.option("--quick", is_flag=True, help="nginx, TensorZero and Tidegate only; no memory run.")
@click.option("--only", callback=_names, help=f"Systems, with commas: {', '.join(ALL)}.")
@click.option("--requests", type=int, help="Requests of the memory run (200000); 0 leaves it out.")
@click.option("--rounds", type=click.IntRange(1, 50), help="Rounds (3); medians are reported.")
@click.option("--seconds", type=click.IntRange(1, 60), help="Of each measurement (4).")
@click.option("--connections", type=click.IntRange(1, 256), help="Of plain requests (16).")
@click.option("--stream-connections", type=click.IntRange(1, 256), help="Of streams (4).")
@click.option("--workers", type=click.IntRange(1, 16), help="Tidegate's gateway processes (1).")
@click.option("--cases", help="miss, hit or miss,hit (both).")
@click.option("--limits", is_flag=True, help="Tidegate with one active limit in dollars.")
@click.option("--switches", is_flag=True, help="Tidegate with a cap set by hand, for all routes.")
@click.option("--no-guard", is_flag=True, help="Tidegate without the output schema.")
@click.option("--no-streams", is_flag=True, help="Plain requests only.")
@click.option("--summary", type=click.Path(exists=True), help="Render a raw result as Markdown.")
def main(as_json: bool, quick: bool, summary: str | None, **asked: Any) -> None:
    """Measure the gateway beside nginx, TensorZero, Portkey and LiteLLM on one upstream."""
    if summary is not None:
        click.echo(report.markdown(json.loads(Path(summary).read_text())), nl=False)
        return
    settings = _settings(quick, asked)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    progress = Console(stderr=True, highlight=False)
    try:
        result = run(settings, lambda words: progress.print(f"bench: {words}", soft_wrap=True))
    except BenchError as error:
        raise click.ClickException(str(error)) from None
    _RESULTS.mkdir(exist_ok=True)
    stamp = result["date"][:19].replace("-", "").replace(":", "").replace("T", "-")
    kept = _RESULTS / f"gateway-{stamp}.json"
    kept.write_text(json.dumps(result, indent=1))
    report.show(result, Console(width=None if sys.stdout.isatty() else 140))
    for words in result["warnings"]:
        progress.print(f"bench: warning: {words}", soft_wrap=True)
    progress.print(f"bench: {result['seconds']:.0f} s; raw results in {kept}", soft_wrap=True)
    if as_json:
        kept_out = {name: value for name, value in result.items() if name != "rounds"}
        click.echo(json.dumps({**kept_out, "raw": str(kept)}, allow_nan=False))
    sys.exit(1 if result["failed"] else 0)


def _settings(quick: bool, asked: dict[str, Any]) -> Settings:
    base = Settings()
    if quick:
        base = replace(base, systems=QUICK, rounds=2, seconds=2.0, requests=0)
    plain = {
        name: asked[name]
        for name in (
            "requests",
            "rounds",
            "seconds",
            "connections",
            "stream_connections",
            "workers",
        )
        if asked[name] is not None
    }
    if asked["only"]:
        plain["systems"] = asked["only"]
    if asked["cases"]:
        plain["cases"] = tuple(part.strip() for part in asked["cases"].split(","))
    return replace(
        base,
        guard=not asked["no_guard"],
        limited=asked["limits"],
        switched=asked["switches"],
        streams=not asked["no_streams"],
        **plain,
    )


if __name__ == "__main__":
    main()
