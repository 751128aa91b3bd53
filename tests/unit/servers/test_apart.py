"""Bodies that are read in a process of their own: which, and what comes of it."""

from __future__ import annotations

import asyncio
import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from penstock.servers import apart
from penstock.servers.apart import Apart, NotRead, heavy, many
from tests.waiting import until_async

HERE = f"{__name__}:"
ROOT = Path(__file__).parents[3]
VALUES = st.recursive(
    st.none() | st.text(max_size=3), lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner)
)


def count(value: Any) -> int:
    """Every value in a document, the slow way."""
    inside = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return 1 + sum(count(each) for each in inside)


@settings(deadline=None)
@given(VALUES, st.integers(0, 30))
def test_no_body_of_many_values_is_missed(value: Any, most: int) -> None:
    body = json.dumps(value).encode()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(apart, "MANY", most)
        assert many(value) == (count(value) - 1 > most)
        if count(value) - 1 > most:
            assert heavy(body) or len(body) <= most


@dataclass(frozen=True, slots=True)
class Made:
    names: tuple[str, ...]


def test_what_is_many() -> None:
    assert many(Made(("a",) * apart.MANY))
    assert not many(Made(("a",) * (apart.MANY - 1)))
    assert not heavy(b'"' + b"text " * apart.MANY + b'"')
    assert heavy(b"[" + b"1," * apart.MANY + b"1]")


@pytest.fixture(autouse=True)
def found(monkeypatch: pytest.MonkeyPatch) -> None:
    """The readers below are looked up by name in another process."""
    monkeypatch.setenv("PYTHONPATH", str(ROOT), prepend=os.pathsep)


def doubled(value: int) -> tuple[int, int]:
    return 2 * value, os.getpid()


def raising() -> None:
    raise ValueError("what was not foreseen")


def hanging() -> None:
    import signal

    signal.pause()


async def test_it_is_read_elsewhere() -> None:
    value, pid = await Apart().read(HERE + "doubled", 21)
    assert value == 42
    assert pid != os.getpid()


async def test_a_reader_that_fails_or_hangs_is_told_and_ended() -> None:
    before = children()
    with pytest.raises(NotRead, match="ended with 1"):
        await Apart().read(HERE + "raising")
    with pytest.raises(NotRead, match=r"within 0\.3 s"):
        await Apart(0.3).read(HERE + "hanging")
    assert children() == before


async def test_a_reader_that_nobody_waits_for_is_ended() -> None:
    it, before = Apart(), children()
    task = asyncio.create_task(it.read(HERE + "hanging"))
    await until_async(lambda: children() > before, what="it runs")
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert children() == before
    assert (await it.read(HERE + "doubled", 1))[0] == 2, "the next one has its turn"


def children() -> set[str]:
    """Of the thread that starts them; a fixture of other tests may have some, too."""
    with open(f"/proc/self/task/{os.getpid()}/children") as found:
        return set(found.read().split())
