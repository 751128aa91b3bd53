"""The engine process behind a TGI server is killed: errors for its requests, 503 on /health, and healthy again within seconds."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path

from tests.faults.test_tgi_client_leaves import LIMITS, LONG
from tests.tgi_server import Answer, running
from tests.waiting import until


def test_killed_in_the_middle_of_a_stream_and_of_an_answer(tmp_path: Path, endless_model: Path) -> None:
    with running(tmp_path, tmp_path, HF_MODEL_ID=str(endless_model), **LIMITS) as server:
        stream, chunks = server.stream({**LONG, "stream": True})
        assert b'"token"' in next(chunks)
        whole = server.begin(LONG)
        until(lambda: server.metric("tgi_batch_current_size") == 2, what="both run")
        os.kill(server.engine(), signal.SIGKILL)
        *_, last = chunks
        error = json.loads(last.removeprefix(b"data:"))
        assert error["error_type"] == "generation"
        assert error["error"].startswith("Request failed during generation: the engine process died (SIGKILL)")
        assert stream.complete
        answer = whole.answer()
        assert (answer.status, answer.json()) == (424, error)
        until(lambda: server.get("/health").status == 200, deadline_s=10, what="the server is healthy again")
        assert server.ask({"inputs": " nine", "parameters": {"max_new_tokens": 1}}).json() == [
            {"generated_text": " ten"}
        ]
        stream.close()


def test_health_says_so_while_there_is_no_engine(tmp_path: Path, endless_model: Path) -> None:
    with running(tmp_path, tmp_path, HF_MODEL_ID=str(endless_model), **LIMITS) as server:
        os.kill(server.engine(), signal.SIGKILL)
        answers: list[Answer] = []

        def unhealthy() -> bool:
            answers.append(server.get("/health"))
            return answers[-1].status == 503

        until(unhealthy, every_s=0.001, what="the death is seen")
        assert answers[-1].body == b'{"error":"unhealthy","error_type":"healthcheck"}'
        until(lambda: server.get("/ping").status == 200, deadline_s=10, what="the server is healthy again")
