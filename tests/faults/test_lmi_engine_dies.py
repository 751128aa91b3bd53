"""The engine process of an LMI server dies in the middle of streams: each ends with the contract's failure, and the server recovers."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path

import pytest

from tests.lmi_server import Server, running, write_properties
from tests.waiting import until

LONG = {"inputs": " one", "stream": True, "parameters": {"max_new_tokens": 2000, "ignore_eos_token": True}}


def kill_engine(server: Server) -> None:
    (engine,) = server.children()
    os.kill(engine, signal.SIGKILL)


def healthy(server: Server) -> bool:
    return b"Healthy" in server.get("/ping").body.replace(b"Unhealthy", b"")


def stop_then_kill(server: Server, body: object) -> bytes:
    """The last chunk of a stream whose engine was killed after the first token."""
    with server.open(body) as stream:
        chunks = iter(stream)
        next(chunks)
        kill_engine(server)
        *_, last = chunks
        assert stream.complete, "the original ends such a stream as if nothing were wrong"
    return last


@pytest.mark.parametrize("formatter", ["json", "jsonlines"])
def test_023_ends_with_a_code(formatter: str, tmp_path: Path, tiny_model: Path) -> None:
    lines = [f"option.model_id={tiny_model}", "option.rolling_batch=auto", f"option.output_formatter={formatter}"]
    with running(tmp_path, write_properties(tmp_path / "model", *lines)) as server:
        # 290 tokens from the first letter of the alphabet on: long enough to be caught in the middle.
        last = stop_then_kill(server, {"inputs": "!", "parameters": {"max_new_tokens": 250}})
        assert json.loads(last)["code"] == 500
        assert "engine process died" in json.loads(last)["error"]
        until(lambda: healthy(server), deadline_s=20, what="another engine is up")
        assert server.ask({"inputs": " nine", "parameters": {"max_new_tokens": 1}}).status == 200


def test_029_ends_with_an_error_token(tmp_path: Path, tiny_model: Path) -> None:
    directory = write_properties(tmp_path / "model", f"option.model_id={tiny_model}")
    with running(tmp_path, directory, PENSTOCK_SERVER_VERSION="0.29.0") as server:
        last = json.loads(stop_then_kill(server, LONG))
        assert last["details"] == {"finish_reason": "error"}
        assert "engine process died" in last["token"]["error_msg"]


def test_before_the_first_token_it_is_a_status(tmp_path: Path, tiny_model: Path) -> None:
    lines = [f"option.model_id={tiny_model}", "option.rolling_batch=auto", "option.max_rolling_batch_size=1"]
    with running(tmp_path, write_properties(tmp_path / "model", *lines)) as server:
        (engine,) = server.children()
        os.kill(engine, signal.SIGSTOP)
        try:
            requests = [server.begin({"inputs": " one"}) for _ in range(2)]
            queued = "requestInQueue"
            until(
                lambda: server.get("/models/model").json()[0]["models"][0][queued] == 1, what="both requests are inside"
            )
        finally:
            os.kill(engine, signal.SIGKILL)
        for request in requests:
            with request:
                answer = request.answer()
            assert answer.status == 500
            assert answer.json()["code"] == 500
            assert "engine process died" in answer.json()["error"]
