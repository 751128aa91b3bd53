"""Fault plans set by the API and by tags, with boto3's own signer; and what survives a restart."""

from __future__ import annotations

import fcntl
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from botocore.exceptions import ClientError

from penstock.cli.fault import Method, call
from penstock.cli.server import find
from penstock.control.store import StoredPlan
from penstock.faultplan import TAG
from penstock.placement.null import NullPlacement
from tests.control_plane import ControlPlane, control_plane, tags
from tests.running import Penstock
from tests.waiting import until
from tests.wire.hostile import listen

TICKS = {"steps": [{"send": "tick;", "times": 8}]}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Penstock]:
    """A server of this module's own, with the endpoint `hostile`."""
    home = tmp_path_factory.mktemp("plans") / "home"
    script = home.parent / "script.json"
    script.write_text(json.dumps(TICKS))
    made = Penstock(home).start()
    try:
        made.cli("deploy", "scripted", "--script", str(script), "--name", "hostile")
        yield made
    finally:
        made.stop()


@pytest.fixture
def runtime(server: Penstock) -> Iterator[Any]:
    client = server.client("sagemaker-runtime")
    yield client
    client.close()


def plans(server: Penstock, method: Method, name: str = "hostile", plan: str | None = None) -> dict[str, Any]:
    found = find(server.home)
    assert found is not None
    return call(found, method, name, plan)


def test_a_plan_is_in_force_when_the_call_returns(server: Penstock, runtime: Any) -> None:
    for size in range(1, 20):
        answer = plans(server, "PUT", plan=json.dumps({"slicing": {"mode": "bytes", "size": 3 + size % 2}}))
        assert answer["Source"] == "api"
        assert len(listen(runtime, "hostile").parts[0]) == 3 + size % 2
    assert plans(server, "GET")["Plan"] == {"slicing": {"mode": "bytes", "size": 4}}
    assert plans(server, "DELETE") == {"EndpointName": "hostile", "Source": "none", "Plan": {}}
    assert listen(runtime, "hostile").parts == [b"tick;"] * 8


@pytest.mark.parametrize(
    ("name", "plan", "says"),
    [
        ("nobody", "{}", "Could not find endpoint"),
        ("hostile", '{"slice": 7}', "slice"),
        ("hostile", "", "not a fault plan"),
        ("hostile", '{"faults": [{"kind": "explode"}]}', "explode"),
        ("hostile", json.dumps({"faults": [{"kind": "end", "message": "x" * 20_000}]}), "16384 characters"),
    ],
)
def test_what_is_wrong_is_refused_and_nothing_changes(server: Penstock, name: str, plan: str, says: str) -> None:
    before = plans(server, "GET")
    with pytest.raises(ClientError) as refused:
        plans(server, "PUT", name, plan)
    assert refused.value.response["Error"]["Code"] == "ValidationException"
    assert says in str(refused.value)
    assert plans(server, "GET") == before


def test_a_plan_in_a_tag(server: Penstock, runtime: Any) -> None:
    sagemaker = server.client("sagemaker")
    arn = sagemaker.describe_endpoint(EndpointName="hostile")["EndpointArn"]
    words = "mode=one-byte kind=ModelStreamError after_parts=4"
    sagemaker.add_tags(ResourceArn=arn, Tags=tags({TAG: words}))
    assert plans(server, "GET")["Source"] == "tag"
    heard = listen(runtime, "hostile")
    assert (heard.content, heard.error) == (b"tick", "ModelStreamError")
    plans(server, "PUT", plan='{"slicing": {"mode": "coalesce", "size": 8}}')
    assert listen(runtime, "hostile").parts == [b"tick;" * 8]
    assert plans(server, "DELETE")["Source"] == "tag"
    with pytest.raises(ClientError, match=r"not a fault plan.*explode"):
        sagemaker.add_tags(ResourceArn=arn, Tags=tags({TAG: "kind=explode"}))
    sagemaker.delete_tags(ResourceArn=arn, TagKeys=[TAG])
    assert plans(server, "GET")["Source"] == "none"
    sagemaker.close()


def lock_is_free(home: Path) -> bool:
    with (home / "run" / "lock").open() as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
    return True


def test_a_plan_outlives_a_kill(server: Penstock) -> None:
    plans(server, "PUT", plan='{"slicing": {"mode": "one-byte"}}')
    server.kill()
    until(lambda: lock_is_free(server.home), what="the dead server's children gone")
    server.start()
    server.in_service("hostile")
    client = server.client("sagemaker-runtime")
    assert len(listen(client, "hostile").parts) == 40
    client.close()
    assert plans(server, "DELETE")["Source"] == "none"


def test_the_verb_sets_shows_and_clears(server: Penstock, runtime: Any) -> None:
    server.cli("fault", "hostile", "--slice", "2", "--after-parts", "5", "--error", "ModelStreamError")
    heard = listen(runtime, "hostile")
    assert (heard.parts, heard.error) == ([b"ti", b"ck", b";", b"t", b"ic"], "ModelStreamError")
    shown = json.loads(server.cli("fault", "hostile", "--json").stdout)
    assert shown["Plan"]["faults"] == [{"kind": "ModelStreamError", "after_parts": 5}]
    assert json.loads(server.cli("fault", "hostile").stdout) == shown["Plan"]
    assert "nothing stands in the way" in server.cli("fault", "hostile", "--clear").stderr
    assert listen(runtime, "hostile").parts == [b"tick;"] * 8


def test_the_verb_takes_a_file(server: Penstock, runtime: Any, tmp_path: Path) -> None:
    (tmp_path / "plan.json").write_text('{"faults": [{"kind": "Throttling", "times": 1}]}')
    server.cli("fault", "hostile", "--file", str(tmp_path / "plan.json"))
    assert [listen(runtime, "hostile").error for _ in range(2)] == ["ThrottlingException", ""]
    server.cli("fault", "hostile", "--clear")


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (["--after-parts", "3"], "--after-parts needs --error"),
        (["--size", "3"], "--size needs --mode"),
        (["--slice", "3", "--mode", "utf8"], "one of the two"),
        (["--mode", "upside-down"], "upside-down"),
        (["--error", "explode"], "explode"),
        (["--error", "end", "--probability", "7"], "probability"),
        (["--clear", "--seed", "1"], "one of the three"),
        (["--file", "/nowhere/plan.json"], "No such file"),
    ],
)
def test_the_verb_says_in_one_line_what_is_wrong(server: Penstock, options: list[str], says: str) -> None:
    done = server.cli("fault", "hostile", *options, check=False)
    assert done.returncode == 1
    assert done.stderr.startswith("penstock: ")
    assert says in done.stderr
    assert done.stderr.count("\n") == 1


def planned(plane: ControlPlane) -> list[str]:
    return [endpoint.faults for endpoint in plane.table.table.endpoints]


async def test_a_plan_given_at_creation_goes_with_the_endpoint(tmp_path: Path) -> None:
    async with control_plane(tmp_path, NullPlacement()) as plane:
        await plane.deploy("e")
        await plane.until("e", "InService")
        message = await plane.refused(
            "create_endpoint", EndpointName="f", EndpointConfigName="e", Tags=tags({TAG: "x=1"})
        )
        assert "not a fault plan" in message
        given = tags({TAG: "mode=utf8"})
        await plane.call("create_endpoint", EndpointName="f", EndpointConfigName="e", Tags=given)
        await plane.until("f", "InService")
        assert planned(plane) == ["", "mode=utf8"]
        await plane.call("delete_endpoint", EndpointName="f")
        await plane.until_gone("f")
        assert planned(plane) == [""]


async def test_a_deleted_endpoint_takes_its_plan_along(tmp_path: Path) -> None:
    async with control_plane(tmp_path, NullPlacement()) as plane:
        await plane.deploy("e")
        found = await plane.until("e", "InService")
        await plane.store.run(lambda t: t.write_fault_plan(found["EndpointArn"], StoredPlan("{}", 1.0)))
        await plane.reconciler.told()
        assert planned(plane) == ["{}"]
        await plane.call("delete_endpoint", EndpointName="e")
        await plane.until_gone("e")
        await plane.call("create_endpoint", EndpointName="e", EndpointConfigName="e")
        await plane.until("e", "InService")
        assert planned(plane) == [""]
