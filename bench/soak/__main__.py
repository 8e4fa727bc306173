"""``python -m bench.soak``: bounded traffic for a time, then the judgement."""

from __future__ import annotations

import asyncio
import json
import platform
import signal
import sys
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import click
import msgspec
import psycopg
from rich.console import Console
from rich.table import Table

from bench.soak import app
from bench.soak.flips import Flips
from bench.soak.samples import Sample, Sampler
from bench.soak.traffic import Traffic
from bench.soak.verdict import Finding, judge

_RESULTS = Path(__file__).resolve().parents[1] / "results"


@click.command(
    epilog="""\b
Examples:
  make soak                        an hour at 20 requests a second
  python -m bench.soak --minutes 2 --rate 40
Traffic stays on this machine. Exit codes: 0 nothing grew, 1 something did, 2 usage."""
)
@click.option("--minutes", type=click.FloatRange(0.1, 24 * 60), default=60.0, show_default=True)
@click.option("--rate", type=click.FloatRange(1, 200), default=20.0, show_default=True)
@click.option("--workers", type=click.IntRange(1, 8), default=2, show_default=True)
@click.option("--seed", type=int, default=1, show_default=True)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object as last line.")
def main(minutes: float, rate: float, workers: int, seed: int, as_json: bool) -> None:
    """Everyday traffic with faults, cancels and bad input; nothing may grow."""
    progress = Console(stderr=True, highlight=False)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    with (
        tempfile.TemporaryDirectory(prefix="tidegate-soak-") as folder,
        app.upstreams(seed) as (upstream, spare),
        app.running(Path(folder), upstream, spare, workers) as ready,
    ):
        result = asyncio.run(soak(ready, minutes * 60, rate, seed, progress))
        played = {fault: upstream.played.get(at, 0) for at, fault in enumerate(app.FAULTS)}
    findings: list[Finding] = result.pop("findings")
    findings.append(
        Finding(
            "kinds of upstream faults that were never played",
            float(sum(not times for times in played.values())),
            0.0,
            ", ".join(f"{fault.partition(' ')[2]} {times}" for fault, times in played.items()),
        )
    )
    show(findings, Console(width=None if sys.stdout.isatty() else 140))
    _RESULTS.mkdir(exist_ok=True)
    kept = _RESULTS / f"soak-{datetime.now(UTC):%Y%m%d-%H%M%S}.json"
    result |= {"minutes": minutes, "rate": rate, "workers": workers, "seed": seed}
    result |= {"python": platform.python_version(), "date": f"{datetime.now(UTC):%Y-%m-%d}"}
    result["findings"] = [{**msgspec.to_builtins(one), "ok": one.ok} for one in findings]
    kept.write_text(json.dumps(result))
    progress.print(f"soak: raw samples in {kept}", soft_wrap=True)
    if as_json:
        short = {name: value for name, value in result.items() if name != "samples"}
        click.echo(json.dumps({**short, "raw": str(kept)}))
    sys.exit(0 if all(one.ok for one in findings) else 1)


async def soak(
    ready: app.Ready, seconds: float, rate: float, seed: int, progress: Console
) -> dict[str, Any]:
    """Traffic, samples in between, then quiet; the findings and all that was seen."""
    samples: list[Sample] = []
    every = max(min(1.0, seconds / 20), seconds / 240)
    traffic = Traffic(ready.gateway_url, ready.key, rate, seed)
    said = 0.0

    def tell() -> None:
        nonlocal said
        if samples and time.monotonic() - said > max(10.0, seconds / 60):
            said = time.monotonic()
            last = samples[-1]
            memory = ", ".join(f"{one.rss >> 20} MiB" for one in last.workers.values())
            progress.print(
                f"soak: {last.at:.0f} of {seconds:.0f} s, {last.sent} sent, workers {memory}, "
                f"{last.valkey_keys} keys",
                soft_wrap=True,
            )

    async with Sampler(ready.state) as sampler:

        async def look() -> None:
            while True:
                await asyncio.sleep(every)
                samples.append(await sampler.take(traffic.tally.sent.total()))

        flips = Flips(sampler.runtime.database_url)
        beside = [asyncio.create_task(look()), asyncio.create_task(flips.run(max(5, seconds / 60)))]
        await traffic.run(seconds, tell)
        for task in beside:
            task.cancel()
        await asyncio.wait(beside)
        sent = traffic.tally.sent.total()
        end = await sampler.until_quiet(45.0, sent)
        reserved = await sampler.reserved()
        for_ever = await sampler.keys_for_ever()
        receipts = await asyncio.to_thread(count_receipts, sampler.runtime.database_url, sent)
    findings = judge(samples, end)
    tally = traffic.tally
    reached = sent - tally.answers["left_early left"]
    findings += [
        Finding(
            "valkey keys that never expire",
            float(len(for_ever)),
            0.0,
            ", ".join(for_ever[:3]) or "each has an end",
        ),
        Finding(
            "budget still reserved",
            float(sum(reserved.values())),
            0.0,
            ", ".join(f"{name} {amount}" for name, amount in reserved.items()) or "all returned",
        ),
        Finding(
            "answers that no fault explains",
            float(tally.odd.total()),
            0.0,
            ", ".join(f"{n} x {words}" for words, n in tally.odd.most_common(5)) or "none",
        ),
        Finding(
            "requests without a receipt",
            float(max(0, reached - receipts)),
            0.0,
            f"{sent} sent, {tally.answers['left_early left']} left at once, {receipts} receipts",
        ),
        Finding(
            "switches that a worker did not acknowledge",
            float(flips.unheard),
            0.0,
            f"{flips.made} flips",
        ),
        Finding("requests not sent, too many under way", float(tally.skipped), 0.0, "bounded load"),
    ]
    return {
        "findings": findings,
        "answers": dict(sorted(tally.answers.items())),
        "samples": msgspec.to_builtins([*samples, end]),
    }


def count_receipts(database_url: str, at_most: int) -> int:
    """Receipts in PostgreSQL, once their number has stood still for a few seconds."""
    with psycopg.connect(database_url, autocommit=True) as connection:
        last = -1
        while True:
            (count,) = connection.execute("SELECT count(*) FROM receipts").fetchone() or (0,)
            if count == last or count >= at_most:
                return int(count)
            last = int(count)
            time.sleep(5)


def show(findings: list[Finding], console: Console) -> None:
    table = Table("finding", "value", "at most", "", "seen")
    for one in findings:
        table.add_row(
            one.name, f"{one.value:.3g}", f"{one.limit:.3g}", "ok" if one.ok else "GREW",
            one.sentence,
        )  # fmt: skip
    console.print(table)


if __name__ == "__main__":
    main()
