"""Models with more to them than one container and one artifact: multi-model containers, and several containers together.

Owns what CreateModel says of these, and its checks. Pure. AWS's pages: "Multi-model endpoints", "Multi-container endpoints",
"Inference pipelines".
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from penstock import images
from penstock.errors import ValidationException
from penstock.routes import MultiModel

ONE_MODEL_ONLY = frozenset({"tgi", "replay"})
"""Built-in servers without the API that loads models one by one."""


def is_multi_model(definition: Mapping[str, Any]) -> bool:
    return bool(definition.get("Mode") == "MultiModel")


def is_serial(request: Mapping[str, Any]) -> bool:
    """Of a CreateModel request with several containers; AWS's default."""
    return bool(request.get("InferenceExecutionConfig", {}).get("Mode", "Serial") == "Serial")


def check_mode(definition: Mapping[str, Any]) -> None:
    """Raises ValidationException where a container's Mode does not fit the rest of it."""
    if not is_multi_model(definition):
        if definition.get("MultiModelConfig"):
            raise ValidationException("MultiModelConfig needs the Mode MultiModel.")
        return
    multi_model(definition)
    image = definition["Image"]
    if images.resolve(image).server in ONE_MODEL_ONLY:
        raise ValidationException(
            f"Your Ecr Image {image} does not contain required com.amazonaws.sagemaker.capabilities.multi-models=true "
            "Docker label(s)."
        )


def multi_model(definition: Mapping[str, Any]) -> MultiModel | None:
    """Where the models of a multi-model container lie; None for any other. Raises ValidationException."""
    if not is_multi_model(definition):
        return None
    url: str = definition.get("ModelDataUrl", "")
    source = definition.get("ModelDataSource", {}).get("S3DataSource")
    if bool(url) == bool(source):
        raise ValidationException("A MultiModel container needs either ModelDataUrl or ModelDataSource.")
    if source and source["S3DataType"] != "S3Prefix":
        raise ValidationException("S3DataType: the models of a MultiModel container lie below an S3Prefix.")
    url = url or source["S3Uri"]
    if not re.match(r"s3://[^/]+(/|\Z)", url):
        raise ValidationException(f"Model data must lie at an s3:// URL, not at {url}")
    if url.endswith(".tar.gz"):
        raise ValidationException(
            f"ModelDataUrl: a MultiModel container's must be the prefix of its models, not one of them: {url}"
        )
    cached = definition.get("MultiModelConfig", {}).get("ModelCacheSetting", "Enabled") == "Enabled"
    return MultiModel(url, cached)


def check_together(request: Mapping[str, Any], definitions: Sequence[Mapping[str, Any]]) -> None:
    """Raises ValidationException where these containers can't serve together."""
    if any(map(is_multi_model, definitions)):
        raise ValidationException("Mode: Penstock does not support a MultiModel container together with others.")
    given = [one["ContainerHostname"] for one in definitions if one.get("ContainerHostname")]
    if len(given) < len(definitions) and (given or not is_serial(request)):
        raise ValidationException("Containers: give every container a ContainerHostname.")
    if len(set(given)) < len(given):
        raise ValidationException(f"Containers: every ContainerHostname must be unique, not {', '.join(given)}.")


def names(definitions: Sequence[Mapping[str, Any]]) -> list[str]:
    """What containers are called: by their hostname, else as AWS's logs call them ("Inference pipeline logs and metrics")."""
    return [one.get("ContainerHostname") or f"container-{number}" for number, one in enumerate(definitions, 1)]


def check_use(request: Mapping[str, Any], variant: Mapping[str, Any], *, asynchronous: bool) -> None:
    """Raises ValidationException where a variant can't use the Model of that CreateModel request, as on AWS."""
    definitions = request.get("Containers") or [request["PrimaryContainer"]]
    what = "a MultiModel container" if any(map(is_multi_model, definitions)) else "several containers"
    if len(definitions) < 2 and not any(map(is_multi_model, definitions)):
        return
    if asynchronous:
        raise ValidationException(f"AsyncInferenceConfig: a Model of {what} can't be invoked asynchronously.")
    if "ServerlessConfig" in variant:
        raise ValidationException(f"ServerlessConfig: a Model of {what} needs instances.")
