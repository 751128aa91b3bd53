"""A copy of an inference component is killed: the others go on answering, it comes back, and no other component notices."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from botocore.exceptions import ClientError

from tests.components import component, hosting
from tests.penstock_process import Penstock
from tests.waiting import until


def deploy(penstock: Penstock, **copies: int) -> None:
    sagemaker = penstock.client()
    sagemaker.create_endpoint_config(**hosting())
    sagemaker.create_endpoint(EndpointName="e", EndpointConfigName="e")
    penstock.until_status("InService")
    for name, count in copies.items():
        sagemaker.create_inference_component(**component(name, copies=count))
    until(lambda: all(counted(penstock, name) == (n, n) for name, n in copies.items()), deadline_s=30)


def counted(penstock: Penstock, name: str) -> tuple[int, int]:
    """Desired and current copies of a component in service."""
    seen = penstock.client().describe_inference_component(InferenceComponentName=name)
    if seen["InferenceComponentStatus"] != "InService":
        return -1, -1
    return seen["RuntimeConfig"]["DesiredCopyCount"], seen["RuntimeConfig"]["CurrentCopyCount"]


def invoke(runtime: Any, name: str) -> bytes:
    answer = runtime.invoke_endpoint(EndpointName="e", InferenceComponentName=name, Body=b"hello")
    return bytes(answer["Body"].read())


def test_a_killed_copy_comes_back_while_the_others_answer(tmp_path: Path) -> None:
    penstock = Penstock(tmp_path / "home")
    try:
        penstock.start()
        deploy(penstock, many=3)
        before = {process.pid for process in penstock.servers()}
        victim = penstock.servers()[0]
        victim.kill()
        runtime = penstock.client("sagemaker-runtime")
        refused = 0
        while {process.pid for process in penstock.servers()} <= before or counted(penstock, "many") != (3, 3):
            try:
                assert invoke(runtime, "many") == b"hello"
            except runtime.exceptions.ModelError:  # the request that was with the copy when it died
                refused += 1
        assert refused <= 1
        assert len({process.pid for process in penstock.servers()} - before) == 1
        assert {process.pid for process in penstock.servers()} >= before - {victim.pid}
    finally:
        penstock.close()


def test_the_only_copy_is_killed_and_another_component_does_not_notice(tmp_path: Path) -> None:
    penstock = Penstock(tmp_path / "home")
    try:
        penstock.start()
        deploy(penstock, lonely=1)
        (victim,) = penstock.servers()
        penstock.client().create_inference_component(**component("other"))
        until(lambda: counted(penstock, "other") == (1, 1), deadline_s=30)
        victim.kill()
        runtime = penstock.client("sagemaker-runtime")

        def back() -> bool:
            assert invoke(runtime, "other") == b"hello"
            try:
                return invoke(runtime, "lonely") == b"hello" and victim.pid not in {p.pid for p in penstock.servers()}
            except ClientError as error:
                answer = error.response["Error"]
                assert answer["Code"] == "ModelError" or "has no capacity" in answer["Message"], answer
                return False

        until(back, deadline_s=30, what="the copy comes back")
        assert counted(penstock, "lonely") == (1, 1)
    finally:
        penstock.close()
