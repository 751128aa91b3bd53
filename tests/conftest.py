"""What every test may use: a seed that is printed, and a wait for a condition with a deadline."""

from __future__ import annotations

import os
import random

import pytest

from tests.tiny_models import tiny_model  # noqa: F401 (a fixture)

SEED = int(os.environ.get("PENSTOCK_TEST_SEED", random.SystemRandom().randrange(2**32)))


def pytest_report_header() -> str:
    return f"penstock seed: {SEED} (PENSTOCK_TEST_SEED={SEED} repeats it)"


@pytest.fixture
def rng() -> random.Random:
    """Randomness that the header's seed repeats."""
    return random.Random(SEED)
