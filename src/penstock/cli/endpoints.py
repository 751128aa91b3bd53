"""Creating, watching and describing endpoints: what several verbs do through the API, as any client would.

Owns no terminal output: progress goes to a callback.
"""

from __future__ import annotations

import io
import tarfile
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from penstock.cli.server import Server, client

Dialect = Literal["lmi", "tgi", "other"]

RETURN_S = 60.0
"""How long the containers of an endpoint that is InService may take to come back; one that dies again and again never does."""


@dataclass(frozen=True, slots=True)
class Deployment:
    """One endpoint with one variant of one model. `model_data` is `s3://…`; empty for none."""

    name: str
    image: str
    environment: Mapping[str, str] = field(default_factory=dict)
    model_data: str = ""
    instance_type: str = "ml.g5.2xlarge"
    instance_count: int = 1
    startup_timeout_s: int = 900


def upload_artifact(server: Server, name: str, source: Path | Mapping[str, str]) -> str:
    """Put a model artifact into the default bucket and return its `s3://` URL.

    `source` is a `.tar.gz`, a directory (packed under its own name, as the SDK's samples do), or file names to texts.
    """
    s3 = client(server, "s3")
    bucket = f"sagemaker-{server.settings.region}-{server.settings.account}"
    if bucket not in {b["Name"] for b in s3.list_buckets()["Buckets"]}:
        s3.create_bucket(Bucket=bucket)
    key = f"penstock/{name}/model.tar.gz"
    if isinstance(source, Path) and source.is_file():
        s3.upload_file(str(source), bucket, key)
    else:
        with _packed(name, source) as body:
            s3.upload_fileobj(body, bucket, key)
    return f"s3://{bucket}/{key}"


def _packed(name: str, source: Path | Mapping[str, str]) -> io.BufferedRandom:
    import tempfile

    body = tempfile.TemporaryFile()  # noqa: SIM115 - the caller closes it
    with tarfile.open(fileobj=body, mode="w:gz", compresslevel=1) as tar:
        if isinstance(source, Path):
            tar.add(source, arcname=source.resolve().name)
        else:
            for file, text in source.items():
                member = tarfile.TarInfo(f"{name}/{file}")
                member.size, member.mtime = len(text.encode()), int(time.time())
                tar.addfile(member, io.BytesIO(text.encode()))
    body.seek(0)
    return body


def create(server: Server, deployment: Deployment) -> None:
    """CreateModel, CreateEndpointConfig, CreateEndpoint. What was made is removed again if a later call fails."""
    sagemaker = client(server, "sagemaker")
    container: dict[str, Any] = {"Image": deployment.image, "Environment": dict(deployment.environment)}
    if deployment.model_data:
        container["ModelDataUrl"] = deployment.model_data
    undo: list[Callable[[], object]] = []
    name = deployment.name
    try:
        sagemaker.create_model(ModelName=name, PrimaryContainer=container, ExecutionRoleArn=server.settings.role_arn)
        undo.append(lambda: sagemaker.delete_model(ModelName=name))
        variant = {
            "VariantName": "AllTraffic",
            "ModelName": name,
            "InitialInstanceCount": deployment.instance_count,
            "InstanceType": deployment.instance_type,
            "InitialVariantWeight": 1,
            "ContainerStartupHealthCheckTimeoutInSeconds": deployment.startup_timeout_s,
        }
        sagemaker.create_endpoint_config(EndpointConfigName=name, ProductionVariants=[variant])
        undo.append(lambda: sagemaker.delete_endpoint_config(EndpointConfigName=name))
        sagemaker.create_endpoint(EndpointName=name, EndpointConfigName=name)
    except BaseException:
        for step in reversed(undo):
            step()
        raise


def wait(server: Server, name: str, progress: Callable[[str], None], *, deadline_s: float = 3600.0) -> dict[str, Any]:
    """Describe the endpoint until it has left Creating and Updating; `progress` gets each status seen.

    After a restart of Penstock an endpoint is InService, as it was, while its containers start again: those are waited for too, at most
    RETURN_S.
    """
    sagemaker = client(server, "sagemaker")
    begun = time.monotonic()
    while True:
        seen: dict[str, Any] = sagemaker.describe_endpoint(EndpointName=name)
        progress(seen["EndpointStatus"])
        waited = time.monotonic() - begun
        if seen["EndpointStatus"] not in ("Creating", "Updating", "SystemUpdating", "RollingBack"):
            returning = seen["EndpointStatus"] == "InService" and not _serves(seen)
            if not returning or waited > RETURN_S:
                return seen
        if waited > deadline_s:
            return seen
        time.sleep(0.1)


def _serves(seen: dict[str, Any]) -> bool:
    """Whether each variant that shall have instances has one."""
    variants = seen.get("ProductionVariants", [])
    return all(one["CurrentInstanceCount"] or not one["DesiredInstanceCount"] for one in variants)


def remove(server: Server, name: str, *, deadline_s: float = 60.0) -> None:
    """Delete the endpoint, its components, its config and its models, and return when the endpoint is gone."""
    from botocore.exceptions import ClientError

    sagemaker = client(server, "sagemaker")
    config = sagemaker.describe_endpoint(EndpointName=name)["EndpointConfigName"]
    _remove_components(sagemaker, name, deadline_s)
    models: list[str] = []
    try:
        variants = sagemaker.describe_endpoint_config(EndpointConfigName=config)["ProductionVariants"]
        models = [v["ModelName"] for v in variants if "ModelName" in v]
    except ClientError:
        config = ""
    sagemaker.delete_endpoint(EndpointName=name)
    if config:
        sagemaker.delete_endpoint_config(EndpointConfigName=config)
    for model in models:
        try:
            sagemaker.delete_model(ModelName=model)
        except ClientError:
            continue
    end = time.monotonic() + deadline_s
    while time.monotonic() < end:
        try:
            sagemaker.describe_endpoint(EndpointName=name)
        except ClientError:
            return
        time.sleep(0.05)


def component_names(sagemaker: Any, name: str) -> list[str]:
    """The inference components of an endpoint."""
    pages = sagemaker.get_paginator("list_inference_components").paginate(EndpointNameEquals=name, SortBy="Name")
    return [one["InferenceComponentName"] for page in pages for one in page["InferenceComponents"]]


def _remove_components(sagemaker: Any, name: str, deadline_s: float) -> None:
    """Delete an endpoint's components, and return when they are gone: before, the endpoint can't be deleted."""
    from botocore.exceptions import ClientError

    for component in component_names(sagemaker, name):
        with suppress(ClientError):  # gone by itself meanwhile
            sagemaker.delete_inference_component(InferenceComponentName=component)
    end = time.monotonic() + deadline_s
    while component_names(sagemaker, name) and time.monotonic() < end:
        time.sleep(0.05)


def describe(server: Server, name: str) -> dict[str, Any]:
    """The endpoint with what runs on it.

    DescribeEndpoint's members, plus `Models` (a list of DescribeModel's) and `InferenceComponents` (of DescribeInferenceComponent's).
    """
    from botocore.exceptions import ClientError

    sagemaker = client(server, "sagemaker")
    seen: dict[str, Any] = sagemaker.describe_endpoint(EndpointName=name)
    seen.pop("ResponseMetadata", None)
    seen["Models"] = []
    seen["InferenceComponents"] = []
    named: list[str] = []
    for component in component_names(sagemaker, name):
        with suppress(ClientError):  # deleted meanwhile
            described = sagemaker.describe_inference_component(InferenceComponentName=component)
            described.pop("ResponseMetadata", None)
            seen["InferenceComponents"].append(described)
            named.append(described["Specification"].get("ModelName", ""))
    with suppress(ClientError):  # config or model was deleted before its endpoint, which AWS allows
        config = sagemaker.describe_endpoint_config(EndpointConfigName=seen["EndpointConfigName"])
        named += [variant.get("ModelName", "") for variant in config["ProductionVariants"]]
    for model_name in dict.fromkeys(filter(None, named)):
        with suppress(ClientError):
            model = sagemaker.describe_model(ModelName=model_name)
            model.pop("ResponseMetadata", None)
            seen["Models"].append(model)
    return seen


def dialect(described: Mapping[str, Any], component: str | None = None) -> Dialect:
    """Which request format the endpoint's first model, or its `component`, takes, by the image."""
    images = [model.get("PrimaryContainer", {}).get("Image", "") for model in described["Models"]]
    if component:
        named = (one for one in described["InferenceComponents"] if one["InferenceComponentName"] == component)
        images = [image_of(described, one["Specification"]) for one in named]
    for image in images:
        if "djl-inference" in image or "penstock/lmi" in image:
            return "lmi"
        if "tgi" in image:
            return "tgi"
    return "other"


def image_of(described: Mapping[str, Any], specification: Mapping[str, Any]) -> str:
    """What a component of a described endpoint runs; empty where its model is gone."""
    container = specification.get("Container", {})
    if "DeployedImage" in container:
        return str(container["DeployedImage"]["SpecifiedImage"])
    models = (one for one in described["Models"] if one["ModelName"] == specification.get("ModelName"))
    return next((str(one.get("PrimaryContainer", {}).get("Image", "")) for one in models), "")
