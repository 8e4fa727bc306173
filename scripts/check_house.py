"""Check what no linter knows: unique names, faces of rooms, light starts, no ``Any`` on the path.

python scripts/check_house.py   exit 1, and a line for each problem
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable

from house import anys, faces, floors, misspelt, names, start, users, words
from house.source import ROOT, Source

RULES: dict[str, Callable[[Source], list[str]]] = {
    "names": names.problems,
    "faces": faces.problems,
    "lazy faces": faces.lazy_problems,
    "light start": start.problems,
    "imports of tests": users.problems,
    "floor plan": floors.problems,
    "types": anys.problems,
    "misspelt fields": misspelt.problems,
    "words": words.problems,
}


def main() -> int:
    argparse.ArgumentParser(description="Check the rules of the house.").parse_args()
    source = Source(ROOT / "src" / "tidegate")
    failed = 0
    for name, rule in RULES.items():
        for problem in rule(source):
            print(f"{name}: {problem}", file=sys.stderr)
            failed += 1
    print(f"House rules: {', '.join(RULES)}: {failed or 'no'} problems.")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
