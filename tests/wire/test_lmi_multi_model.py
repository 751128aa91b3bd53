"""LMI as a multi-model container: it starts without a model, and is given them through `/models`, as DJL Serving is on SageMaker."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.lmi_server import Server, running, write_properties

HANDLER = """
from djl_python import Input, Output

def handle(inputs: Input):
    if inputs.is_empty():
        return None
    return Output().add({word!r} + inputs.get_as_string())
"""


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    home = tmp_path_factory.mktemp("lmi-multi-model")
    (home / "model").mkdir()
    with running(home, home / "model", SAGEMAKER_MULTI_MODEL="true") as server:
        yield server


def model(root: Path, word: str) -> str:
    directory = write_properties(root / word / "model", "engine=Python")
    (directory / "model.py").write_text(HANDLER.format(word=word))
    return str(directory)


def test_it_serves_before_there_is_a_model(server: Server) -> None:
    assert server.get("/ping").status == 200
    assert server.get("/models").json()["models"] == []


def test_models_come_and_go(server: Server, tmp_path: Path) -> None:
    for word in ("red", "blue"):
        loaded = server.ask({"model_name": f"opaque-{word}", "url": model(tmp_path, word)}, path="/models")
        assert loaded.status == 200, server.log
    again = server.ask({"model_name": "opaque-red", "url": str(tmp_path / "red" / "model")}, path="/models")
    assert again.status == 409
    assert server.get("/models/opaque-red").status == 200
    for word in ("red", "blue"):
        answer = server.ask(
            b" hello", path=f"/models/opaque-{word}/invoke", X_Amzn_SageMaker_Target_Model=f"{word}.tar.gz"
        )
        assert answer.body == f"{word} hello".encode()
    assert server.ask(path="/models/opaque-red", method="DELETE").status == 200
    assert server.get("/models/opaque-red").status == 404
    assert server.ask(b"x", path="/models/opaque-red/invoke").status == 404
    assert server.ask(b" x", path="/models/opaque-blue/invoke").body == b"blue x"


def test_a_model_that_can_not_be_loaded(server: Server, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    refused = server.ask({"model_name": "none", "url": str(tmp_path / "empty")}, path="/models")
    assert refused.status == 400
    assert server.get("/models/none").status == 404
