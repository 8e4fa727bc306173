"""``python -m bench.faults``: play, print the scorecard, keep the raw result."""

from __future__ import annotations

import json
import signal
import sys
from pathlib import Path

import click
from rich.console import Console

from bench.faults import report
from bench.faults.run import ALL, Settings, run
from tidegate.testing.scenarios import SCENARIOS

_RESULTS = Path(__file__).resolve().parents[1] / "results"
_IDS = {one.id: one for one in SCENARIOS}


def _chosen(known: tuple[str, ...], value: str | None) -> tuple[str, ...]:
    if value is None:
        return known
    names = tuple(part.strip() for part in value.split(","))
    if unknown := [name for name in names if name not in known]:
        raise click.BadParameter(f"{', '.join(unknown)}; choose from {', '.join(known)}")
    return names


@click.command(
    epilog="""\b
Examples:
  make bench-faults
  python -m bench.faults --explain
  python -m bench.faults --only tidegate,tidegate-hold --scenarios S06,S07
  python -m bench.faults --summary bench/results/faults-20261125-100000.json
LiteLLM, Portkey and TensorZero need make bench-peers. A run takes about three minutes.
Exit codes: 0 judged, 1 a system failed to start and was left out, 2 usage."""
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object as last line.")
@click.option("--explain", is_flag=True, help="A sentence for every cell that is no pass.")
@click.option("--only", help=f"Systems, with commas: {', '.join(ALL)}.")
@click.option("--scenarios", help="Ids, with commas: S01 to S16.")
@click.option("--whole", is_flag=True, help="Ask for whole answers; S07 to S11 and S14 are left.")
@click.option("--summary", type=click.Path(exists=True), help="Render a raw result as Markdown.")
def main(
    as_json: bool,
    explain: bool,
    only: str | None,
    scenarios: str | None,
    whole: bool,
    summary: str | None,
) -> None:
    """Play sixteen upstream faults to Tidegate, a bare client, LiteLLM, Portkey and TensorZero."""
    if summary is not None:
        click.echo(report.markdown(json.loads(Path(summary).read_text())), nl=False)
        return
    chosen = [_IDS[id_] for id_ in _chosen(tuple(_IDS), scenarios)]
    settings = Settings(
        systems=_chosen(ALL, only),
        scenarios=tuple(one for one in chosen if not (whole and one.streamed_only)),
        stream=not whole,
    )
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    progress = Console(stderr=True, highlight=False)
    result = run(
        settings, lambda words: progress.print(f"bench: {words}", soft_wrap=True, markup=False)
    )
    _RESULTS.mkdir(exist_ok=True)
    stamp = result["date"][:19].replace("-", "").replace(":", "").replace("T", "-")
    kept = _RESULTS / f"faults-{stamp}.json"
    kept.write_text(json.dumps(result, indent=1))
    report.show(result, Console(width=None if sys.stdout.isatty() else 160), explain=explain)
    progress.print(f"bench: {result['seconds']:.0f} s; raw result in {kept}", soft_wrap=True)
    if as_json:
        click.echo(json.dumps({**result, "raw": str(kept)}, allow_nan=False))
    sys.exit(1 if result["failed"] else 0)


if __name__ == "__main__":
    main()
