"""`python -m tests.fuzz.by_coverage TARGET …`: atheris drives one target towards code that no input has reached yet.

Owns the instrumentation. What follows the target's name goes to libFuzzer (`-runs=`, `-seed=`, a corpus directory).
"""

from __future__ import annotations

import sys

import atheris

with atheris.instrument_imports(include=["penstock"]):
    from tests.fuzz.targets import TARGETS


def main() -> None:
    atheris.Setup([sys.argv[0], *sys.argv[2:]], TARGETS[sys.argv[1]])
    atheris.Fuzz()


if __name__ == "__main__":
    main()
