"""A client leaves in the middle of a TGI stream, or while it waits for a whole answer: the generation ends."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.tgi_server import Server, running
from tests.waiting import until

LONG = {"inputs": " one", "parameters": {"max_new_tokens": 100_000}}
LIMITS = {"MAX_TOTAL_TOKENS": "200000"}


@pytest.fixture
def server(tmp_path: Path, endless_model: Path) -> Iterator[Server]:
    with running(tmp_path, tmp_path, HF_MODEL_ID=str(endless_model), MAX_CONCURRENT_REQUESTS="2", **LIMITS) as server:
        yield server


def test_a_stream_that_is_left_stops_in_the_engine(server: Server) -> None:
    stream, chunks = server.stream({**LONG, "stream": True})
    assert next(chunks).startswith(b"data:")
    assert server.metric("tgi_batch_current_size") == 1
    assert server.metric("tgi_batch_current_max_tokens") == 100_001
    stream.close()
    until(lambda: server.metric("tgi_batch_current_size") == 0, deadline_s=2, what="the generation has ended")
    assert server.metric('tgi_request_failure{err="dropped"}') == 1
    assert server.metric("tgi_batch_current_max_tokens") == 0


def test_a_whole_answer_that_nobody_waits_for_stops_too(server: Server) -> None:
    stream = server.begin(LONG)
    until(lambda: server.metric("tgi_batch_current_size") == 1, what="the generation runs")
    stream.close()
    until(lambda: server.metric("tgi_batch_current_size") == 0, deadline_s=2, what="the generation has ended")
    assert server.metric('tgi_request_failure{err="dropped"}') == 1


def test_every_permit_comes_back(server: Server) -> None:
    """There are two, so the third stream would be refused if one were kept."""
    for _ in range(5):
        stream, chunks = server.stream({**LONG, "stream": True})
        assert b'"token"' in next(chunks)
        stream.close()
        until(lambda: server.metric("tgi_batch_current_size") == 0, what="the generation has ended")
    assert server.ask({"inputs": " one"}).status == 200


def test_half_a_body_leaves_nothing(server: Server) -> None:
    stream = server.begin(b'{"inputs"', headers={"Content-Type": "application/json", "Content-Length": "1000"})
    stream.close()
    assert server.ask({"inputs": " one"}).status == 200
