"""Asynchronous requests: what is kept, how much of it, and what a broken one says."""

from __future__ import annotations

import asyncio
import json

import pytest

from penstock.servers.lmi.errors import BadRequest, StreamBroken
from penstock.servers.lmi.jobs import Jobs
from penstock.servers.lmi.replies import Reply
from penstock.servers.lmi.requests import Invocation

PLAIN = Invocation((), ())


class Body:
    """Pieces, and then perhaps an error."""

    def __init__(self, *pieces: bytes, error: Exception | None = None) -> None:
        self._left = list(pieces)
        self._error = error

    def __aiter__(self) -> Body:
        return self

    async def __anext__(self) -> bytes:
        if self._left:
            return self._left.pop(0)
        if self._error:
            raise self._error
        raise StopAsyncIteration

    async def aclose(self) -> None:
        self._left.clear()


async def started(jobs: Jobs, reply: Reply) -> str:
    async def work() -> Reply:
        return reply

    token = jobs.start(work).headers["x-next-token"]
    await jobs_settle()
    return token


async def jobs_settle() -> None:
    for _ in range(20):
        await asyncio.sleep(0)


async def test_a_stream_that_breaks_gives_its_pieces_first() -> None:
    jobs = Jobs(10)
    token = await started(jobs, Reply(200, {"a": "b"}, Body(b"one", error=StreamBroken("gone"))))
    first = jobs.fetch(PLAIN, token)
    assert (first.status, first.body, first.headers["a"]) == (200, b"one", "b")
    last = jobs.fetch(PLAIN, first.headers["x-next-token"])
    assert last.status == 500
    assert isinstance(last.body, bytes)
    assert json.loads(last.body)["message"] == "gone"


async def test_the_oldest_goes_when_there_are_too_many() -> None:
    jobs = Jobs(2)
    first, second, third = [await started(jobs, Reply(200, {}, b"x")) for _ in range(3)]
    assert jobs.fetch(PLAIN, second).body == jobs.fetch(PLAIN, third).body == b"x"
    with pytest.raises(BadRequest, match=f"Invalid x-starting-token: {first}"):
        jobs.fetch(PLAIN, first)


async def test_those_that_run_are_never_thrown_away() -> None:
    jobs, go = Jobs(1), asyncio.Event()

    async def work() -> Reply:
        await go.wait()
        return Reply(200, {}, b"x")

    token = jobs.start(work).headers["x-next-token"]
    with pytest.raises(BadRequest, match="1 asynchronous requests are running"):
        jobs.start(work)
    go.set()
    await jobs_settle()
    assert jobs.fetch(PLAIN, token).body == b"x"
    await jobs.close()


async def test_all_of_them_together_have_a_bound() -> None:
    jobs = Jobs(10, most_bytes=10)
    small = await started(jobs, Reply(200, {}, b"12345678"))
    other = await started(jobs, Reply(200, {}, b"12345"))
    with pytest.raises(BadRequest):
        jobs.fetch(PLAIN, small)
    assert jobs.fetch(PLAIN, other).body == b"12345"
    large = await started(jobs, Reply(200, {}, b"x" * 11))
    assert jobs.fetch(PLAIN, large).status == 500


async def test_what_runs_is_ended_with_the_server() -> None:
    jobs, ended = Jobs(1), asyncio.Event()

    async def work() -> Reply:
        try:
            await asyncio.Event().wait()
        finally:
            ended.set()
        raise AssertionError("never")

    jobs.start(work)
    await jobs_settle()
    await jobs.close()
    assert ended.is_set()
