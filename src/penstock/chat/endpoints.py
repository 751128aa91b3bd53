"""Which endpoints there are, and what stands behind one.

Owns the calls to SageMaker's control plane: ListEndpoints and the Describe calls. It must never know the page.
https://docs.aws.amazon.com/sagemaker/latest/APIReference/API_ListEndpoints.html
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Any

import boto3
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError

from penstock.chat.formats import Format, format_of
from penstock.chat.problems import Problem, problem_of

MOST_ENDPOINTS = 500
"""How many names the picker holds; an account's newest come first."""

_TOY = (
    "penstock/falcon",
    "demo-falcon",
)  # the bundled model's id, and the artifact that `penstock demo` uploads for LMI

# The page waits for these calls, so they give up soon.
_SOON = Config(connect_timeout=5, read_timeout=15, retries={"total_max_attempts": 2})


@dataclass(frozen=True, slots=True)
class Listing:
    """The names of the endpoints that are InService, newest first, and why there may be none."""

    names: tuple[str, ...]
    problem: Problem | None = None


@dataclass(frozen=True, slots=True)
class Target:
    """What an endpoint runs: the request format, the image it was told from, the inference component to name if any.

    `toy`: it is the small model that comes with Penstock, whose answers prove the pipes and nothing else.
    """

    format: Format
    image: str | None = None
    component: str | None = None
    toy: bool = False


def session() -> boto3.Session:
    """A boto3 session from the usual environment; boto3 itself does not look at AWS_REGION."""
    found = boto3.Session()
    if found.region_name is None and (region := os.environ.get("AWS_REGION")):
        found = boto3.Session(region_name=region)
    return found


def list_endpoints() -> Listing:
    """The endpoints one may talk to. Never raises: what went wrong is in the listing."""
    try:
        sagemaker = session().client("sagemaker", config=_SOON)
        pages = sagemaker.get_paginator("list_endpoints").paginate(
            StatusEquals="InService",
            SortBy="CreationTime",
            SortOrder="Descending",
            PaginationConfig={"MaxItems": MOST_ENDPOINTS, "PageSize": 100},
        )
        return Listing(tuple(found["EndpointName"] for page in pages for found in page["Endpoints"]))
    except (BotoCoreError, ClientError, OSError) as error:
        return Listing((), problem_of(error))


def target_of(endpoint: str) -> Target:
    """What `endpoint` runs, by its first variant's model. The default target where that may not be looked up."""
    try:
        sagemaker = session().client("sagemaker", config=_SOON)
        config = sagemaker.describe_endpoint(EndpointName=endpoint)["EndpointConfigName"]
        variant = sagemaker.describe_endpoint_config(EndpointConfigName=config)["ProductionVariants"][0]
        if name := variant.get("ModelName"):
            return _target(_container(sagemaker.describe_model(ModelName=name)))
        return _component_target(sagemaker, endpoint)
    except (BotoCoreError, ClientError, OSError, LookupError):
        return Target(format_of(None))


def _component_target(sagemaker: Any, endpoint: str) -> Target:
    found = sagemaker.list_inference_components(EndpointNameEquals=endpoint, StatusEquals="InService")
    component = found["InferenceComponents"][0]["InferenceComponentName"]
    described = sagemaker.describe_inference_component(InferenceComponentName=component)["Specification"]
    if name := described.get("ModelName"):
        return _target(_container(sagemaker.describe_model(ModelName=name)), component)
    container = described.get("Container", {})
    image = container.get("DeployedImage", {}).get("SpecifiedImage")
    return _target({"Image": image, "Environment": container.get("Environment", {})}, component)


def _container(model: dict[str, Any]) -> dict[str, Any]:
    container: dict[str, Any] = model.get("PrimaryContainer") or model["Containers"][0]
    return container


def _target(container: dict[str, Any], component: str | None = None) -> Target:
    environment = container.get("Environment") or {}
    named = [
        environment.get("HF_MODEL_ID", ""),
        environment.get("OPTION_MODEL_ID", ""),
        container.get("ModelDataUrl", ""),
    ]
    image = container.get("Image")
    toy = any(mark in str(name) for mark in _TOY for name in named)
    return Target(format_of(image), image, component, toy=toy)
