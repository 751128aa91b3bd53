"""More requests than permits: the rest are told at once, each in its form."""

from __future__ import annotations

from pathlib import Path

from tests.faults.test_tgi_client_leaves import LIMITS, LONG
from tests.tgi_server import running

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
