"""A client leaves in the middle of an LMI stream, or before its first token: the generation ends and its place is free."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.lmi_server import Server, Stream, running, write_properties
from tests.waiting import until

LONG = {"inputs": " one", "stream": True, "parameters": {"max_new_tokens": 2000, "ignore_eos_token": True}}
WHOLE = {**LONG, "stream": False}
CHAT = {
    "messages": [{"role": "user", "content": "hello"}],
    "max_tokens": 2000,
    "ignore_eos": True,
}
SHORT = {"inputs": " nine", "parameters": {"max_new_tokens": 2}}


@pytest.fixture
def narrow(tmp_path: Path, tiny_model: Path) -> Iterator[Server]:
    """One request is worked on and one waits; a third is refused."""
    lines = [f"option.model_id={tiny_model}", "option.max_rolling_batch_size=1", "job_queue_size=1"]
    with running(tmp_path, write_properties(tmp_path / "model", *lines), PENSTOCK_SERVER_VERSION="0.29.0") as server:
        yield server


@contextmanager
def frozen_engine(server: Server) -> Iterator[None]:
    """The engine makes no step: whatever ends meanwhile, the client's leaving has ended it."""
    (engine,) = server.children()
    os.kill(engine, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(engine, signal.SIGCONT)


def inside(server: Server) -> int:
    """Requests that hold a place."""
    return int(server.get("/models/model").json()[0]["models"][0]["requestInQueue"])


def begin(server: Server, body: dict[str, Any] = LONG) -> Stream:
    """A request that is under way: a stream has given its first piece, a whole answer keeps its client waiting."""
    if not body.get("stream"):
        return server.begin(body)
    stream = server.open(body)
    next(iter(stream))
    return stream


@pytest.mark.parametrize(
    "body", [LONG, WHOLE, CHAT, {**CHAT, "stream": True}], ids=["stream", "whole", "chat", "chat stream"]
)
def test_leaving_in_the_middle_frees_the_place(body: dict[str, Any], narrow: Server) -> None:
    first = begin(narrow, body)
    with frozen_engine(narrow):
        second = narrow.begin(LONG)
        until(lambda: inside(narrow) == 1, what="the second request waits")
        first.close()
        until(lambda: inside(narrow) == 0, deadline_s=5, what="the first one's place is free")
        second.close()
    assert narrow.ask(SHORT).json()["generated_text"] == " ten"


def test_the_queue_is_bounded_and_says_so_at_once(narrow: Server) -> None:
    first = begin(narrow)
    with frozen_engine(narrow):
        waiting = [narrow.begin(LONG)]
        until(lambda: inside(narrow) == 1, what="the second request waits")
        assert narrow.get("/ping").status == 200, "health waits neither for the engine nor for other requests"
        refused = narrow.ask(SHORT)
        assert refused.status == 503
        assert refused.json() == {
            "code": 503,
            "type": "WlmCapacityException",
            "message": "Worker queue capacity exceeded for model: model (READY)",
        }
        for stream in waiting:
            stream.close()
        until(lambda: inside(narrow) == 0, deadline_s=5, what="one that waited for its first token has left")
    first.close()
    assert narrow.ask(SHORT).status == 200


def test_many_that_leave_leave_nothing(narrow: Server) -> None:
    narrow.ask(SHORT)
    before = descriptors(narrow)
    for _ in range(30):
        begin(narrow).close()
    assert until(lambda: descriptors(narrow) <= before, what="every descriptor is closed")
    assert narrow.ask(SHORT).status == 200


def descriptors(server: Server) -> int:
    return len(os.listdir(f"/proc/{server.process.pid}/fd"))
