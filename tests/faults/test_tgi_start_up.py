"""What a TGI server says when it can't start: one line in the termination log, no port, a status that is not 0."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
from pathlib import Path

import pytest

from tests.tgi_server import COMMAND, environment, failing, free_port
from tests.waiting import until


@pytest.mark.parametrize(
    ("given", "reason"),
    [
        ({}, "HF_MODEL_ID must be set"),
        ({"HF_MODEL_ID": "/no/such/place"}, "/no/such/place is not a directory"),
        (
            {"HF_MODEL_ID": "/opt/ml/model", "MAX_INPUT_LENGTH": "4096"},
            "`max_input_length` must be < `max_total_tokens`",
        ),
        ({"HF_MODEL_ID": "/opt/ml/model", "MAX_BATCH_SIZE": "9" * 5000}, "999…' for MAX_BATCH_SIZE: it is too large"),
        ({"HF_MODEL_ID": "/opt/ml/model", "MAX_BATCH_SIZE": "9" * 19}, "for MAX_BATCH_SIZE: it is too large"),
        ({"HF_MODEL_ID": "/opt/ml/model", "SPECULATE": "2048"}, "2048 tokens ahead leaves no room for an answer"),
        ({"HF_MODEL_ID": "/no\nsuch"}, "/no such is not a directory"),
        ({"HF_MODEL_ID": "/opt/ml/model", "PENSTOCK_ENGINE": "steam"}, "there is no engine named steam"),
        (
            {"HF_MODEL_ID": "/opt/ml/model", "PENSTOCK_SERVER_VERSION": "3.3.7", "LORA_ADAPTERS": "sql=/opt/ml/sql"},
            "(LoRA adapters (sql), which only vllm has): the vllm engine needs the model's PyTorch weights",
        ),
        ({"HF_MODEL_ID": "/opt/ml/model", "PENSTOCK_SERVER_VERSION": "new"}, "PENSTOCK_SERVER_VERSION must be"),
    ],
)
def test_reasons(tmp_path: Path, tiny_model: Path, given: dict[str, str], reason: str) -> None:
    status, message, log = failing(tmp_path, tiny_model, given)
    assert status == 1, log
    assert reason in message
    assert "\n" not in message


@pytest.mark.parametrize("file", ["openvino_model.xml", "tokenizer.json", "config.json"])
def test_a_damaged_model(tmp_path: Path, tiny_model: Path, file: str) -> None:
    model = shutil.copytree(tiny_model, tmp_path / "model")
    (model / file).write_text("{")
    status, message, log = failing(tmp_path, model, {"HF_MODEL_ID": "/opt/ml/model"})
    assert status == 1, log
    assert "can't" in message


def test_while_it_loads_connections_are_refused_and_sigterm_ends_it(tmp_path: Path, tiny_model: Path) -> None:
    """The engine is held in its loading by a model file that does not come: a FIFO that nobody writes to."""
    model = shutil.copytree(tiny_model, tmp_path / "model")
    (model / "openvino_model.xml").unlink()
    (model / "config.json").unlink()
    shutil.copy(tiny_model / "openvino_model.xml", model)
    os.mkfifo(model / "config.json")
    port = free_port()
    process = subprocess.Popen(
        COMMAND,
        env=environment(tmp_path, model, port, {"HF_MODEL_ID": "/opt/ml/model"}),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    try:
        children = Path(f"/proc/{process.pid}/task/{process.pid}/children")
        until(lambda: children.read_text().split(), what="the engine process was started")
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(("127.0.0.1", port), timeout=5)
        process.terminate()
        process.communicate(timeout=10)
        assert process.returncode == 1
        assert (tmp_path / "termination").read_text() == "the server was stopped while it was loading the model"
    finally:
        process.kill()
        process.communicate(timeout=10)
