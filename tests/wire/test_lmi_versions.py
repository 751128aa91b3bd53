"""Several versions of one model: managed by version, and asked in turn where a request names none."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.lmi_server import Server, running, write_properties

HANDLER = """
from djl_python import Input, Output

def handle(inputs: Input):
    if inputs.is_empty():
        return None
    return Output().add({word!r})
"""


def model(directory: Path, word: str) -> Path:
    write_properties(directory, "engine=Python")
    (directory / "model.py").write_text(HANDLER.format(word=word))
    return directory


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """`m` in the versions 1 and 2, of start-up both."""
    home = tmp_path_factory.mktemp("lmi-versions")
    for word in ("one", "two"):
        model(home / "model" / word, word)
    load = "m:1:Python=/opt/ml/model/one,m:2=/opt/ml/model/two"
    with running(home, home / "model", SERVING_LOAD_MODELS=load) as server:
        yield server


def register(server: Server, directory: Path, **arguments: str) -> Any:
    return server.ask({"url": str(directory), **arguments}, path="/models")


def not_found(server: Server, path: str, *, method: str = "GET") -> str:
    answer = server.ask(path=path, method=method)
    assert (answer.status, answer.json()["type"]) == (404, "ModelNotFoundException")
    return str(answer.json()["message"])


def test_a_version_in_the_path(server: Server) -> None:
    assert server.ask(b"x", path="/predictions/m/1").body == b"one"
    assert server.get("/predictions/m/2").body == b"two"
    assert not_found(server, "/predictions/m/3", method="POST") == "Model or workflow not found: m"
    assert not_found(server, "/predictions/m/default", method="POST") == "Model or workflow not found: m"
    assert server.ask(path="/predictions/m/2", method="OPTIONS").body == b"{}\n"


@pytest.mark.parametrize("path", ["/invocations", "/models/m/invoke"])
def test_a_version_elsewhere(path: str, server: Server) -> None:
    for version, word in (("1", b"one"), ("2", b"two")):
        assert server.ask(b"x", path=f"{path}?model_version={version}").body == word
        assert server.ask(b"x", path=path, X_Amzn_SageMaker_Custom_Attributes=f"model_version={version}").body == word
    assert server.ask(b"x", path=f"{path}?model_version=3").status == 404


def test_without_a_version_each_has_its_turn(server: Server) -> None:
    for path in ("/predictions/m", "/predictions/m/", "/invocations", "/models/m/invoke"):
        answers = [server.ask(b"x", path=path).body for _ in range(4)]
        assert sorted(answers) == [b"one", b"one", b"two", b"two"], path
        assert answers[0] != answers[1], path


def test_lists_and_descriptions(server: Server) -> None:
    listed = server.get("/models?limit=1").json()
    assert "nextPageToken" not in listed, "a page counts names"
    assert [list(each) for each in listed["models"]] == [["modelName", "version", "modelUrl", "status"]] * 2
    assert [(each["modelName"], each["version"]) for each in listed["models"]] == [("m", "1"), ("m", "2")]
    workflows = server.get("/workflows").json()["workflows"]
    assert workflows == [{"workflowName": "m", "version": "1"}, {"workflowName": "m", "version": "2"}]
    assert [each["version"] for each in server.get("/models/m").json()] == ["1", "2"]
    (second,) = server.get("/models/m/2").json()
    assert list(second) == ["workflowName", "version", "models"]
    assert (second["workflowName"], second["version"]) == ("m", "2")
    assert second["models"][0]["modelUrl"].endswith("/two")
    assert not_found(server, "/models/m/3") == "Workflow not found: Workflow not found: m/3"
    assert not_found(server, "/models/n") == not_found(server, "/models/n/1") == "Workflow not found: n"
    assert server.get("/ping").json() == {"m": {"status": "Healthy"}}


def test_scaling_one_version_or_all(server: Server) -> None:
    said = 'Workflow "m" worker scaled. New Worker configuration min workers:1 max workers:2'
    scaled = server.ask(path="/models/m/2?min_worker=1&max_worker=2", method="PUT").json()
    assert scaled == {"status": said}
    scaled = server.ask(path="/models/m?min_worker=1&max_worker=2", method="PUT").json()
    assert scaled == {"status": f"{said}\n{said}"}
    assert not_found(server, "/models/m/3?min_worker=1", method="PUT") == "Model or workflow not found: m"


def test_versions_come_and_go(server: Server, tmp_path: Path) -> None:
    directories = {word: model(tmp_path / word, word) for word in ("red", "blue", "old")}
    assert register(server, directories["old"], model_name="n").json() == {"status": 'Model "n" registered.'}
    assert register(server, directories["red"], model_name="n", model_version="1.0").status == 200
    path = f"/models?url={directories['blue']}&model_name=n&model_version=2.0"
    assert server.ask(b"", path=path).status == 200, "the query says it as well"
    for version, word in (("default", b"old"), ("1.0", b"red"), ("2.0", b"blue")):
        assert server.get(f"/predictions/n/{version}").body == word
    assert [each.get("version") for each in server.get("/models/n").json()] == [None, "1.0", "2.0"]

    again = register(server, directories["red"], model_name="n", model_version="2.0")
    assert (again.status, again.json()["message"]) == (409, "Model n:2.0 is already registered.")
    again = register(server, directories["red"], model_name="m")
    assert (again.status, again.json()["message"]) == (409, "Model m is already registered.")

    removed = server.ask(path="/models/n/1.0", method="DELETE").json()
    assert removed == {"status": 'Model or workflow "n" unregistered'}
    assert not_found(server, "/models/n/1.0", method="DELETE") == "Model or workflow not found: n"
    assert {server.get("/predictions/n").body for _ in range(2)} == {b"old", b"blue"}
    assert server.ask(path="/models/n", method="DELETE").status == 200, "all that are left"
    assert not_found(server, "/predictions/n") == "Model or workflow not found: n"


def test_a_version_that_can_not_be_loaded_leaves_the_others(server: Server, tmp_path: Path) -> None:
    write_properties(tmp_path / "bad", "option.model_id=no/such-model")
    refused = register(server, tmp_path / "bad", model_name="m", model_version="3")
    assert (refused.status, refused.json()["type"]) == (400, "ModelException")
    assert [each["version"] for each in server.get("/models/m").json()] == ["1", "2"]
    assert register(server, tmp_path / "bad", model_name="m", model_version="3", synchronous="false").status == 202
    with_failed = server.ask(path="/models/m/3", method="DELETE")
    assert with_failed.status == 200
    assert register(server, tmp_path / "bad", model_name="m", model_version="\n").status == 400
