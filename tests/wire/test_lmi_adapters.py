"""LoRA adapters that are registered, described, updated and unregistered while an LMI server runs, over real sockets and processes.

The engine process is a stand-in that says one token for each adapter, where vLLM's Python is looked for.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests import adaptable_engine
from tests.adaptable_engine import write_adapter
from tests.lmi_server import Answer, Server, running, write_properties
from tests.waiting import until

LORA = "option.enable_lora=true"


def weights(root: Path, tiny_model: Path) -> Path:
    """What must lie in a directory for vLLM to be asked."""
    root.mkdir(parents=True)
    for name in ("config.json", "tokenizer.json", "tokenizer_config.json"):
        if (tiny_model / name).exists():
            shutil.copy(tiny_model / name, root / name)
    (root / "model.safetensors").write_bytes(b"")
    return root


def stand_in(root: Path) -> str:
    script = root / "python"
    script.write_text(f'#!/bin/sh\nexec "{sys.executable}" "{adaptable_engine.__file__}" "$@"\n')
    script.chmod(0o755)
    return str(script)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path) -> Iterator[Server]:
    """With one adapter of the start, `built`."""
    home = tmp_path_factory.mktemp("lmi-adapters")
    model = weights(home / "weights", tiny_model)
    directory = write_properties(home / "m" / "lora", f"option.model_id={model}", LORA)
    write_adapter(directory / "adapters/built", 3)
    root = Path(__file__).parents[2]
    with running(
        home,
        home / "m",
        PENSTOCK_SERVER_VERSION="0.36.0",
        PENSTOCK_VLLM_PYTHON=stand_in(home),
        PYTHONPATH=f"{root / 'src'}:{root}",
    ) as server:
        yield server


@pytest.fixture
def adapters(server: Server, tmp_path: Path) -> Iterator[Path]:
    """A directory with adapters, none of which stays registered."""
    write_adapter(tmp_path / "sql", 4)
    write_adapter(tmp_path / "chat", 5)
    write_adapter(tmp_path / "big", 6, rank=64)
    yield tmp_path
    for each in server.get("/adapters").json()["adapters"]:
        if each["name"] != "built":
            assert server.ask(path=f"/adapters/{each['name']}", method="DELETE").status == 200


def register(server: Server, name: str, src: object, more: str = "", **headers: str) -> Answer:
    return server.ask(path=f"/models/lora/adapters?name={name}&src={src}{more}", **headers)


def error_of(answer: Answer) -> tuple[int, str, str]:
    found = answer.json()
    assert answer.status == found["code"]
    return found["code"], found["type"], found["message"]


def said(server: Server, adapter: str) -> str:
    asked = {"inputs": " one", "parameters": {"max_new_tokens": 1}, "adapters": adapter}
    answer = server.ask(asked)
    return str(answer.json()["generated_text"] if answer.status == 200 else answer.json()["error"])


def test_an_adapter_comes_answers_and_goes(server: Server, adapters: Path) -> None:
    assert server.get("/models/lora/adapters/sql").status == 404
    answer = register(server, "sql", adapters / "sql")
    assert (answer.status, answer.json()) == (200, {"status": "Adapter sql registered"})
    described = {"name": "sql", "src": str(adapters / "sql"), "preload": True, "pin": False}
    assert server.get("/models/lora/adapters/sql").json() == described
    texts = [said(server, name) for name in ("", "built", "sql")]
    assert len(set(texts)) == 3, texts
    chat = {"prompt": " one", "max_tokens": 1, "model": "sql"}
    assert server.ask(chat).json()["choices"][0]["text"] == texts[2], "OpenAI's model may name it"
    gone = server.ask(path="/models/lora/adapters/sql", method="DELETE")
    assert (gone.status, gone.json()) == (200, {"status": "Adapter sql unregistered"})
    assert "LoRA adapter sql not found in registry. Available adapters: ['built']" in said(server, "sql")


def test_lists_have_pages(server: Server, adapters: Path) -> None:
    for name in ("sql", "chat"):
        assert register(server, name, adapters / name).status == 200
    listed = server.get("/models/lora/adapters").json()
    assert [each["name"] for each in listed["adapters"]] == ["built", "chat", "sql"]
    first = server.get("/models/lora/adapters?limit=2").json()
    rest = server.get(f"/models/lora/adapters?limit=2&next_page_token={first['nextPageToken']}").json()
    assert [*first["adapters"], *rest["adapters"]] == listed["adapters"]
    assert list(first) == ["nextPageToken", "adapters"]


def test_the_only_model_need_not_be_named(server: Server, adapters: Path) -> None:
    src = (adapters / "sql").as_uri()
    assert server.ask(path=f"/adapters?name=sql&src={src}&pin=true").json() == {"status": "Adapter sql registered"}
    assert server.get("/adapters/sql").json()["pin"] is True
    assert server.ask(path="/adapters/sql", method="DELETE").status == 200


def test_updates(server: Server, adapters: Path) -> None:
    path = "/models/lora/adapters/sql/update"
    assert error_of(server.ask(path=path))[:1] == (404,)
    register(server, "sql", adapters / "sql", "&preload=false")
    assert server.get("/adapters/sql").json()["preload"] is False
    told = error_of(server.ask(path=f"{path}?pin=true"))
    assert told == (424, "BadRequestException", "Can not set load to false and pin to true")
    assert server.ask(path=f"{path}?preload=true&pin=true").json() == {"status": "Adapter sql updated"}
    assert server.get("/adapters/sql").json() == {
        "name": "sql",
        "src": str(adapters / "sql"),
        "preload": True,
        "pin": True,
    }
    assert error_of(server.ask(path=f"{path}?pin=false"))[2].startswith("Unpinning adapter is not supported.")
    told = error_of(server.ask(path=f"{path}?src=/elsewhere"))
    assert told == (424, "BadRequestException", "Updating adapter path is not supported.")


@pytest.mark.parametrize(
    ("query", "error"),
    [
        ("src=/x", (400, "BadRequestException", "The parameter name is required")),
        ("name=x", (400, "BadRequestException", "The parameter src is required")),
        ("name=x&src=s3://b/k", (409, "IllegalArgumentException", "URL adapters are not currently supported")),
        (
            "name=x&src=/nowhere",
            (
                424,
                "BadRequestException",
                "Only local LoRA models are supported. /nowhere is not a valid path",
            ),
        ),
        (
            "name=x&src={}/sql&preload=false&pin=true",
            (424, "BadRequestException", "Can not set preload to false and pin to true"),
        ),
        (
            "name=x&src={}/big",
            (424, "BadRequestException", "LoRA rank 64 is greater than max_lora_rank 16."),
        ),
    ],
)
def test_what_can_not_be_registered(server: Server, adapters: Path, query: str, error: tuple[int, str, str]) -> None:
    told = error_of(server.ask(path=f"/models/lora/adapters?{query.format(adapters)}"))
    assert told == error
    assert [each["name"] for each in server.get("/adapters").json()["adapters"]] == ["built"]


def test_more_refusals(server: Server, adapters: Path) -> None:
    assert register(server, "sql", adapters / "sql", "&pin=true").status == 200
    code, kind, text = error_of(register(server, "sql", adapters / "sql", X_Amzn_SageMaker_Adapter_Alias="mine"))
    assert (code, kind) == (409, "IllegalArgumentException")
    assert text.startswith("The adapter mine already exists. If you want to replace it, please unregistering before")
    assert error_of(register(server, "chat", adapters / "chat", "&pin=true"))[0] == 507
    told = error_of(server.ask(path="/models/none/adapters?name=x&src=/x"))
    assert told == (404, "BadRequestException", "The model none was not found")
    for method in ("GET", "DELETE"):
        told = error_of(server.ask(path="/models/lora/adapters/no", method=method, X_Amzn_SageMaker_Adapter_Alias="a"))
        assert told == (404, "BadRequestException", "The adapter a was not found")
    assert error_of(server.ask(path="/models/lora/adapters", method="PUT"))[0] == 405
    (adapters / "chat/model.py").write_text("")
    assert "has a model.py" in error_of(register(server, "chat", adapters / "chat"))[2]


def test_a_restarted_engine_still_has_them(server: Server, adapters: Path) -> None:
    assert register(server, "sql", adapters / "sql").status == 200
    before = said(server, "sql")
    (engine,) = server.children()
    os.kill(engine, signal.SIGKILL)
    until(lambda: server.children() not in ([], [engine]) and server.get("/ping").json()["lora"]["status"] == "Healthy")
    assert said(server, "sql") == before


def test_an_engine_without_adapters_says_so(tmp_path: Path, tiny_model: Path) -> None:
    directory = write_properties(tmp_path / "model", f"option.model_id={tiny_model}", LORA)
    write_adapter(tmp_path / "sql", 4)
    with running(tmp_path, directory, PENSTOCK_SERVER_VERSION="0.28.0") as server:
        assert server.get("/models/model/adapters").json() == {"adapters": []}
        code, kind, text = error_of(server.ask(path=f"/models/model/adapters?name=sql&src={tmp_path / 'sql'}"))
        assert (code, kind) == (409, "IllegalArgumentException")
        assert text.startswith("Adapters are only supported by the vllm engine, and the openvino engine serves")


@pytest.mark.parametrize(
    ("version", "error"),
    [
        ("0.28.0", (400, "BadRequestException", "LoRA is not enabled.")),
        ("0.27.0", (404, "ModelNotFoundException", "Workflow not found: Workflow not found: model/adapters")),
    ],
)
def test_where_there_are_none(version: str, error: Any, tmp_path: Path, tiny_model: Path) -> None:
    directory = write_properties(tmp_path / "model", f"option.model_id={tiny_model}", "option.rolling_batch=auto")
    with running(tmp_path, directory, PENSTOCK_SERVER_VERSION=version) as server:
        assert error_of(server.get("/models/model/adapters")) == error


def test_a_handler_does_it_itself(tmp_path: Path) -> None:
    directory = write_properties(tmp_path / "model", "engine=Python", LORA)
    (directory / "model.py").write_text("from djl_python import Output\n\ndef handle(inputs):\n    return None\n")
    with running(tmp_path, directory, PENSTOCK_SERVER_VERSION="0.36.0") as server:
        code, kind, text = error_of(server.get("/adapters"))
        assert (code, kind) == (409, "IllegalArgumentException")
        assert "whose own code answers" in text
        assert json.loads(server.get("/ping").body)["model"]["status"] == "Healthy"
