"""CreateEndpointConfig, DescribeEndpointConfig, ListEndpointConfigs, DeleteEndpointConfig; and the fleet that a config asks for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from penstock.control.fleet import Container, Fleet, ProductionVariant
from penstock.control.sagemaker import model, paging, several, tags
from penstock.control.sagemaker.context import Context
from penstock.control.sagemaker.names import ENDPOINT_CONFIG
from penstock.control.sagemaker.refusals import refuse
from penstock.control.service import Caller
from penstock.control.store import AlreadyExists, Resource, Transaction
from penstock.errors import ValidationException

STARTUP_TIMEOUT_S = 480.0
"""AWS: /ping must answer 200 within 8 minutes of the start."""
DOWNLOAD_TIMEOUT_S = 3600.0
_NOTHING: Mapping[str, Any] = {"Image": ""}
"""The container of a variant that hosts inference components."""
_REFUSED = {
    "ShadowProductionVariants": "shadow variants",
    "ExplainerConfig": "explainers",
    "CrossRegionTrafficConfig": "traffic between regions",
}
_REFUSED_OF_VARIANT = {
    "InstancePools": "instance pools; name an InstanceType",
    "CoreDumpConfig": "core dumps",
}


async def create(context: Context, caller: Caller, params: dict[str, Any]) -> dict[str, Any]:
    """https://docs.aws.amazon.com/sagemaker/latest/APIReference/API_CreateEndpointConfig.html"""
    name: str = params["EndpointConfigName"]
    arn = ENDPOINT_CONFIG.arn(caller, name)
    refuse(params, _REFUSED)
    if params.get("DataCaptureConfig", {}).get("EnableCapture"):
        raise ValidationException("DataCaptureConfig: Penstock does not support data capture.")
    for variant in params["ProductionVariants"]:
        _check(variant)
    _check_hosting(params)
    _check_asynchronous(params.get("AsyncInferenceConfig"))
    names = [variant["VariantName"] for variant in params["ProductionVariants"]]
    if len(set(names)) < len(names):
        raise ValidationException(f"Production variant names must be unique, not {', '.join(names)}.")
    given = tags.read(params.pop("Tags", []))

    def work(t: Transaction) -> None:
        for variant in params["ProductionVariants"]:
            if "ModelName" in variant:
                found = model.find(t, caller, variant["ModelName"])
                several.check_use(found.request, variant, asynchronous="AsyncInferenceConfig" in params)
        try:
            t.add(ENDPOINT_CONFIG.table, Resource(arn, caller.account, caller.region, name, context.now(), params))
        except AlreadyExists:
            raise ENDPOINT_CONFIG.taken(arn) from None
        t.write_tags(arn, given)

    await context.store.run(work)
    return {"EndpointConfigArn": arn}


async def describe(context: Context, caller: Caller, params: dict[str, Any]) -> dict[str, Any]:
    """https://docs.aws.amazon.com/sagemaker/latest/APIReference/API_DescribeEndpointConfig.html"""
    arn = ENDPOINT_CONFIG.arn(caller, params["EndpointConfigName"])
    found = await context.store.run(lambda t: t.get(ENDPOINT_CONFIG.table, arn))
    if found is None:
        raise ENDPOINT_CONFIG.missing(arn)
    variants = [{"InitialVariantWeight": 1.0, **variant} for variant in found.request["ProductionVariants"]]
    return {
        "EnableNetworkIsolation": False,
        **found.request,
        "ProductionVariants": variants,
        "EndpointConfigArn": arn,
        "CreationTime": found.created_at,
    }


async def list_(context: Context, caller: Caller, params: dict[str, Any]) -> dict[str, Any]:
    """https://docs.aws.amazon.com/sagemaker/latest/APIReference/API_ListEndpointConfigs.html"""
    found = await context.store.run(lambda t: t.all(ENDPOINT_CONFIG.table, caller.account, caller.region))
    configs, token = paging.page(params, (paging.Listed(c, c.name, c.created_at) for c in found))
    shown = [{"EndpointConfigName": c.name, "EndpointConfigArn": c.arn, "CreationTime": c.created_at} for c in configs]
    return {"EndpointConfigs": shown, "NextToken": token}


async def delete(context: Context, caller: Caller, params: dict[str, Any]) -> dict[str, Any]:
    """https://docs.aws.amazon.com/sagemaker/latest/APIReference/API_DeleteEndpointConfig.html"""
    arn = ENDPOINT_CONFIG.arn(caller, params["EndpointConfigName"])
    if not await context.store.run(lambda t: t.remove(ENDPOINT_CONFIG.table, arn)):
        raise ENDPOINT_CONFIG.missing(arn)
    return {}


def fleet(t: Transaction, caller: Caller, name: str, generation: int) -> Fleet:
    """The fleet that the EndpointConfig `name` asks for now, its Models read into it. Raises ValidationException."""
    arn = ENDPOINT_CONFIG.arn(caller, name)
    config = t.get(ENDPOINT_CONFIG.table, arn)
    if config is None:
        raise ENDPOINT_CONFIG.missing(arn)
    variants = []
    for variant in config.request["ProductionVariants"]:
        if "ModelName" not in variant:
            variants.append(plan(variant, _NOTHING))
            continue
        found = model.find(t, caller, variant["ModelName"])
        several.check_use(found.request, variant, asynchronous="AsyncInferenceConfig" in config.request)
        variants.append(plan(variant, *model.containers(found.request), serial=several.is_serial(found.request)))
    return Fleet(generation, config.name, tuple(variants), config.request.get("AsyncInferenceConfig", {}))


def plan(
    variant: Mapping[str, Any], container: Mapping[str, Any], *more: Mapping[str, Any], serial: bool = False
) -> ProductionVariant:
    """What runs for a ProductionVariant, by AWS's names of its members and its containers'. Raises ValidationException."""
    serverless = variant.get("ServerlessConfig")
    prefix = variant.get("RoutingConfig", {}).get("PrefixAwareRoutingConfig", {})
    return ProductionVariant(
        name=variant["VariantName"],
        image=container["Image"],
        count=1 if serverless else variant["InitialInstanceCount"],
        weight=variant.get("InitialVariantWeight", 1.0),
        environment=container.get("Environment", {}),
        model_data=model.model_data(container),
        container=container.get("ContainerHostname", "primary"),
        routing=variant.get("RoutingConfig", {}).get("RoutingStrategy", "RANDOM"),
        max_concurrency=serverless["MaxConcurrency"] if serverless else 0,
        prefix_length=prefix.get("PrefixLength", 0),
        concurrency_threshold=prefix.get("ConcurrencyThreshold", 0),
        startup_timeout_s=variant.get("ContainerStartupHealthCheckTimeoutInSeconds", STARTUP_TIMEOUT_S),
        download_timeout_s=variant.get("ModelDataDownloadTimeoutInSeconds", DOWNLOAD_TIMEOUT_S),
        multi_model=several.multi_model(container),
        containers=_together((container, *more)) if more else (),
        serial=bool(more) and serial,
    )


def _together(definitions: Sequence[Mapping[str, Any]]) -> tuple[Container, ...]:
    return tuple(
        Container(name, one["Image"], one.get("Environment", {}), model.model_data(one))
        for name, one in zip(several.names(definitions), definitions, strict=True)
    )


def _check_asynchronous(config: Mapping[str, Any] | None) -> None:
    if config is None:
        return
    output = config["OutputConfig"]
    if any(output.get("NotificationConfig", {}).values()):
        raise ValidationException("NotificationConfig: Penstock does not support SNS topics.")
    if "S3OutputPath" not in output:
        raise ValidationException("OutputConfig: Penstock needs an S3OutputPath.")
    for member in ("S3OutputPath", "S3FailurePath"):
        if member in output and not output[member].removeprefix("s3://").strip("/"):
            raise ValidationException(f"{member} must name a bucket, not {output[member]!r}.")
        if member in output and not output[member].startswith("s3://"):
            raise ValidationException(f"{member} must be an s3:// URI, not {output[member]!r}.")


def _check_hosting(params: Mapping[str, Any]) -> None:
    """Variants without a Model host inference components, all of them or none. Raises ValidationException."""
    hosting = [v for v in params["ProductionVariants"] if "ModelName" not in v]
    if not hosting:
        return
    if len(hosting) < len(params["ProductionVariants"]):
        raise ValidationException("ProductionVariants: either all of them have a ModelName, or none.")
    if "ExecutionRoleArn" not in params:
        raise ValidationException("ExecutionRoleArn is required where the production variants have no ModelName.")
    if "AsyncInferenceConfig" in params:
        raise ValidationException("AsyncInferenceConfig: inference components take no asynchronous requests.")


def _check(variant: Mapping[str, Any]) -> None:
    name = variant["VariantName"]
    refuse(variant, _REFUSED_OF_VARIANT)
    if "ModelName" not in variant and "ServerlessConfig" in variant:
        raise ValidationException(f"Variant {name}: a serverless variant needs a ModelName.")
    if "ModelName" in variant and "ManagedInstanceScaling" in variant:
        raise ValidationException("ManagedInstanceScaling is only supported for inference component endpoints.")
    routing = variant.get("RoutingConfig", {})
    if routing.get("RoutingStrategy") == "KV_AWARE":
        raise ValidationException("RoutingStrategy: Penstock does not support KV_AWARE.")
    prefix = routing.get("PrefixAwareRoutingConfig")
    if (prefix is not None) != (routing.get("RoutingStrategy") == "PREFIX_AWARE"):
        raise ValidationException(f"Variant {name}: PREFIX_AWARE and PrefixAwareRoutingConfig go together.")
    if prefix is not None and not {"PrefixLength", "ConcurrencyThreshold"} <= prefix.keys():
        raise ValidationException(f"Variant {name}: PREFIX_AWARE needs a PrefixLength and a ConcurrencyThreshold.")
    if "ServerlessConfig" in variant:
        if "InstanceType" in variant or "InitialInstanceCount" in variant:
            raise ValidationException(f"Variant {name}: give either ServerlessConfig or instances, not both.")
    elif "InstanceType" not in variant or variant.get("InitialInstanceCount", 0) < 1:
        raise ValidationException(f"Variant {name}: give InstanceType, and InitialInstanceCount of at least 1.")
