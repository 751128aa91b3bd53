"""A gateway for the soak."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.wire.gateway_fixture import House


@pytest.fixture
def house(tmp_path: Path) -> Iterator[House]:
    """A gateway of this test's own."""
    house = House(tmp_path / "home")
    try:
        yield house.start()
    finally:
        house.close()
