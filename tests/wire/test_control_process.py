"""The control process as `penstock up` becomes it: ready, one line, state; drained by a signal; refusing to start in one plain line."""

from __future__ import annotations

import signal
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from botocore.exceptions import ClientError

import penstock as package
from tests.penstock_process import ROLE, Penstock
from tests.waiting import until


@pytest.fixture
def penstock(tmp_path: Path) -> Iterator[Penstock]:
    made = Penstock(tmp_path / "home")
    yield made
    made.close()


def refused(penstock: Penstock) -> str:
    """What it says on stderr when it does not start: one line, exit code 1, nothing left behind."""
    process = penstock.launch()
    assert process.wait(30) == 1
    assert process.stdout is not None
    assert process.stdout.read() == ""
    (line,) = penstock.errors().splitlines()
    assert not penstock.paths.server_state.exists()
    assert not penstock.paths.control_socket.exists()
    return line.removeprefix("penstock: ")


def test_it_says_one_line_and_keeps_its_state_until_it_ends(penstock: Penstock) -> None:
    process = penstock.start().process
    assert process is not None
    assert process.stdout is not None
    state = penstock.state
    assert (state["pid"], state["version"], set(state["ports"])) == (
        process.pid,
        package.__version__,
        {"https", "http", "proxy"},
    )
    for path in (penstock.paths.control_socket, penstock.paths.table_socket, penstock.paths.database):
        assert path.stat().st_mode & 0o777 == 0o600
    penstock.deploy()
    penstock.until_status("InService")
    assert penstock.terminate() == 0
    assert process.stdout.read() == ""
    assert penstock.errors() == ""
    assert list(penstock.paths.run.iterdir()) == []
    assert penstock.family() == []


def test_idle_it_is_small(penstock: Penstock) -> None:
    penstock.start()
    assert penstock.process is not None
    family = [psutil.Process(penstock.process.pid), *penstock.family()]
    assert sum(p.memory_full_info().pss for p in family) < 150 * 1024 * 1024


def test_a_stream_that_is_open_at_sigterm_ends_in_peace(penstock: Penstock) -> None:
    penstock.start().deploy(environment={"PENSTOCK_SCRIPT": '{"steps": [{"send": "x", "times": 5, "every_ms": 200}]}'})
    penstock.until_status("InService")
    runtime = penstock.client("sagemaker-runtime")
    stream = runtime.invoke_endpoint_with_response_stream(EndpointName="e", Body=b"")["Body"]
    parts = iter(stream)
    assert next(parts)["PayloadPart"]["Bytes"] == b"x"
    ended: list[int] = []
    ender = threading.Thread(target=lambda: ended.append(penstock.terminate()))
    ender.start()
    assert [part["PayloadPart"]["Bytes"] for part in parts] == [b"x"] * 4
    ender.join(30)
    assert ended == [0]


def test_idle_clients_do_not_hold_up_the_end(tmp_path: Path) -> None:
    penstock = Penstock(tmp_path / "home", {"PENSTOCK_DRAIN_S": "60"})
    try:
        penstock.start()
        penstock.client().list_models()  # keeps its connection, and does not read from it any more
        assert penstock.terminate(deadline_s=20) == 0
    finally:
        penstock.close()


def test_told_twice_it_ends_at_once_and_leaves_nothing(penstock: Penstock) -> None:
    penstock.start().deploy(
        environment={"PENSTOCK_SCRIPT": '{"steps": [{"send": "x", "times": 600, "every_ms": 100}]}'}
    )
    penstock.until_status("InService")
    stream = penstock.client("sagemaker-runtime").invoke_endpoint_with_response_stream(EndpointName="e", Body=b"")[
        "Body"
    ]
    assert next(iter(stream))["PayloadPart"]["Bytes"] == b"x"
    process = penstock.process
    assert process is not None
    penstock.family()
    process.send_signal(signal.SIGINT)
    until(lambda: "told to end" in (penstock.paths.logs / "control.jsonl").read_text())
    began = time.monotonic()
    process.send_signal(signal.SIGINT)
    assert process.wait(10) == 1
    assert time.monotonic() - began < 10
    until(lambda: penstock.family() == [], deadline_s=15)
    stream.close()


def test_a_model_that_can_not_start_fails_the_endpoint_with_its_own_words(penstock: Penstock) -> None:
    penstock.start().deploy(environment={"PENSTOCK_SCRIPT": '{"start": {"fail": "no weights, says the server"}}'})
    found = penstock.until_status("Failed")
    assert "no weights, says the server" in found["FailureReason"]
    assert "The primary container for production variant v" in found["FailureReason"]
    penstock.client().delete_endpoint(EndpointName="e")
    until(lambda: penstock.servers() == [])


def test_an_image_that_needs_a_container_engine_fails_the_endpoint_and_says_so(penstock: Penstock) -> None:
    client = penstock.start().client()
    client.create_model(ModelName="m", ExecutionRoleArn=ROLE, PrimaryContainer={"Image": "nobody/knows:1"})
    variant = {"VariantName": "v", "ModelName": "m", "InstanceType": "ml.g5.2xlarge", "InitialInstanceCount": 1}
    client.create_endpoint_config(EndpointConfigName="c", ProductionVariants=[variant])
    client.create_endpoint(EndpointName="e", EndpointConfigName="c")
    assert "nobody/knows:1" in penstock.until_status("Failed")["FailureReason"]


def test_model_data_is_looked_for_in_our_own_s3(penstock: Penstock) -> None:
    client, s3 = penstock.start().client(), penstock.client("s3")
    container = {"Image": "penstock/scripted", "ModelDataUrl": "s3://models/m.tar.gz"}
    with pytest.raises(ClientError, match=r"Could not find model data at s3://models/m\.tar\.gz"):
        client.create_model(ModelName="m", ExecutionRoleArn=ROLE, PrimaryContainer=container)
    s3.create_bucket(Bucket="models")
    s3.put_object(Bucket="models", Key="m.tar.gz", Body=b"not a tar at all")
    client.create_model(ModelName="m", ExecutionRoleArn=ROLE, PrimaryContainer=container)
    variant = {"VariantName": "v", "ModelName": "m", "InstanceType": "ml.g5.2xlarge", "InitialInstanceCount": 1}
    client.create_endpoint_config(EndpointConfigName="c", ProductionVariants=[variant])
    client.create_endpoint(EndpointName="e", EndpointConfigName="c")
    assert "s3://models/m.tar.gz" in penstock.until_status("Failed")["FailureReason"]


def test_the_neighbours_answer_behind_the_same_door(penstock: Penstock) -> None:
    penstock.start().deploy(environment={"PENSTOCK_SCRIPT": '{"start": {"fail": "no weights"}}'})
    penstock.until_status("Failed")
    arn = penstock.client("sts").get_caller_identity()["Arn"]
    role = arn.split("/")[1]
    assert penstock.client("iam").get_role(RoleName=role)["Role"]["Arn"].endswith(f":role/{role}")
    logs = penstock.client("logs")
    group = "/aws/sagemaker/Endpoints/e"
    found = logs.filter_log_events(logGroupName=group, logStreamNamePrefix="v/")["events"]
    assert any("no weights" in event["message"] for event in found)
    with pytest.raises(ClientError, match="does not serve the service"):
        penstock.client("dynamodb").list_tables()


def test_without_credentials_it_does_not_start(penstock: Penstock) -> None:
    penstock.paths.credentials.unlink()
    assert refused(penstock).endswith("credentials: No such file or directory")


def test_on_what_is_no_database_it_does_not_start(penstock: Penstock) -> None:
    penstock.paths.database.write_bytes(b"nonsense " * 1000)
    assert "file is not a database" in refused(penstock)


def test_when_the_gateway_can_not_start_it_says_what_the_gateway_said(penstock: Penstock) -> None:
    penstock.paths.server_key.write_text("no key")
    assert refused(penstock).startswith("the gateway does not start: ")


def test_a_setting_of_the_wrong_form_is_named(tmp_path: Path) -> None:
    penstock = Penstock(tmp_path / "home", {"PENSTOCK_WORKERS": "many"})
    process = penstock.launch()
    try:
        assert process.wait(20) == 2
        assert "PENSTOCK_WORKERS must be a number" in penstock.errors()
    except subprocess.TimeoutExpired:
        process.kill()
        raise
    finally:
        penstock.close()
