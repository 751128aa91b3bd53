"""kill -9 of the control process at any moment: nothing it started lives on, and after a restart every endpoint comes back by itself."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from botocore.exceptions import ClientError

from tests.penstock_process import Penstock
from tests.waiting import until


@pytest.fixture
def penstock(tmp_path: Path) -> Iterator[Penstock]:
    made = Penstock(tmp_path / "home")
    yield made
    made.close()


def test_endpoints_in_service_come_back_by_themselves(penstock: Penstock) -> None:
    penstock.start().deploy(count=2)
    penstock.until_status("InService")
    assert penstock.invoke() == b"hello"
    before = {p.pid for p in penstock.servers()}
    penstock.kill()
    until(lambda: not penstock.family(), deadline_s=15, what="no orphan")
    penstock.start()
    assert penstock.client().describe_endpoint(EndpointName="e")["EndpointStatus"] == "InService"
    assert penstock.until_answers() == b"hello"
    until(lambda: len(penstock.servers()) == 2)
    assert not before & {p.pid for p in penstock.servers()}


def test_an_endpoint_that_was_creating_goes_on(penstock: Penstock) -> None:
    penstock.start().deploy(environment={"PENSTOCK_SCRIPT": '{"start": {"wait_ms": 1500}}'})
    assert penstock.client().describe_endpoint(EndpointName="e")["EndpointStatus"] == "Creating"
    penstock.kill()
    penstock.start()
    penstock.until_status("InService")
    assert penstock.invoke() == b"hello"


def test_an_endpoint_that_was_being_deleted_is_gone(penstock: Penstock) -> None:
    penstock.start().deploy()
    penstock.until_status("InService")
    penstock.client().delete_endpoint(EndpointName="e")
    penstock.kill()
    penstock.start()

    def gone() -> bool:
        try:
            penstock.client().describe_endpoint(EndpointName="e")
        except ClientError as error:
            return "Could not find endpoint" in str(error)
        return False

    until(gone)
    assert penstock.servers() == []
    penstock.deploy("other")
    penstock.until_status("InService", "other")


def test_what_was_acknowledged_is_there(penstock: Penstock) -> None:
    """Killed right after the answer, fifty times over what one process wrote."""
    client = penstock.start().client()
    for i in range(50):
        client.create_model(ModelName=f"m{i}", PrimaryContainer={"Image": "penstock/scripted"})
    penstock.kill()
    listed = penstock.start().client().list_models(MaxResults=100)
    assert {m["ModelName"] for m in listed["Models"]} == {f"m{i}" for i in range(50)}
