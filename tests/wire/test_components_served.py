"""Inference components by boto3 through a whole Penstock: two on one endpoint, by every call; scaled, updated, deleted, and found again."""

from __future__ import annotations

import functools
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import requests
from botocore.exceptions import ClientError

from tests.components import component, hosting, scripted
from tests.running import Penstock
from tests.waiting import until

HELLO = {"choices": [{"delta": {"content": "hello"}}]}


def says(word: str) -> dict[str, Any]:
    """A Specification whose copies answer with that word and the request."""
    return scripted({"steps": [{"send": word}, {"send": " got "}, {"echo": "body"}]})


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Penstock]:
    penstock = Penstock(tmp_path_factory.mktemp("components") / "home").start()
    host(penstock, "e")
    yield penstock
    assert penstock.stop() == 0


@functools.cache
def _client(server: Penstock, pid: int, service: str) -> Any:
    return server.client(service)


def client(server: Penstock, service: str = "sagemaker") -> Any:
    """One a service for each life of the server: making one asks a verb for the environment."""
    return _client(server, server.pid, service)


def host(server: Penstock, name: str) -> None:
    sagemaker = client(server)
    sagemaker.create_endpoint_config(**hosting(name))
    sagemaker.create_endpoint(EndpointName=name, EndpointConfigName=name)
    server.in_service(name)


def put(server: Penstock, name: str, endpoint: str = "e", *, copies: int = 1, **specification: Any) -> None:
    """A component of that name, in service."""
    client(server).create_inference_component(**component(name, endpoint, copies=copies, **specification))
    in_service(server, name)


def in_service(server: Penstock, name: str) -> dict[str, Any]:
    sagemaker = client(server)

    def reached() -> dict[str, Any] | None:
        seen: dict[str, Any] = sagemaker.describe_inference_component(InferenceComponentName=name)
        assert seen["InferenceComponentStatus"] != "Failed", seen.get("FailureReason")
        return seen if seen["InferenceComponentStatus"] == "InService" else None

    seen = until(reached, deadline_s=60, what=f"{name} InService")
    assert seen is not None
    return seen


def drop(server: Penstock, *names: str) -> None:
    sagemaker = client(server)
    for name in names:
        sagemaker.delete_inference_component(InferenceComponentName=name)
    until(
        lambda: not set(names) & {c["InferenceComponentName"] for c in _all(sagemaker)}, deadline_s=60, what="all gone"
    )


def _all(sagemaker: Any) -> list[dict[str, Any]]:
    pages = sagemaker.get_paginator("list_inference_components").paginate()
    return [one for page in pages for one in page["InferenceComponents"]]


def invoke(server: Penstock, name: str, endpoint: str = "e") -> str:
    answer = client(server, "sagemaker-runtime").invoke_endpoint(
        EndpointName=endpoint, InferenceComponentName=name, Body=b"x"
    )
    assert answer["InvokedProductionVariant"] == "AllTraffic"
    return str(answer["Body"].read().decode())


def refusal(server: Penstock, **arguments: Any) -> str:
    with pytest.raises(ClientError) as caught:
        client(server, "sagemaker-runtime").invoke_endpoint(EndpointName="e", Body=b"x", **arguments)
    assert caught.value.response["Error"]["Code"] == "ValidationError"
    return str(caught.value.response["Error"]["Message"])


def bearer(server: Penstock) -> str:
    from tests.wire.test_gateway_openai import token

    variables = server.environment()
    return token(key=variables["AWS_ACCESS_KEY_ID"], secret=variables["AWS_SECRET_ACCESS_KEY"])


def test_two_components_of_one_endpoint_answer_by_every_call(server: Penstock) -> None:
    put(server, "first", **says("first"))
    put(server, "second", **scripted({"steps": [{"sse": HELLO}, {"echo": "body"}]}))
    assert invoke(server, "first") == "first got x"
    runtime = client(server, "sagemaker-runtime")
    stream = runtime.invoke_endpoint_with_response_stream(EndpointName="e", InferenceComponentName="first", Body=b"y")
    assert [event["PayloadPart"]["Bytes"] for event in stream["Body"]] == [b"first", b" got ", b"y"]
    url = f"http://127.0.0.1:{server.port('http')}/endpoints/e/inference-components/second/openai/v1/chat/completions"
    headers = {"Authorization": f"Bearer {bearer(server)}", "Content-Type": "text/event-stream"}
    answer = requests.post(url, data=b"data: z\n\n", headers=headers, timeout=20)
    assert answer.status_code == 200
    assert answer.text == f"data: {json.dumps(HELLO, separators=(',', ':'))}\n\ndata: z\n\n"
    assert refusal(server).startswith("Inference Component Name header is required")
    assert refusal(server, InferenceComponentName="third") == "Inference Component third of endpoint e not found."
    drop(server, "first", "second")
    assert "not found" in refusal(server, InferenceComponentName="first")


def test_a_component_scales_to_zero_and_back(server: Penstock) -> None:
    put(server, "ic", copies=0, **says("ic"))
    sagemaker = client(server)
    assert refusal(server, InferenceComponentName="ic").startswith("Inference Component has no capacity")
    for count in (2, 0):
        sagemaker.update_inference_component_runtime_config(
            InferenceComponentName="ic", DesiredRuntimeConfig={"CopyCount": count}
        )
        seen = in_service(server, "ic")
        assert seen["RuntimeConfig"] == {"DesiredCopyCount": count, "CurrentCopyCount": count}
        if count:
            assert invoke(server, "ic") == "ic got x"
    assert refusal(server, InferenceComponentName="ic").startswith("Inference Component has no capacity")
    drop(server, "ic")


def test_an_update_loses_no_request(server: Penstock) -> None:
    put(server, "ic", **says("old"))
    sagemaker = client(server)
    sagemaker.update_inference_component(InferenceComponentName="ic", Specification=says("new"))
    heard = [invoke(server, "ic")]
    while heard[-1] != "new got x":
        heard.append(invoke(server, "ic"))
    assert set(heard) <= {"old got x", "new got x"}
    in_service(server, "ic")
    assert invoke(server, "ic") == "new got x"
    drop(server, "ic")


def test_a_component_that_can_not_start_says_what_it_said(server: Penstock) -> None:
    sagemaker = client(server)
    sagemaker.create_inference_component(**component("bad", **scripted({"steps": [{"sing": "la"}]})))

    def failed() -> str | None:
        seen = sagemaker.describe_inference_component(InferenceComponentName="bad")
        return str(seen["FailureReason"]) if seen["InferenceComponentStatus"] == "Failed" else None

    reason = until(failed, deadline_s=60, what="Failed")
    assert reason is not None
    assert "did not pass the ping health check" in reason
    assert "steps[0] must be" in reason
    groups = client(server, "logs").describe_log_groups(logGroupNamePrefix="/aws/sagemaker/InferenceComponents/bad")
    assert [group["logGroupName"] for group in groups["logGroups"]] == ["/aws/sagemaker/InferenceComponents/bad"]
    drop(server, "bad")


def test_the_metrics_tell_components_apart(server: Penstock) -> None:
    put(server, "one", **says("one"))
    put(server, "two", **says("two"))
    for name, times in (("one", 2), ("two", 1)):
        for _ in range(times):
            invoke(server, name)

    def counted(name: str) -> str:
        page = requests.get(f"http://127.0.0.1:{server.port('http')}/metrics", timeout=10).text
        lines = (line for line in page.splitlines() if line.startswith("Invocations_total") and f'"{name}"' in line)
        return next((line.rsplit(" ", 1)[1] for line in lines), "")

    until(lambda: (counted("one"), counted("two")) == ("2.0", "1.0"), what="both counted")
    drop(server, "one", "two")


def test_the_verbs_know_components(server: Penstock, tmp_path: Path) -> None:
    host(server, "verbs")
    put(server, "spoken", "verbs", copies=2, **says("spoken"))
    shown = json.loads(server.cli("show", "verbs", "--json").stdout)
    assert [one["InferenceComponentName"] for one in shown["InferenceComponents"]] == ["spoken"]
    line = next(line for line in server.cli("show", "verbs").stdout.splitlines() if "component" in line)
    assert "spoken, InService, 2 of 2 copies (penstock/scripted)" in line
    body = tmp_path / "body"
    body.write_bytes(b"x")
    done = server.cli("invoke", "verbs", "--inference-component", "spoken", "--body", str(body), "--raw")
    assert done.stdout == "spoken got x"
    refused = server.cli("invoke", "verbs", "--body", str(body), "--raw", check=False)
    assert (refused.returncode, "Inference Component Name header is required" in refused.stderr) == (1, True)
    logged = server.cli("logs", "verbs", "--inference-component", "spoken").stdout
    assert logged.count("listens on port") == 2
    server.cli("rm", "verbs")
    assert "spoken" not in {one["InferenceComponentName"] for one in _all(client(server))}
    assert "verbs" not in {e["EndpointName"] for e in json.loads(server.cli("ls", "--json").stdout)}


def test_policies_are_asked_for_each_operation(server: Penstock, tmp_path: Path) -> None:
    put(server, "mine", **says("mine"))
    policy = tmp_path / "policy.json"
    statement = {
        "Effect": "Allow",
        "Action": ["sagemaker:DescribeInferenceComponent", "sagemaker:UpdateInferenceComponentRuntimeConfig"],
        "Resource": "arn:aws:sagemaker:us-east-1:123456789012:inference-component/mine",
    }
    policy.write_text(json.dumps({"Version": "2012-10-17", "Statement": [statement]}))
    made = json.loads(server.cli("keys", "create", "--name", "reader", "--policy", str(policy), "--json").stdout)
    import boto3

    limited = boto3.client(
        "sagemaker",
        endpoint_url=f"http://127.0.0.1:{server.port('http')}",
        region_name="us-east-1",
        aws_access_key_id=made["AccessKeyId"],
        aws_secret_access_key=made["SecretAccessKey"],
    )
    assert limited.describe_inference_component(InferenceComponentName="Mine")["InferenceComponentName"] == "mine"
    scale = limited.update_inference_component_runtime_config
    scale(InferenceComponentName="mine", DesiredRuntimeConfig={"CopyCount": 1})
    for call, arguments in (
        (limited.delete_inference_component, {"InferenceComponentName": "mine"}),
        (limited.describe_inference_component, {"InferenceComponentName": "other"}),
        (limited.list_inference_components, {}),
    ):
        with pytest.raises(ClientError, match="not authorized"):
            call(**arguments)
    in_service(server, "mine")
    drop(server, "mine")


@pytest.mark.parametrize("how", ["kill", "stop"])
def test_components_come_back_after_the_server_has_gone(tmp_path: Path, how: str) -> None:
    server = Penstock(tmp_path / "home").start()
    try:
        host(server, "e")
        put(server, "first", copies=2, **says("first"))
        put(server, "second", **says("second"))
        put(server, "none", copies=0, **says("none"))
        before = client(server).describe_inference_component(InferenceComponentName="first")
        getattr(server, how)()
        server.start()
        for name in ("first", "second"):
            until(functools.partial(answers, server, name), deadline_s=60, what=f"{name} answers")
        until(
            lambda: in_service(server, "first")["RuntimeConfig"]["CurrentCopyCount"] == 2,
            deadline_s=60,
            what="both copies",
        )
        after = in_service(server, "first")
        for member in ("CreationTime", "Specification", "RuntimeConfig", "InferenceComponentArn"):
            assert after[member] == before[member]
        assert refusal(server, InferenceComponentName="none").startswith("Inference Component has no capacity")
    finally:
        assert server.stop() == 0


def answers(server: Penstock, name: str) -> bool:
    try:
        return invoke(server, name) == f"{name} got x"
    except ClientError:
        return False
