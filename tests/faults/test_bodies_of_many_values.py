"""Bodies of as many small values as the gateway lets through: they are answered, and checks of health don't wait until they are."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests import lmi_server, tgi_server
from tests.waiting import until

BYTES = 25 * 1024 * 1024
"""The largest body of a real-time call."""


def filled(before: bytes, value: bytes, after: bytes) -> bytes:
    """`value` as often as there is room."""
    return before + value * ((BYTES - len(before) - len(after)) // len(value)) + after


UNREAD = filled(b'{"inputs":"count: one","parameters":{"max_new_tokens":2},"more":[', b"{},", b"{}]}")
STOPS = filled(b'{"inputs":"count: one","parameters":{"max_new_tokens":2,"stop":[', b'"a",', b'"a"]}}')
SHAPE = filled(b'{"inputs":[', b"1,", b"1]}")
SYNTAX = filled(b'{"inputs":"count: one","more":[', b"1,", b"1]")


class Beside:
    """Asks, and checks health one time after the other until the answer is there."""

    def __init__(self, ask: Callable[[], tuple[int, bytes]], check: Callable[[], int]) -> None:
        self.answer = (0, b"")
        asking = threading.Thread(target=self._ask, args=(ask,))
        asking.start()
        begun, self.longest = time.monotonic(), 0.0
        while asking.is_alive():
            before = time.monotonic()
            assert check() == 200
            self.longest = max(self.longest, time.monotonic() - before)
            asking.join(0.01)
        self.took = time.monotonic() - begun

    def _ask(self, ask: Callable[[], tuple[int, bytes]]) -> None:
        self.answer = ask()


def test_tgi(tmp_path: Path, tiny_model: Path) -> None:
    environ = {"PENSTOCK_SERVER_VERSION": "3.3.7", "PAYLOAD_LIMIT": str(BYTES)}
    expected = {
        UNREAD: (200, b'{"generated_text":" two three"}'),
        STOPS: (413, b"Failed to buffer the request body: length limit exceeded"),
        SHAPE: (
            422,
            b"Failed to deserialize the JSON body into the target type: inputs: invalid type: sequence, expected a string "
            b"at line 1 column %d" % (len(SHAPE) - 1),
        ),
        SYNTAX: (
            400,
            b"Failed to parse the request body as JSON: EOF while parsing an object at line 1 column %d" % len(SYNTAX),
        ),
    }
    with tgi_server.running(tmp_path, tmp_path, HF_MODEL_ID=str(tiny_model), **environ) as server:

        def ask(body: bytes) -> tuple[int, bytes]:
            answer = server.ask(body, path="/generate", headers={"Content-Type": "application/json"})
            return answer.status, answer.body

        for body, answer in expected.items():
            beside = Beside(lambda body=body: ask(body), lambda: server.get("/health").status)  # type: ignore[misc]
            assert beside.answer == answer
            # The reading takes seconds; a front that reads it itself answers nothing for most of them.
            assert beside.longest < beside.took / 2, body[:40]


@pytest.mark.parametrize("version", ["0.23", "0.36"])
def test_lmi(tmp_path: Path, tiny_model: Path, version: str) -> None:
    model = lmi_server.write_properties(tmp_path / "m", f"option.model_id={tiny_model}", "option.rolling_batch=auto")
    with lmi_server.running(tmp_path, model, PENSTOCK_SERVER_VERSION=version) as server:
        for body, status, said in (
            (UNREAD, 413, b'"message": "The body has too many values."'),
            (SYNTAX, 424, b"Expecting ',' delimiter: line 1 column %d (char %d)" % (len(SYNTAX) + 1, len(SYNTAX))),
        ):

            def ask(body: bytes = body) -> tuple[int, bytes]:
                answer = server.ask(body, Content_Type="application/json")
                return answer.status, answer.body

            beside = Beside(ask, lambda: server.get("/ping").status)
            assert beside.answer[0] == status
            assert said in beside.answer[1]
            assert beside.longest < beside.took / 2, body[:40]


def test_a_reader_that_dies_is_a_refusal(tmp_path: Path, tiny_model: Path) -> None:
    """As when the machine has no memory for a body."""
    environ = {"PENSTOCK_SERVER_VERSION": "3.3.7", "PAYLOAD_LIMIT": str(BYTES)}
    with tgi_server.running(tmp_path, tmp_path, HF_MODEL_ID=str(tiny_model), **environ) as server:
        engine = server.engine()
        exchange = server.begin(SHAPE, "/generate", {"Content-Type": "application/json"})
        children = Path(f"/proc/{server.process.pid}/task/{server.process.pid}/children")
        until(lambda: len(children.read_text().split()) == 2, what="the reader is there")
        os.kill(max(set(map(int, children.read_text().split())) - {engine}), signal.SIGKILL)
        assert exchange.answer().status == 413
        assert "its reader ended with -9" in server.log
        answer = server.ask({"inputs": "count: one", "parameters": {"max_new_tokens": 2}}, path="/generate")
        assert answer.body == b'{"generated_text":" two three"}'
