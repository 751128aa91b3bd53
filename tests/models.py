"""Multi-model endpoints for tests: artifacts whose scripts say what a model does, and what its containers say of them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from tests.penstock_process import ROLE, Penstock
from tests.replicas import archive

BUCKET = "models"
PREFIX = "m"


def model(steps: list[Any] | None = None, **more: Any) -> bytes:
    """A model's artifact: it answers by `steps`, or with the request's body."""
    script = {"steps": steps or [{"echo": "body"}], **more}
    return archive(("script.json", json.dumps(script).encode()))


def put_models(penstock: Penstock, models: Mapping[str, bytes]) -> None:
    """Models by name, less `.tar.gz`, below the prefix of `deploy_models`."""
    s3 = penstock.client("s3")
    if BUCKET not in [bucket["Name"] for bucket in s3.list_buckets()["Buckets"]]:
        s3.create_bucket(Bucket=BUCKET)
    for name, body in models.items():
        s3.put_object(Bucket=BUCKET, Key=f"{PREFIX}/{name}.tar.gz", Body=body)


def deploy_models(
    penstock: Penstock,
    name: str = "mm",
    *,
    count: int = 1,
    script: Mapping[str, Any] | None = None,
    **container: Any,
) -> None:
    """A multi-model endpoint of the scripted server, InService."""
    client = penstock.client()
    primary = {
        "Image": "penstock/scripted",
        "Mode": "MultiModel",
        "ModelDataUrl": f"s3://{BUCKET}/{PREFIX}/",
        "Environment": {"PENSTOCK_SCRIPT": json.dumps(script or {})},
    }
    client.create_model(ModelName=name, ExecutionRoleArn=ROLE, PrimaryContainer=primary | container)
    variant = {"VariantName": "v", "ModelName": name, "InstanceType": "ml.m5.large", "InitialInstanceCount": count}
    client.create_endpoint_config(EndpointConfigName=name, ProductionVariants=[variant])
    client.create_endpoint(EndpointName=name, EndpointConfigName=name)
    penstock.until_status("InService", name)


def ask(penstock: Penstock, model: str | None, body: bytes = b"hello", *, name: str = "mm", **more: Any) -> bytes:
    """InvokeEndpoint's answer. `model` is less `.tar.gz`."""
    named = {} if model is None else {"TargetModel": f"{model}.tar.gz"}
    runtime = penstock.client("sagemaker-runtime")
    return bytes(runtime.invoke_endpoint(EndpointName=name, Body=body, **named, **more)["Body"].read())


def said(penstock: Penstock, word: str, name: str = "mm") -> list[str]:
    """What the containers logged of a word ("loaded", "unloaded"): the opaque names of the models, in order."""
    logs = penstock.client("logs")
    events = logs.filter_log_events(logGroupName=f"/aws/sagemaker/Endpoints/{name}")["events"]
    lines = [event["message"].split() for event in events]
    return [line[3] for line in lines if line[1:3] == ["scripted", word] and len(line) == 4]
