"""Stores to test with: every database that Penstock keeps its state in."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from penstock.control.store import Store, open_store
from tests import postgres


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[str]:
    if reason := postgres.why_not():
        pytest.skip(reason)
    with postgres.server() as url:
        yield url


@pytest.fixture(params=["sqlite", "postgresql"])
def database_url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """The URL of an empty database, of each kind."""
    if request.param == "sqlite":
        yield f"sqlite:///{tmp_path}/penstock.db"
        return
    with postgres.database(request.getfixturevalue("postgres_server"), f"t{uuid.uuid4().hex}") as url:
        yield url


@pytest.fixture
def store(database_url: str, tmp_path: Path) -> Iterator[Store]:
    store = open_store(tmp_path / "unused.db", database_url)
    yield store
    store.close()
