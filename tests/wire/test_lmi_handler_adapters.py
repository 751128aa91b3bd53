"""Adapters of a model.py with functions for them, over real sockets and processes."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.lmi_server import Answer, Server, failing, running, write_properties
from tests.waiting import until

SCRIPT = """
import os
from djl_python import Output

known = {}


def register_adapter(inputs):
    name = inputs.get_property("name")
    if inputs.contains_key("broken"):
        raise ValueError(f"{name} is broken")
    if inputs.contains_key("large"):
        raise MemoryError
    known[name] = (inputs.get_property("src"), inputs.get_as_string("tone") if inputs.contains_key("tone") else "")
    return Output(message=f"took {inputs.get_property('alias') or name}")


def update_adapter(inputs):
    known[inputs.get_property("name")] = (inputs.get_property("src"), inputs.get_as_string("tone"))
    return Output(message="changed it")


def unregister_adapter(inputs):
    del known[inputs.get_property("name")]
    return Output(message="gave it up")


def handle(inputs):
    if inputs.is_empty():
        return None
    outputs = Output()
    for index, item in enumerate(inputs.get_batches()):
        outputs.add({"known": known, "pid": os.getpid()}, batch_index=index if inputs.is_batch() else None)
    return outputs
"""
WITHOUT = SCRIPT.replace("def register_adapter", "def other")


def write(directory: Path, script: str, *lines: str) -> Path:
    write_properties(directory, "option.enable_lora=true", *lines)
    (directory / "model.py").write_text(script)
    (directory / "adapters/built").mkdir(parents=True)
    return directory


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    home = tmp_path_factory.mktemp("handler-adapters")
    directory = write(home / "model", SCRIPT, "minWorkers=2", "batch_size=4", "max_batch_delay=20")
    with running(home, directory, PENSTOCK_SERVER_VERSION="0.36.0") as server:
        yield server


@pytest.fixture(autouse=True)
def only_those_of_the_start(request: pytest.FixtureRequest) -> Iterator[None]:
    yield
    if "server" in request.fixturenames:
        server = request.getfixturevalue("server")
        for each in server.get("/adapters").json()["adapters"]:
            if each["name"] != "built":
                assert server.ask(path=f"/adapters/{each['name']}", method="DELETE").status == 200


def register(server: Server, name: str, more: str = "", **headers: str) -> Answer:
    return server.ask(path=f"/models/model/adapters?name={name}&src=/a/{name}{more}", **headers)


def known(server: Server) -> dict[str, list[str]]:
    found: dict[str, list[str]] = server.ask({}).json()["known"]
    return found


def test_those_in_the_folder_are_registered_at_the_start(server: Server) -> None:
    source = str(Path(known(server)["built"][0]))
    assert source.endswith("/model/adapters/built")
    assert server.get("/adapters/built").json() == {"name": "built", "src": source, "preload": True, "pin": False}


def test_one_comes_changes_and_goes(server: Server) -> None:
    answer = register(server, "sql", "&tone=dry", X_Amzn_SageMaker_Adapter_Alias="the dry one")
    assert (answer.status, answer.json()) == (200, {"status": "took the dry one"})
    assert known(server)["sql"] == ["/a/sql", "dry"]
    answer = server.ask(path="/models/model/adapters/sql/update?tone=sweet")
    assert (answer.status, answer.json()) == (200, {"status": "changed it"})
    assert known(server)["sql"] == ["/a/sql", "sweet"]
    answer = server.ask(path="/models/model/adapters/sql", method="DELETE")
    assert (answer.status, answer.json()) == (200, {"status": "gave it up"})
    assert "sql" not in known(server)


def test_what_the_functions_refuse_is_told(server: Server) -> None:
    answer = register(server, "sql", "&broken=1")
    assert (answer.status, answer.json()["message"]) == (424, "sql is broken")
    assert register(server, "sql", "&large=1").status == 507
    assert [each["name"] for each in server.get("/adapters").json()["adapters"]] == ["built"]
    assert register(server, "built").status == 409
    assert server.ask(path="/models/model/adapters/sql/update").status == 404
    assert server.ask(path="/models/model/adapters?name=sql&src=s3://a/b").status == 409


def test_a_new_process_knows_them_again(server: Server) -> None:
    assert register(server, "sql", "&tone=dry").status == 200
    before = server.ask({}).json()["pid"]
    os.kill(before, signal.SIGKILL)

    def another() -> bool:
        answer = server.ask({})
        return answer.status == 200 and answer.json()["pid"] != before

    assert until(another, deadline_s=30, what="another process answers")
    assert known(server)["sql"] == ["/a/sql", "dry"]


def test_there_is_one_process(server: Server) -> None:
    assert server.ask(path="/models/model?min_worker=3&synchronous=true", method="PUT").status in (200, 202)
    assert len(server.children()) == 1


def test_one_of_the_start_that_is_refused_fails_the_endpoint(tmp_path: Path) -> None:
    directory = write(tmp_path / "model", SCRIPT.replace("known[name] =", "raise ValueError('no')\n    known[name] ="))
    status, message, _ = failing(tmp_path, directory, PENSTOCK_SERVER_VERSION="0.36.0")
    assert status == 1
    assert message.strip().endswith("adapter built can't be registered: no")


def test_a_script_without_the_functions_does_as_it_likes(tmp_path: Path) -> None:
    with running(tmp_path, write(tmp_path / "model", WITHOUT), PENSTOCK_SERVER_VERSION="0.36.0") as server:
        assert known(server) == {}
        answer = register(server, "sql")
        assert answer.status == 409
        assert "has no function register_adapter" in answer.json()["message"]
