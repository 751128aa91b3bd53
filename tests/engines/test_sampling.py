"""The transformers engine's rules of sampling are the library's, in TGI's order."""

from __future__ import annotations

import os
import random
import subprocess
from pathlib import Path

import pytest

from tests.engines.conftest import interpreter

SOURCES = Path(__file__).parents[2] / "src"


@pytest.mark.engines
def test_each_rule_and_all_together_are_the_librarys(rng: random.Random) -> None:
    program = Path(__file__).with_name("sampling_check.py")
    done = subprocess.run(
        [interpreter("transformers"), "-P", program, str(rng.randrange(2**31))],
        env={**os.environ, "PYTHONPATH": str(SOURCES)},
        capture_output=True,
        text=True,
        timeout=110,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
