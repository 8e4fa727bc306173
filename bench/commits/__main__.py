"""``python -m bench.commits``: compare the working tree with a commit, print what changed."""

from __future__ import annotations

import json
import signal
import sys
from pathlib import Path

import click
from rich.console import Console

from bench.commits import report
from bench.commits.run import Settings, run
from bench.commits.trees import WORKING_TREE
from bench.gateway.children import BenchError

_RESULTS = Path(__file__).resolve().parents[1] / "results"


@click.command(
    epilog="""\b
Examples:
  make bench-commit BASE=main
  python -m bench.commits --base HEAD~3 --runs 2 --seconds 2
  python -m bench.commits --base v1.0 --head v1.1
  python -m bench.commits --summary bench/results/commits-20261127-190000.json
Needs nginx and wrk. Five runs take about eight minutes. Traffic stays on this machine.
Exit codes: 0 no bar is missed, 1 one is, or a side could not be measured, 2 usage."""
)
@click.option("--base", help="The commit, tag or branch to compare with.")
@click.option("--head", default=WORKING_TREE, help="Another commit in place of the working tree.")
@click.option("--runs", type=click.IntRange(1, 50), default=5, show_default=True)
@click.option("--seconds", type=click.IntRange(1, 60), default=4, show_default=True)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object as last line.")
@click.option("--summary", type=click.Path(exists=True), help="Render a raw result as Markdown.")
def main(
    base: str | None, head: str, runs: int, seconds: int, as_json: bool, summary: str | None
) -> None:
    """Measure CPU, first token and memory of two checkouts of Tidegate in turns."""
    if summary is not None:
        click.echo(report.markdown(json.loads(Path(summary).read_text())), nl=False)
        return
    if not base:
        raise click.UsageError("name the commit to compare with: --base COMMIT")
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    progress = Console(stderr=True, highlight=False)

    def say(words: str) -> None:
        progress.print(f"bench: {words}", soft_wrap=True, markup=False)

    try:
        result = run(Settings(base=base, head=head, runs=runs, seconds=float(seconds)), say)
    except BenchError as error:
        raise click.ClickException(str(error)) from None
    _RESULTS.mkdir(exist_ok=True)
    stamp = result["date"][:19].replace("-", "").replace(":", "").replace("T", "-")
    kept = _RESULTS / f"commits-{stamp}.json"
    kept.write_text(json.dumps(result, indent=1))
    report.show(result, Console(width=None if sys.stdout.isatty() else 140))
    for words in result["warnings"]:
        say(f"warning: {words}")
    say(f"{result['seconds']:.0f} s; raw results in {kept}")
    if as_json:
        kept_out = {name: value for name, value in result.items() if name != "runs"}
        click.echo(json.dumps({**kept_out, "raw": str(kept)}, allow_nan=False))
    sys.exit(1 if any(bar["reached"] is False for bar in result["bars"]) else 0)


if __name__ == "__main__":
    main()
