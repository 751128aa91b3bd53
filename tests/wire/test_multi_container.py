"""Several containers on each instance: one that the request names, or all of them one after the other."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
from botocore.exceptions import ClientError

from tests.penstock_process import ROLE, Penstock
from tests.waiting import until


def container(steps: list[Any], hostname: str = "", **script: Any) -> dict[str, Any]:
    text = json.dumps({"steps": steps, **script})
    named = {"ContainerHostname": hostname} if hostname else {}
    return {"Image": "penstock/scripted", "Environment": {"PENSTOCK_SCRIPT": text}, **named}


def deploy(penstock: Penstock, name: str, containers: list[dict[str, Any]], mode: str = "", *, count: int = 1) -> None:
    """Not awaited until InService."""
    client = penstock.client()
    how = {"InferenceExecutionConfig": {"Mode": mode}} if mode else {}
    client.create_model(ModelName=name, ExecutionRoleArn=ROLE, Containers=containers, **how)
    variant = {"VariantName": "v", "ModelName": name, "InstanceType": "ml.m5.large", "InitialInstanceCount": count}
    client.create_endpoint_config(EndpointConfigName=name, ProductionVariants=[variant])
    client.create_endpoint(EndpointName=name, EndpointConfigName=name)


@pytest.fixture(scope="module")
def penstock(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Penstock]:
    server = Penstock(tmp_path_factory.mktemp("multi-container") / "home")
    try:
        server.start()
        direct = [
            container([{"send": "red "}, {"echo": "body"}], "red"),
            container([{"send": "blue "}, {"echo": "headers"}], "blue"),
            container([{"status": 418}, {"send": "short and stout"}], "teapot"),
        ]
        deploy(server, "direct", direct, "Direct", count=2)
        stages = [container([{"send": f"({n}"}, {"echo": "body"}, {"send": ")"}]) for n in (1, 2, 3)]
        deploy(server, "serial", stages)
        server.until_status("InService", "direct")
        server.until_status("InService", "serial")
        yield server
    finally:
        server.close()


def ask(penstock: Penstock, name: str, **more: Any) -> bytes:
    runtime = penstock.client("sagemaker-runtime")
    return bytes(runtime.invoke_endpoint(EndpointName=name, Body=b"hello", **more)["Body"].read())


def stream(penstock: Penstock, name: str, **more: Any) -> list[bytes]:
    runtime = penstock.client("sagemaker-runtime")
    answer = runtime.invoke_endpoint_with_response_stream(EndpointName=name, Body=b"hello", **more)
    return [event["PayloadPart"]["Bytes"] for event in answer["Body"]]


def test_the_named_container_answers(penstock: Penstock) -> None:
    assert ask(penstock, "direct", TargetContainerHostname="red") == b"red hello"
    assert stream(penstock, "direct", TargetContainerHostname="red") == [b"red ", b"hello"]
    head, body = stream(penstock, "direct", TargetContainerHostname="blue")
    assert head == b"blue "
    assert json.loads(body)["x-amzn-sagemaker-target-container-hostname"] == "blue"


def test_its_errors_name_it(penstock: Penstock) -> None:
    with pytest.raises(ClientError) as caught:
        ask(penstock, "direct", TargetContainerHostname="teapot")
    error = caught.value.response
    assert error["Error"]["Code"] == "ModelError"
    assert error["Error"]["Message"].startswith(
        'Received client error (418) from teapot with message "short and stout".'
    )


@pytest.mark.parametrize("call", [ask, stream])
@pytest.mark.parametrize(
    ("endpoint", "given", "words"),
    [
        ("direct", {"TargetContainerHostname": "green"}, "Container green of endpoint direct not found."),
        ("direct", {}, "is missing a target container hostname header."),
        ("serial", {"TargetContainerHostname": "container-1"}, "is not a multi-container endpoint"),
        ("serial", {"SessionId": "NEW_SESSION"}, "session"),
    ],
)
def test_what_names_no_container(
    penstock: Penstock, call: Any, endpoint: str, given: dict[str, str], words: str
) -> None:
    with pytest.raises(ClientError) as caught:
        call(penstock, endpoint, **given)
    assert caught.value.response["Error"]["Code"] == "ValidationError"
    assert words in caught.value.response["Error"]["Message"]


def test_a_pipelines_answers_are_the_next_ones_requests(penstock: Penstock) -> None:
    assert ask(penstock, "serial") == b"(3(2(1hello)))"
    assert stream(penstock, "serial") == [b"(3", b"(2(1hello))", b")"]


def test_what_each_stage_of_a_pipeline_is_sent(penstock: Penstock) -> None:
    typed = {"status": 200, "headers": {"content-type": "text/csv"}}
    deploy(penstock, "typed", [container([typed, {"echo": "headers"}], "a"), container([{"echo": "body"}], "b")])
    deploy(penstock, "later", [container([typed, {"send": "1,2"}], "a"), container([{"echo": "headers"}], "b")])
    for name in ("typed", "later"):
        penstock.until_status("InService", name)
    given = {"Accept": "image/png", "ContentType": "application/json", "CustomAttributes": "k=v"}
    first = json.loads(ask(penstock, "typed", **given))
    assert (first["content-type"], first.get("accept")) == ("application/json", None)
    last = json.loads(ask(penstock, "later", **given))
    assert (last["content-type"], last["accept"], last["content-length"]) == ("text/csv", "image/png", "3")
    assert last["x-amzn-sagemaker-custom-attributes"] == "k=v"


@pytest.mark.parametrize("call", [ask, stream])
def test_a_pipeline_stops_where_it_fails(penstock: Penstock, call: Any) -> None:
    name = f"failing-{call.__name__}"
    failing = container([{"status": 500}, {"send": "no more"}], "second")
    deploy(penstock, name, [container([{"echo": "body"}], "first"), failing, container([{"send": "never"}], "third")])
    penstock.until_status("InService", name)
    with pytest.raises(ClientError) as caught:
        call(penstock, name)
    assert caught.value.response["Error"]["Message"].startswith(
        'Received server error (500) from second with message "no more".'
    )


def test_a_pipelines_container_that_breaks_off(penstock: Penstock) -> None:
    broken = container([{"send": "half"}, {"end": "reset"}], "breaks")
    deploy(penstock, "broken", [broken, container([{"echo": "body"}], "last")])
    penstock.until_status("InService", "broken")
    with pytest.raises(ClientError) as caught:
        ask(penstock, "broken")
    assert caught.value.response["Error"]["Code"] == "ModelError"
    assert caught.value.response["OriginalStatusCode"] == 0


def test_an_instance_is_there_when_all_its_containers_are(penstock: Penstock) -> None:
    late = container([{"send": "late"}], "late", ping={"ready_after_ms": 1500})
    deploy(penstock, "waits", [container([{"send": "early"}], "early"), late], "Direct")
    shown = penstock.client().describe_endpoint(EndpointName="waits")
    assert shown["EndpointStatus"] == "Creating"
    found = penstock.until_status("InService", "waits")
    (variant,) = found["ProductionVariants"]
    assert (variant["CurrentInstanceCount"], variant["DesiredInstanceCount"]) == (1, 1)
    assert len(variant["DeployedImages"]) == 2
    assert ask(penstock, "waits", TargetContainerHostname="late") == b"late"


def test_a_container_that_can_not_start_fails_the_endpoint(penstock: Penstock) -> None:
    bad = container([], "bad", start={"fail": "no weights"})
    deploy(penstock, "fails", [container([], "fine"), bad], "Direct")
    found = penstock.until_status("Failed", "fails")
    assert found["FailureReason"].startswith(
        "The bad container for production variant v did not pass the ping health check."
    )
    assert "no weights" in found["FailureReason"]


def test_each_container_has_a_log_of_its_own(penstock: Penstock) -> None:
    logs = penstock.client("logs")
    group = "/aws/sagemaker/Endpoints/direct"

    def names() -> list[str]:
        return [stream["logStreamName"] for stream in logs.describe_log_streams(logGroupName=group)["logStreams"]]

    found = until(lambda: names() if len(names()) == 6 else [], what="six streams")
    instances = {tuple(name.split("/")[:2]) for name in found}
    assert len(instances) == 2, "the containers of an instance share its id"
    assert {name.split("/")[2] for name in found} == {"red", "blue", "teapot"}
    events = logs.get_log_events(logGroupName=group, logStreamName=found[0], startFromHead=True)["events"]
    assert any("listens on port" in event["message"] for event in events)
    unnamed = logs.describe_log_streams(logGroupName="/aws/sagemaker/Endpoints/serial")["logStreams"]
    assert {name["logStreamName"].split("/")[2] for name in unnamed} == {"container-1", "container-2", "container-3"}


def test_what_was_given_is_shown_again(penstock: Penstock) -> None:
    client = penstock.client()
    found = client.describe_model(ModelName="direct")
    assert [one["ContainerHostname"] for one in found["Containers"]] == ["red", "blue", "teapot"]
    assert found["InferenceExecutionConfig"] == {"Mode": "Direct"}
    assert "direct" in [one["ModelName"] for one in client.list_models()["Models"]]


def test_scaling_keeps_the_containers_together(penstock: Penstock) -> None:
    deploy(penstock, "scaled", [container([{"send": "x"}], "x"), container([{"send": "y"}], "y")], "Direct")
    penstock.until_status("InService", "scaled")
    client = penstock.client()
    wish = {"VariantName": "v", "DesiredInstanceCount": 2}
    client.update_endpoint_weights_and_capacities(EndpointName="scaled", DesiredWeightsAndCapacities=[wish])
    found = penstock.until_status("InService", "scaled")
    assert found["ProductionVariants"][0]["CurrentInstanceCount"] == 2
    assert {ask(penstock, "scaled", TargetContainerHostname="y") for _ in range(8)} == {b"y"}
