"""InvokeEndpointAsync by boto3 through a whole Penstock: input and output in S3, failures, limits, and a restart in the middle."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from botocore.exceptions import ClientError

from tests.running import Penstock
from tests.waiting import until

ROLE = "arn:aws:iam::123456789012:role/r"
ECHO: dict[str, Any] = {"steps": [{"echo": "body"}]}
OUTPUT = {"S3OutputPath": "s3://results/out/", "S3FailurePath": "s3://results/bad"}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Penstock]:
    penstock = Penstock(tmp_path_factory.mktemp("async") / "home").start()
    penstock.client("s3").create_bucket(Bucket="results")
    yield penstock
    assert penstock.stop() == 0


def deploy(server: Penstock, name: str, script: dict[str, Any], **client: int) -> None:
    sagemaker = server.client("sagemaker")
    environment = {"PENSTOCK_SCRIPT": json.dumps(script)}
    container = {"Image": "penstock/scripted", "Environment": environment}
    sagemaker.create_model(ModelName=name, ExecutionRoleArn=ROLE, PrimaryContainer=container)
    variant = {"VariantName": "v", "ModelName": name, "InstanceType": "ml.m5.large", "InitialInstanceCount": 1}
    config: dict[str, Any] = {"OutputConfig": OUTPUT}
    if client:
        config["ClientConfig"] = client
    sagemaker.create_endpoint_config(EndpointConfigName=name, ProductionVariants=[variant], AsyncInferenceConfig=config)
    sagemaker.create_endpoint(EndpointName=name, EndpointConfigName=name)
    described = server.in_service(name)
    assert described["AsyncInferenceConfig"] == config


def fetched(server: Penstock, location: str) -> bytes:
    """The object, once it is there."""
    bucket, _, key = location.removeprefix("s3://").partition("/")
    s3 = server.client("s3")

    def found() -> dict[str, Any] | None:
        try:
            got: dict[str, Any] = s3.get_object(Bucket=bucket, Key=key)
        except s3.exceptions.NoSuchKey:
            return None
        return got

    got = until(found, what=location)
    assert got is not None
    body: bytes = got["Body"].read()
    return body


def waiting_jobs(server: Penstock) -> list[Path]:
    return list((server.home / "async").glob("*.json"))


@pytest.fixture(scope="module")
def echo(server: Penstock) -> str:
    deploy(server, "async-echo", ECHO)
    return "async-echo"


def test_input_from_s3_and_output_to_s3(server: Penstock, echo: str) -> None:
    body = bytes(range(256)) * 4000
    server.client("s3").put_object(Bucket="results", Key="in/a.bin", Body=body)
    runtime = server.client("sagemaker-runtime")
    answer = runtime.invoke_endpoint_async(
        EndpointName=echo, InputLocation="s3://results/in/a.bin", ContentType="application/x", InferenceId="mine"
    )
    assert answer["ResponseMetadata"]["HTTPStatusCode"] == 202
    assert answer["InferenceId"] == "mine"
    assert answer["OutputLocation"].startswith("s3://results/out/")
    assert answer["OutputLocation"].endswith(".out")
    assert answer["FailureLocation"].startswith("s3://results/bad/")
    assert answer["FailureLocation"].endswith("-error.out")
    assert fetched(server, answer["OutputLocation"]) == body
    until(lambda: not waiting_jobs(server), what="the queue empty")


def test_the_input_may_be_named_by_its_url(server: Penstock, echo: str) -> None:
    server.client("s3").put_object(Bucket="results", Key="in/a b.txt", Body=b"by its URL")
    location = "https://results.s3.us-east-1.amazonaws.com/in/a%20b.txt"
    answer = server.client("sagemaker-runtime").invoke_endpoint_async(EndpointName=echo, InputLocation=location)
    assert fetched(server, answer["OutputLocation"]) == b"by its URL"


def test_a_body_in_the_request_and_a_name_for_the_output(server: Penstock, echo: str) -> None:
    answer = server.client("sagemaker-runtime").invoke_endpoint_async(
        EndpointName=echo, Body=b"inline", S3OutputPathExtension="team/a", Filename="it.txt"
    )
    assert answer["OutputLocation"] == "s3://results/out/team/a/it.txt"
    assert answer["InferenceId"]
    assert fetched(server, answer["OutputLocation"]) == b"inline"


def test_what_the_container_refuses_is_in_the_failure_object(server: Penstock, echo: str) -> None:
    deploy(server, "async-bad", {"steps": [{"status": 500}, {"send": "out of memory"}]})
    answer = server.client("sagemaker-runtime").invoke_endpoint_async(EndpointName="async-bad", Body=b"x")
    text = 'Received server error (500) from primary with message "out of memory".'
    assert fetched(server, answer["FailureLocation"]).decode() == text
    missing = server.client("sagemaker-runtime").invoke_endpoint_async(
        EndpointName=echo, InputLocation="s3://results/in/absent"
    )
    assert fetched(server, missing["FailureLocation"]).startswith(b"Failed to download the input from s3://results/in/")
    until(lambda: not waiting_jobs(server), what="the queue empty")


def test_a_broken_answer_leaves_no_half_output(server: Penstock) -> None:
    deploy(server, "async-broken", {"steps": [{"send": "half"}, {"end": "close"}]})
    answer = server.client("sagemaker-runtime").invoke_endpoint_async(EndpointName="async-broken", Body=b"x")
    assert b"could not get a response" in fetched(server, answer["FailureLocation"])
    listed = server.client("s3").list_objects_v2(Bucket="results", Prefix=answer["OutputLocation"][13:])
    assert listed["KeyCount"] == 0


def test_an_invocation_that_takes_too_long_is_given_up(server: Penstock) -> None:
    deploy(server, "async-slow", {"steps": [{"send": "a"}, {"wait_ms": 60000}]})
    answer = server.client("sagemaker-runtime").invoke_endpoint_async(
        EndpointName="async-slow", Body=b"x", InvocationTimeoutSeconds=1
    )
    text = fetched(server, answer["FailureLocation"])
    assert text.startswith(b"Your invocation timed out while waiting for a response from container primary.")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"EndpointName": "nobody", "Body": b"x"}, "Endpoint nobody of account 123456789012 not found."),
        ({"Body": b"x", "InputLocation": "s3://a/b"}, "inputLocation"),
        ({}, "inputLocation"),
        ({"Body": b"x" * 128_001}, "128000"),
        ({"EndpointName": "ASYNC-ECHO", "Body": b"x"}, "Endpoint ASYNC-ECHO of account 123456789012 not found."),
        ({"InputLocation": "https://example.com/a"}, "s3://"),
        ({"InputLocation": "s3://results/" + "k" * 1012}, "1024"),
        ({"Body": b"x", "RequestTTLSeconds": 59}, "between 60 and 21600"),
        ({"Body": b"x", "InvocationTimeoutSeconds": 3601}, "between 1 and 3600"),
        ({"Body": b"x", "S3OutputPathExtension": "s3://x"}, "s3OutputPathExtension"),
        ({"Body": b"x", "Filename": "a.b.c"}, "filename"),
    ],
)
def test_what_breaks_the_rules_is_refused(server: Penstock, echo: str, arguments: dict[str, Any], words: str) -> None:
    runtime = server.client("sagemaker-runtime", parameter_validation=False)
    with pytest.raises(ClientError) as caught:
        runtime.invoke_endpoint_async(**{"EndpointName": echo, **arguments})
    assert caught.value.response["Error"]["Code"] == "ValidationError"
    assert caught.value.response["ResponseMetadata"]["HTTPStatusCode"] == 400
    assert words in caught.value.response["Error"]["Message"]


def test_an_endpoint_without_the_config_has_no_asynchronous_call(server: Penstock) -> None:
    server.cli("deploy", "scripted", "--name", "plain")
    with pytest.raises(ClientError, match="does not support this inference type"):
        server.client("sagemaker-runtime").invoke_endpoint_async(EndpointName="plain", Body=b"x")


def test_the_queue_outlives_a_kill_and_keeps_its_limit(tmp_path: Path) -> None:
    server = Penstock(tmp_path / "home").start()
    try:
        server.client("s3").create_bucket(Bucket="results")
        deploy(
            server,
            "one-at-a-time",
            {"steps": [{"wait_ms": 1500}, {"echo": "body"}]},
            MaxConcurrentInvocationsPerInstance=1,
        )
        runtime = server.client("sagemaker-runtime")
        sent = [runtime.invoke_endpoint_async(EndpointName="one-at-a-time", Body=b"%d" % n) for n in range(3)]
        assert len(waiting_jobs(server)) == 3
        server.kill()
        assert len(waiting_jobs(server)) == 3
        server.start()
        server.in_service("one-at-a-time")
        assert [fetched(server, answer["OutputLocation"]) for answer in sent] == [b"0", b"1", b"2"]
        until(lambda: not list((server.home / "async").iterdir()), what="an empty directory")
        s3 = server.client("s3")
        keys = [answer["OutputLocation"].removeprefix("s3://results/") for answer in sent]
        times = [s3.head_object(Bucket="results", Key=key)["LastModified"] for key in keys]
        assert (times[2] - times[0]).total_seconds() >= 2, "one at a time"
    finally:
        assert server.stop() == 0


def test_a_request_that_has_waited_too_long_fails_without_being_run(tmp_path: Path) -> None:
    """RequestTTLSeconds is at least 60: the server sleeps through the rest of it."""
    server = Penstock(tmp_path / "home").start()
    try:
        server.client("s3").create_bucket(Bucket="results")
        slow = {"steps": [{"wait_ms": 60_000}, {"echo": "body"}]}
        deploy(server, "slow", slow, MaxConcurrentInvocationsPerInstance=1)
        runtime = server.client("sagemaker-runtime")
        runs = runtime.invoke_endpoint_async(EndpointName="slow", Body=b"runs", InvocationTimeoutSeconds=1)
        waits = runtime.invoke_endpoint_async(
            EndpointName="slow", Body=b"waits", RequestTTLSeconds=60, InferenceId="waits"
        )
        server.kill()
        [path] = [one for one in waiting_jobs(server) if json.loads(one.read_bytes())["inference_id"] == "waits"]
        job = json.loads(path.read_bytes())
        assert job["expires"] - job["received"] == pytest.approx(60)
        path.write_text(json.dumps(job | {"received": job["received"] - 61, "expires": job["expires"] - 61}))
        server.start()
        text = fetched(server, waits["FailureLocation"])
        assert text == b"The request expired before it could be processed."
        assert fetched(server, runs["FailureLocation"]).startswith(b"Your invocation timed out")
        until(lambda: not list((server.home / "async").iterdir()), what="an empty queue")
        listed = server.client("s3").list_objects_v2(Bucket="results", Prefix="out/")
        assert listed["KeyCount"] == 0, "neither has an output"
    finally:
        assert server.stop() == 0
