"""The scripted server's `/models`: SageMaker's contract for multi-model containers."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest

from penstock.servers.contract import read_contract
from tests.unit.servers.scripted.test_server import raw, request, serving


def directory(root: Path, name: str, **script: Any) -> str:
    path = root / name
    path.mkdir()
    (path / "script.json").write_text(json.dumps({"steps": [{"send": name}], **script}))
    return str(path)


async def ask(port: int, method: str, path: str, body: bytes = b"") -> tuple[int, Any]:
    answer = await raw(port, request(body, path=path, method=method))
    head, _, rest = answer.partition(b"\r\n\r\n")
    chunked = b"transfer-encoding: chunked" in head
    return int(head.split()[1]), rest.split(b"\r\n")[1] if chunked else json.loads(rest)


async def load(port: int, name: str, url: str) -> tuple[int, Any]:
    return await ask(port, "POST", "/models", json.dumps({"model_name": name, "url": url}).encode())


async def test_load_list_get_invoke_unload(tmp_path: Path) -> None:
    async with serving({}, multi_model=True) as (port, _):
        assert await ask(port, "GET", "/models") == (200, {"models": []})
        url = directory(tmp_path, "m")
        assert (await load(port, "n", url))[0] == 200
        assert (await load(port, "n", url))[0] == 409
        described = {"modelName": "n", "modelUrl": url}
        assert await ask(port, "GET", "/models") == (200, {"models": [described]})
        assert await ask(port, "GET", "/models/n") == (200, described)
        assert await ask(port, "POST", "/models/n/invoke") == (200, b"m")
        assert (await ask(port, "DELETE", "/models/n"))[0] == 200
        for method, path in (("GET", "/models/n"), ("DELETE", "/models/n"), ("POST", "/models/n/invoke")):
            assert (await ask(port, method, path))[0] == 404
        assert (await ask(port, "POST", "/invocations"))[0] == 404


async def test_a_model_without_a_script_sends_the_body_back(tmp_path: Path) -> None:
    async with serving({}, multi_model=True) as (port, _):
        assert (await load(port, "n", str(tmp_path)))[0] == 200
        assert (await ask(port, "POST", "/models/n/invoke", b"x")) == (200, b"x")


async def test_room_for_so_many(tmp_path: Path) -> None:
    async with serving({"models": {"capacity": 1}}, multi_model=True) as (port, _):
        slow = directory(tmp_path, "slow", start={"wait_ms": 200})
        both = await asyncio.gather(load(port, "a", slow), load(port, "b", slow))
        assert sorted(status for status, _ in both) == [200, 507]
        kept = (await ask(port, "GET", "/models"))[1]["models"][0]["modelName"]
        assert (await ask(port, "DELETE", f"/models/{kept}"))[0] == 200
        assert (await load(port, "c", slow))[0] == 200


async def test_what_is_not_loaded(tmp_path: Path) -> None:
    async with serving({}, multi_model=True) as (port, _):
        assert (await load(port, "a", directory(tmp_path, "f", start={"fail": "no weights"}))) == (
            500,
            {"message": "no weights"},
        )
        broken = tmp_path / "broken"
        broken.mkdir()
        (broken / "script.json").write_text("{")
        assert (await load(port, "a", str(broken)))[0] == 400
        assert (await load(port, "a", str(tmp_path / "none")))[0] == 400
        for body in (b"", b"[]", b'{"url": "x"}'):
            assert (await ask(port, "POST", "/models", body))[0] == 400
        assert await ask(port, "GET", "/models") == (200, {"models": []})


async def test_it_dies_at_a_load(tmp_path: Path) -> None:
    async with serving({"die": {"after_loads": 2, "code": 5}}, multi_model=True) as (port, exits):
        url = directory(tmp_path, "m")
        await load(port, "a", url)
        assert exits == []
        await load(port, "b", url)
        assert exits == [5]


async def test_a_server_of_one_model_has_no_such_paths() -> None:
    async with serving({}) as (port, _):
        assert (await ask(port, "GET", "/models"))[0] == 404


@pytest.mark.parametrize(("value", "is_one"), [("true", True), ("True", True), ("false", False), ("", False)])
def test_the_environment_says_which_it_is(value: str, is_one: bool) -> None:
    assert read_contract({"SAGEMAKER_MULTI_MODEL": value}).multi_model is is_one
