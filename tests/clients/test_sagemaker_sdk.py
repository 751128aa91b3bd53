"""The SageMaker SDK, v2 and v3, unmodified: deploy, predict, stream, delete under `penstock run`."""

from __future__ import annotations

import pytest

from tests.clients.conftest import RunProgram
from tests.clients.test_boto3 import tgi_events
from tests.running import Penstock

pytestmark = [pytest.mark.clients, pytest.mark.timeout(600)]

ROLE = "arn:aws:iam::123456789012:role/PenstockExecutionRole"


def names(penstock: Penstock) -> set[str]:
    return {endpoint["EndpointName"] for endpoint in penstock.client("sagemaker").list_endpoints()["Endpoints"]}


def test_v2_lmi_flow_of_the_announcement(penstock: Penstock, run_program: RunProgram) -> None:
    seen = run_program("sdk-v2", "sdk_v2_lmi.py", timeout_s=400, SAGEMAKER_SUPPRESS_V2_WARNING="1")
    assert seen["role"] == ROLE
    assert seen["account"] == "123456789012"
    assert seen["bucket"] == "sagemaker-us-east-1-123456789012"
    assert seen["image"].endswith("/djl-inference:0.23.0-deepspeed0.9.5-cu118")
    assert seen["artifact"] == "s3://sagemaker-us-east-1-123456789012/large-model-lmi/code/mymodel-7B.tar.gz"
    answer = "".join(seen["pieces"])
    assert "SageMaker" in answer
    assert len(seen["pieces"]) > 10, "token by token"
    assert seen["endpoint"] not in names(penstock)


def test_v2_tgi_flow_of_the_announcement(penstock: Penstock, run_program: RunProgram) -> None:
    seen = run_program("sdk-v2", "sdk_v2_tgi.py", timeout_s=400, SAGEMAKER_SUPPRESS_V2_WARNING="1")
    assert seen["arn"] == ROLE
    assert "tgi0.8.2" in seen["image"]
    events = tgi_events(seen["streamed"])
    assert (
        events[-1]["generated_text"]
        == seen["whole"][0]["generated_text"]
        == seen["stream_deserializer"][0]["generated_text"]
    )
    assert seen["content_type"] == "application/json"
    assert seen["endpoint"] not in names(penstock)


def test_v2_models_of_several(penstock: Penstock, run_program: RunProgram) -> None:
    seen = run_program("sdk-v2", "sdk_v2_several.py", timeout_s=200, SAGEMAKER_SUPPRESS_V2_WARNING="1")
    assert seen["listed"] == ["blue.tar.gz", "red.tar.gz"]
    assert seen["answers"] == ["red hello", "blue hello", "red hello"]
    assert seen["through"] == "<hello>"


def test_v3_resources(penstock: Penstock, run_program: RunProgram) -> None:
    seen = run_program("sdk-v3", "sdk_v3_resources.py", timeout_s=400)
    assert seen["status"] == "InService"
    assert tgi_events(seen["parts"])[-1]["generated_text"] == seen["whole"][0]["generated_text"]
    assert "v3-resources" not in names(penstock)


def test_v3_inference_components(penstock: Penstock, run_program: RunProgram) -> None:
    seen = run_program("sdk-v3", "sdk_v3_inference_components.py", timeout_s=400)
    first, second = "v3-components-model", "v3-components-image"
    assert seen["heard"] == {first: "of a model", second: "of an image"}
    assert seen["by_the_resource"] == "of an image"
    assert seen["scaled"] == 2
    assert seen["updated"] == "of a model"
    assert seen["listed"] == sorted((first, second))
    assert "v3-components" not in names(penstock)


def test_v2_inference_components(penstock: Penstock, run_program: RunProgram) -> None:
    seen = run_program("sdk-v2", "sdk_v2_inference_components.py", timeout_s=400, SAGEMAKER_SUPPRESS_V2_WARNING="1")
    assert seen["based"] is True
    assert seen["listed"] == [seen["component"]]
    assert seen["heard"] == "hello"
    assert seen["endpoint"] not in names(penstock)


def test_v3_model_builder(penstock: Penstock, run_program: RunProgram) -> None:
    seen = run_program("sdk-v3", "sdk_v3_model_builder.py", timeout_s=400)
    assert seen["endpoint"] == "v3-model-builder"
    assert tgi_events(seen["parts"])[-1]["generated_text"] == seen["whole"][0]["generated_text"]
