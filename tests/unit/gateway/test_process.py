"""What a worker does to its own process."""

from __future__ import annotations

import os
import subprocess
import sys

from tests.replicas import PYTHONPATH

PROGRAM = """
import resource
hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
resource.setrlimit(resource.RLIMIT_NOFILE, (128, hard))
from penstock.gateway.process import take_all_descriptors
take_all_descriptors()
print(resource.getrlimit(resource.RLIMIT_NOFILE) == (hard, hard), hard > 128)
"""


def test_a_worker_is_not_held_to_a_shells_few_descriptors() -> None:
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM],
        env={**os.environ, "PYTHONPATH": PYTHONPATH},
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    assert done.stdout.split() == ["True", "True"]
