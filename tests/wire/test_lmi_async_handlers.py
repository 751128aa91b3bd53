"""A model.py whose handler is asynchronous, in a real process: its answers, its streams, and clients that leave them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.lmi_server import Server, running
from tests.waiting import until
from tests.wire.test_lmi_handlers import write_handler

HANDLER = """
import asyncio
import pathlib
from djl_python import Input, Output

loop = None


async def endless(path):
    try:
        while True:
            await asyncio.sleep(0.01)
            yield "x" * 1000
    finally:
        pathlib.Path(path).touch()


async def chunks(fail):
    yield Output(code=202).add_property("Content-Type", "application/jsonlines").add("one")
    await asyncio.sleep(0)
    yield Output().add({"n": 2})
    if fail:
        raise RuntimeError("no more")
    yield "three"


async def handle(inputs: Input):
    global loop
    if inputs.is_empty():
        loop = asyncio.get_running_loop()
        return None
    body = inputs.get_as_json()
    await asyncio.sleep(0)
    if body["do"] == "raise":
        raise ValueError("wrong")
    if body["do"] == "endless":
        return endless(body["path"])
    if body["do"] in ("chunks", "broken"):
        return chunks(body["do"] == "broken")
    return Output().add({"same loop": loop is asyncio.get_running_loop()})
"""


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    home = tmp_path_factory.mktemp("async")
    with running(home, write_handler(home / "model", handler=HANDLER)) as server:
        yield server


def test_a_coroutine_is_awaited_on_one_loop(server: Server) -> None:
    assert server.ask({"do": "answer"}).json() == {"same loop": True}
    answer = server.ask({"do": "raise"})
    assert (answer.status, answer.json()["error"]) == (424, "wrong")


def test_a_generator_is_a_stream(server: Server) -> None:
    answer = server.ask({"do": "chunks"})
    assert (answer.status, answer.headers["content-type"], answer.complete) == (202, "application/jsonlines", True)
    assert answer.chunks == [b"one", b'{\n  "n":2\n}', b"three"]
    assert server.ask({"do": "broken"}).chunks[-1] == b"no more"


def test_a_client_that_leaves_closes_the_generator(server: Server, tmp_path: Path) -> None:
    closed = tmp_path / "closed"
    with server.open({"do": "endless", "path": str(closed)}) as stream:
        next(iter(stream))
        assert not closed.exists()
    assert until(closed.exists, deadline_s=10, what="the generator is closed")
    assert server.ask({"do": "answer"}).status == 200
