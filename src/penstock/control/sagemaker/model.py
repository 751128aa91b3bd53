"""CreateModel, DescribeModel, ListModels, DeleteModel."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Mapping
from typing import Any

from penstock.control.sagemaker import paging, several, tags
from penstock.control.sagemaker.context import Context
from penstock.control.sagemaker.names import MODEL
from penstock.control.sagemaker.refusals import refuse
from penstock.control.service import Caller
from penstock.control.store import AlreadyExists, Resource, Transaction
from penstock.errors import ValidationException
from penstock.placement.base import ModelData, ObjectReader

LOOK_DEADLINE_S = 30.0
_S3 = re.compile(r"s3://([^/]+)/?(.*)", re.DOTALL)
_REFUSED = {
    "ModelPackageName": "model packages; name an Image",
    "InferenceSpecificationName": "model packages; name an Image",
    "AdditionalModelDataSources": "additional model data sources",
}


async def create(context: Context, caller: Caller, params: dict[str, Any]) -> dict[str, Any]:
    """https://docs.aws.amazon.com/sagemaker/latest/APIReference/API_CreateModel.html"""
    arn = MODEL.arn(caller, params["ModelName"])
    for definition in containers(params):
        data = model_data(definition)
        if data is not None and data.kind != "prefix":
            await _must_be_there(context.objects, data.url)
    given = tags.read(params.pop("Tags", []))

    def work(t: Transaction) -> None:
        try:
            t.add(MODEL.table, Resource(arn, caller.account, caller.region, params["ModelName"], context.now(), params))
        except AlreadyExists:
            raise MODEL.taken(arn) from None
        t.write_tags(arn, given)

    await context.store.run(work)
    return {"ModelArn": arn}


async def describe(context: Context, caller: Caller, params: dict[str, Any]) -> dict[str, Any]:
    """https://docs.aws.amazon.com/sagemaker/latest/APIReference/API_DescribeModel.html"""
    found = await context.store.run(lambda t: find(t, caller, params["ModelName"]))
    shown = {"EnableNetworkIsolation": False, **found.request, "ModelArn": found.arn, "CreationTime": found.created_at}
    if primary := shown.get("PrimaryContainer"):
        shown["PrimaryContainer"] = {"Mode": "SingleModel", **primary}
    return shown


async def list_(context: Context, caller: Caller, params: dict[str, Any]) -> dict[str, Any]:
    """https://docs.aws.amazon.com/sagemaker/latest/APIReference/API_ListModels.html"""
    found = await context.store.run(lambda t: t.all(MODEL.table, caller.account, caller.region))
    models, token = paging.page(params, (paging.Listed(m, m.name, m.created_at) for m in found))
    shown = [{"ModelName": m.name, "ModelArn": m.arn, "CreationTime": m.created_at} for m in models]
    return {"Models": shown, "NextToken": token}


async def delete(context: Context, caller: Caller, params: dict[str, Any]) -> dict[str, Any]:
    """https://docs.aws.amazon.com/sagemaker/latest/APIReference/API_DeleteModel.html"""
    arn = MODEL.arn(caller, params["ModelName"])
    if not await context.store.run(lambda t: t.remove(MODEL.table, arn)):
        raise MODEL.missing(arn)
    return {}


def find(t: Transaction, caller: Caller, name: str) -> Resource:
    """Raises ValidationException where there is no such Model."""
    arn = MODEL.arn(caller, name)
    if (found := t.get(MODEL.table, arn)) is None:
        raise MODEL.missing(arn)
    return found


def container(request: Mapping[str, Any]) -> Mapping[str, Any]:
    """The one container of a CreateModel request, for what can run no more, and no further models. Raises ValidationException."""
    only, *more = containers(request)
    if more:
        raise ValidationException("Containers: give one container; several serve a variant only.")
    if several.is_multi_model(only):
        raise ValidationException("Mode: a MultiModel container serves a variant only.")
    return only


def containers(request: Mapping[str, Any]) -> tuple[Mapping[str, Any], ...]:
    """The containers that a CreateModel request asks for. Raises ValidationException where Penstock can't run one, or not together."""
    primary, listed = request.get("PrimaryContainer"), request.get("Containers", [])
    if primary and listed:
        raise ValidationException("Give either PrimaryContainer or Containers, not both.")
    chosen: tuple[Mapping[str, Any], ...] = tuple(listed)
    if primary:  # AWS ignores a hostname here
        chosen = ({name: value for name, value in primary.items() if name != "ContainerHostname"},)
    if not chosen:
        raise ValidationException("Give the model a container: PrimaryContainer, or one in Containers.")
    for definition in chosen:
        refuse(definition, _REFUSED)
        if not definition.get("Image"):
            raise ValidationException("The container needs an Image.")
        several.check_mode(definition)
    if len(chosen) > 1:
        several.check_together(request, chosen)
    return chosen


def model_data(container: Mapping[str, Any]) -> ModelData | None:
    """Where a container's artifact lies; None where it has none, or gets its models one by one. Raises ValidationException."""
    if several.is_multi_model(container):
        return None
    url: str = container.get("ModelDataUrl", "")
    source = container.get("ModelDataSource", {}).get("S3DataSource")
    if url and source:
        raise ValidationException("Give either ModelDataUrl or ModelDataSource, not both.")
    if url:
        _split(url)
        # AWS takes a tar.gz here. The SDK's version 3 passes a prefix, empty as often as not.
        return ModelData(url, "prefix" if url.endswith("/") else "tar.gz")
    if not source:
        return None
    refuse(source, {"ModelAccessConfig": "model access configurations", "HubAccessConfig": "private hubs"})
    _split(source["S3Uri"])
    match source["S3DataType"], source["CompressionType"]:
        case "S3Object", "Gzip":
            return ModelData(source["S3Uri"], "tar.gz")
        case "S3Object", "None":
            return ModelData(source["S3Uri"], "object")
        case "S3Prefix", "None":
            return ModelData(source["S3Uri"], "prefix")
    raise ValidationException("S3DataType S3Prefix needs CompressionType None: a compressed model is one S3Object.")


def _split(url: str) -> tuple[str, str]:
    if not (match := _S3.fullmatch(url)):
        raise ValidationException(f"Model data must lie at an s3:// URL, not at {url}")
    return match[1], match[2]


async def _must_be_there(objects: ObjectReader, url: str) -> None:
    bucket, key = _split(url)

    def look() -> bool:
        try:
            objects.open(bucket, key).close()
        except (FileNotFoundError, IsADirectoryError):
            return False
        return True

    async with asyncio.timeout(LOOK_DEADLINE_S):
        found = await asyncio.to_thread(look)
    if not found:
        raise ValidationException(f"Could not find model data at {url}")
