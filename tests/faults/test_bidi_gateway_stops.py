"""The gateway stops in the middle of conversations: they finish, new ones are turned away, and what is cut short says so."""

from __future__ import annotations

import signal
from pathlib import Path

from tests.waiting import until
from tests.wire.gateway_fixture import House
from tests.wire.http2 import Http2
from tests.wire.test_bidi import ends_cleanly, said, serve


def test_sigterm_lets_conversations_finish(house: House) -> None:
    serve(house)
    with Http2(house) as idle, Http2(house) as client:
        idle.converse().cancel()
        stream = client.converse()
        stream.part("before")
        assert said(stream.message())[0] == b"before"
        assert house.process is not None
        house.process.send_signal(signal.SIGTERM)
        idle.run(lambda: idle.closed)
        client.run(lambda: client.goaway == [0])
        stream.part("after")
        assert said(stream.message())[0] == b"after"
        late = client.converse()
        assert late.head() == 503
        assert late.headers["x-amzn-errortype"] == "ServiceUnavailableError"
        stream.finish()
        ends_cleanly(stream)
        client.run(lambda: client.closed)
    assert house.process.wait(10) == 0


def test_what_outlasts_the_drain_gets_an_exception(tmp_path: Path) -> None:
    house = House(tmp_path / "home", {"PENSTOCK_DRAIN_S": "0.3"})
    try:
        house.start()
        replica = serve(house)
        with Http2(house) as client:
            streams = [client.converse() for _ in range(3)]
            for stream in streams:
                stream.part("x")
                assert said(stream.message())[0] == b"x"
            assert house.process is not None
            house.process.send_signal(signal.SIGTERM)
            for stream in streams:
                assert stream.message().headers[":exception-type"] == "InternalStreamFailure"
                ends_cleanly(stream)
        assert house.process.wait(10) == 0
        until(lambda: replica.open == 0)
        lines = (house.paths.logs / "access.jsonl").read_text()
        assert lines.count('"InternalStreamFailure"') == 3
    finally:
        house.close()


def test_a_relieved_worker_lets_conversations_finish_and_answers_what_comes_late(house: House) -> None:
    """A client that has not read the GOAWAY yet may open one more: nothing is refused."""
    serve(house)
    with Http2(house) as silent, Http2(house) as client:
        silent.converse().cancel()
        stream = client.converse()
        stream.part("before")
        assert said(stream.message())[0] == b"before"
        assert house.process is not None
        house.process.send_signal(signal.SIGUSR2)
        client.run(lambda: client.goaway == [0])
        silent.run(lambda: silent.goaway == [0])
        late = client.converse()
        late.part("late")
        assert said(late.message())[0] == b"late"
        late.finish()
        ends_cleanly(late)
        stream.part("after")
        assert said(stream.message())[0] == b"after"
        stream.finish()
        ends_cleanly(stream)
        client.run(lambda: client.closed)
        assert not silent.closed, "who is silent has its time"
    assert house.process.wait(10) == 0
