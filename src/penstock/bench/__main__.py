"""`make bench [SUITE=name]`: run the benchmarks, write `bench/results/NAME.json` and the tables of `docs/benchmarks.md`.

A suite is a module of this package with `run() -> Result`. Its last line of output is one JSON object with the figures.
"""

from __future__ import annotations

import importlib
import json
import sys
from pathlib import Path

from penstock.bench.report import Result, write

SUITES = ("start", "readers", "relay", "hostile", "engine")


def main(names: list[str]) -> int:
    """Run the named suites, all of them without a name. Returns the exit code."""
    if unknown := set(names) - set(SUITES):
        print(f"no such suite: {', '.join(sorted(unknown))}; there are: {', '.join(SUITES)}", file=sys.stderr)
        return 2
    for name in names or SUITES:
        result: Result = importlib.import_module(f"penstock.bench.{name}").run()
        write(result, Path.cwd())
        print(json.dumps({figure.name: figure.median for figure in result.figures}), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main([name for name in sys.argv[1:] if name]))
