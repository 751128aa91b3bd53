"""More requests than permits: the rest are told at once, each in its form."""

from __future__ import annotations

import os
import signal
from pathlib import Path

from tests.faults.test_tgi_client_leaves import LIMITS, LONG
from tests.tgi_server import running

FULL = 32
OVERLOADED = b'{"error":"Model is overloaded","error_type":"overloaded"}'


def test_overload_is_429_or_an_event(tmp_path: Path, endless_model: Path) -> None:
    with running(tmp_path, tmp_path, HF_MODEL_ID=str(endless_model), MAX_CONCURRENT_REQUESTS="1", **LIMITS) as server:
        running_stream, chunks = server.stream({**LONG, "stream": True})
        next(chunks)
        whole = server.ask({"inputs": "", "parameters": {}}, path="/generate")
        assert (whole.status, whole.body) == (429, OVERLOADED), "the permit comes before validation"
        streamed = server.ask({"inputs": "a"}, path="/generate_stream")
        assert (streamed.status, streamed.chunks) == (200, [b"data:" + OVERLOADED + b"\n\n"])
        best_of = server.ask({"inputs": "a", "parameters": {"best_of": 3}}, path="/generate")
        assert best_of.status == 422, "row 0 comes before the permit"
        assert server.get("/health").status == 200
        assert server.metric('tgi_request_failure{err="overloaded"}') == 2
        running_stream.close()


def test_health_and_refusals_wait_for_no_step(tmp_path: Path, endless_model: Path) -> None:
    """Every permit is taken and the engine makes no step: whatever is answered then waits neither for it nor for other requests."""
    given = {"HF_MODEL_ID": str(endless_model), "MAX_CONCURRENT_REQUESTS": str(FULL), **LIMITS}
    with running(tmp_path, tmp_path, **given) as server:
        streams = [server.stream({**LONG, "stream": True}) for _ in range(FULL)]
        for _, chunks in streams:
            next(chunks)
        engine = server.engine()
        os.kill(engine, signal.SIGSTOP)
        try:
            for _ in range(5):
                assert [server.get(path).status for path in ("/health", "/ping", "/info", "/metrics")] == [200] * 4
                refused = server.ask({"inputs": " one"}, path="/generate")
                assert (refused.status, refused.body) == (429, OVERLOADED)
                # What does not wait for the engine is answered as always, too.
                assert server.ask(b"{", path="/generate", headers={"Content-Type": "application/json"}).status == 400
        finally:
            os.kill(engine, signal.SIGCONT)
        for stream, _ in streams:
            stream.close()
