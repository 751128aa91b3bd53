"""What every test may use: a seed that is printed, and one server a session."""

from __future__ import annotations

import os
import random
from collections.abc import Iterator

import pytest

from tests.running import Penstock
from tests.tiny_models import careless_model, endless_model, tiny_model  # noqa: F401 (fixtures)

SEED = int(os.environ.get("PENSTOCK_TEST_SEED", random.SystemRandom().randrange(2**32)))


def pytest_report_header() -> str:
    return f"penstock seed: {SEED} (PENSTOCK_TEST_SEED={SEED} repeats it)"


@pytest.fixture
def rng() -> random.Random:
    """Randomness that the header's seed repeats."""
    return random.Random(SEED)


@pytest.fixture(scope="session")
def penstock(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Penstock]:
    """A real `penstock up` on a home of its own, for tests that leave it as they found it but for endpoints with names of their own."""
    server = Penstock(tmp_path_factory.mktemp("penstock") / "home")
    server.start()
    yield server
    assert server.stop() == 0


@pytest.fixture(scope="session")
def echo(penstock: Penstock) -> str:
    """An endpoint of the scripted server: it streams its request back."""
    penstock.cli("deploy", "scripted", "--name", "echo")
    return "echo"
