"""CreateEndpoint, DescribeEndpoint, ListEndpoints, UpdateEndpoint, UpdateEndpointWeightsAndCapacities, DeleteEndpoint."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

from penstock.control.fleet import Endpoint, Fleet, ProductionVariant
from penstock.control.lifecycle import Status, Trigger, asked
from penstock.control.sagemaker import endpoint_config, paging, tags
from penstock.control.sagemaker.context import Context
from penstock.control.sagemaker.names import ENDPOINT
from penstock.control.service import Caller
from penstock.control.store import AlreadyExists, Transaction
from penstock.errors import AwsError, ValidationException


async def create(context: Context, caller: Caller, params: dict[str, Any]) -> dict[str, Any]:
    """https://docs.aws.amazon.com/sagemaker/latest/APIReference/API_CreateEndpoint.html"""
    name: str = params["EndpointName"]
    arn, now = ENDPOINT.arn(caller, name), context.now()
    _check_deployment(params.get("DeploymentConfig", {}))
    given = tags.read(params.get("Tags", []))

    def work(t: Transaction) -> None:
        if t.endpoint(arn) is not None:
            raise ENDPOINT.taken(arn)
        fleet = endpoint_config.fleet(t, caller, params["EndpointConfigName"], generation=1)
        check_limit(context, t, fleet.variants)
        made = Endpoint(arn, context.new_id(), caller.account, caller.region, name, Status.CREATING, fleet, now, now)
        try:
            t.add_endpoint(made)
        except AlreadyExists:
            raise ENDPOINT.taken(arn) from None
        t.write_tags(arn, given)

    await context.store.run(work)
    context.poke()
    return {"EndpointArn": arn}


async def describe(context: Context, caller: Caller, params: dict[str, Any]) -> dict[str, Any]:
    """https://docs.aws.amazon.com/sagemaker/latest/APIReference/API_DescribeEndpoint.html"""
    found = await context.store.run(lambda t: find(t, caller, params["EndpointName"]))
    serving = context.serving(found.id)
    return {
        "EndpointName": found.name,
        "EndpointArn": found.arn,
        "EndpointConfigName": found.fleet.config,
        "ProductionVariants": [_show(found, variant, serving) for variant in found.fleet.variants],
        "AsyncInferenceConfig": found.fleet.asynchronous or None,
        "EndpointStatus": found.status.value,
        "FailureReason": found.failure_reason or None,
        "CreationTime": found.created_at,
        "LastModifiedTime": found.modified_at,
    }


async def list_(context: Context, caller: Caller, params: dict[str, Any]) -> dict[str, Any]:
    """https://docs.aws.amazon.com/sagemaker/latest/APIReference/API_ListEndpoints.html"""
    found = await context.store.run(lambda t: t.endpoints(caller.account, caller.region))
    listed = (paging.Listed(e, e.name, e.created_at, e.modified_at, e.status.value) for e in found)
    endpoints, token = paging.page(params, listed)
    shown = [
        {
            "EndpointName": e.name,
            "EndpointArn": e.arn,
            "CreationTime": e.created_at,
            "LastModifiedTime": e.modified_at,
            "EndpointStatus": e.status.value,
        }
        for e in endpoints
    ]
    return {"Endpoints": shown, "NextToken": token}


async def update(context: Context, caller: Caller, params: dict[str, Any]) -> dict[str, Any]:
    """https://docs.aws.amazon.com/sagemaker/latest/APIReference/API_UpdateEndpoint.html"""
    _check_deployment(params.get("DeploymentConfig", {}))
    excluded = {p["VariantPropertyType"] for p in params.get("ExcludeRetainedVariantProperties", [])}
    retain = params.get("RetainAllVariantProperties", False)

    def work(t: Transaction) -> str:
        found = find(t, caller, params["EndpointName"])
        status = asked(found.status, Trigger.UPDATE, found.arn)
        # Revisions rise with every write, so that no two fleets of an endpoint ever share a generation.
        fleet = endpoint_config.fleet(t, caller, params["EndpointConfigName"], generation=found.revision + 2)
        if retain:
            fleet = replace(fleet, variants=tuple(_retained(v, found.fleet, excluded) for v in fleet.variants))
        _check_components(t, found, fleet)
        check_limit(context, t, fleet.variants)
        t.write_endpoint(replace(found, status=status, target=fleet, failure_reason="", modified_at=context.now()))
        return found.arn

    arn = await context.store.run(work)
    context.poke()
    return {"EndpointArn": arn}


async def update_weights(context: Context, caller: Caller, params: dict[str, Any]) -> dict[str, Any]:
    """https://docs.aws.amazon.com/sagemaker/latest/APIReference/API_UpdateEndpointWeightsAndCapacities.html"""

    def work(t: Transaction) -> str:
        found = find(t, caller, params["EndpointName"])
        status = asked(found.status, Trigger.SCALE, found.arn)
        variants = {variant.name: variant for variant in found.fleet.variants}
        for wish in params["DesiredWeightsAndCapacities"]:
            variant = variants.get(wish["VariantName"])
            if variant is None:
                raise ValidationException(f'The endpoint "{found.arn}" has no variant "{wish["VariantName"]}".')
            variants[variant.name] = _wished(variant, wish)
        target = replace(found.fleet, variants=tuple(variants.values()))
        grown = [replace(v, count=v.count - _count(found.fleet, v.name)) for v in target.variants]
        check_limit(context, t, [v for v in grown if v.count > 0])
        t.write_endpoint(replace(found, status=status, target=target, failure_reason="", modified_at=context.now()))
        return found.arn

    arn = await context.store.run(work)
    context.poke()
    return {"EndpointArn": arn}


async def delete(context: Context, caller: Caller, params: dict[str, Any]) -> dict[str, Any]:
    """https://docs.aws.amazon.com/sagemaker/latest/APIReference/API_DeleteEndpoint.html"""

    def work(t: Transaction) -> None:
        found = find(t, caller, params["EndpointName"])
        status = asked(found.status, Trigger.DELETE, found.arn)
        if components := t.components_of(found):
            names = ", ".join(sorted(one.name for one in components))
            raise ValidationException(
                f'Cannot delete endpoint "{found.arn}" while it has inference components: {names}. Delete them first.'
            )
        if status is not found.status:
            t.write_endpoint(replace(found, status=status, target=None, modified_at=context.now()))

    await context.store.run(work)
    context.poke()
    return {}


def find(t: Transaction, caller: Caller, name: str) -> Endpoint:
    """Raises ValidationException where there is no such Endpoint."""
    arn = ENDPOINT.arn(caller, name)
    if (found := t.endpoint(arn)) is None:
        raise ENDPOINT.missing(arn)
    return found


def _show(endpoint: Endpoint, variant: ProductionVariant, serving: Mapping[str, int]) -> dict[str, Any]:
    desired = (endpoint.target.variant(variant.name) if endpoint.target else None) or variant
    shown: dict[str, Any] = {
        "VariantName": variant.name,
        "CurrentWeight": variant.weight,
        "DesiredWeight": desired.weight,
        "CurrentInstanceCount": serving.get(variant.name, 0) if variant.image else variant.count,
        "DesiredInstanceCount": desired.count,
    }
    if variant.image:
        images = [container.image for container in variant.containers] or [variant.image]
        shown["DeployedImages"] = [deployed_image(image, endpoint.created_at) for image in images]
    if endpoint.status in (Status.CREATING, Status.UPDATING, Status.DELETING):
        shown["VariantStatus"] = [{"Status": endpoint.status.value, "StartTime": endpoint.modified_at}]
    return shown


def deployed_image(image: str, at: float) -> dict[str, Any]:
    """AWS's DeployedImage: nothing is resolved here."""
    return {"SpecifiedImage": image, "ResolvedImage": image, "ResolutionTime": at}


def _check_components(t: Transaction, endpoint: Endpoint, fleet: Fleet) -> None:
    """Raises ValidationException where `fleet` has no place for a component that lives on the endpoint."""
    for one in t.components_of(endpoint):
        assert one.host is not None
        variant = fleet.variant(one.host.variant)
        if variant is None or variant.image:
            raise ValidationException(
                f'Cannot update endpoint "{endpoint.arn}": the inference component {one.name} is on its variant '
                f"{one.host.variant}, which the endpoint configuration {fleet.config} does not keep."
            )


def _retained(variant: ProductionVariant, old: Fleet, excluded: Iterable[str]) -> ProductionVariant:
    before = old.variant(variant.name)
    if before is None:
        return variant
    if "DesiredInstanceCount" not in excluded:
        variant = replace(variant, count=before.count)
    if "DesiredWeight" not in excluded:
        variant = replace(variant, weight=before.weight)
    return variant


def _wished(variant: ProductionVariant, wish: Mapping[str, Any]) -> ProductionVariant:
    if "ServerlessUpdateConfig" in wish:
        raise ValidationException("ServerlessUpdateConfig: Penstock does not support it; update the endpoint instead.")
    count = wish.get("DesiredInstanceCount", variant.count)
    if count < 1:
        raise ValidationException(f"Variant {variant.name}: DesiredInstanceCount must be at least 1.")
    return replace(variant, count=count, weight=wish.get("DesiredWeight", variant.weight))


def _count(fleet: Fleet, name: str) -> int:
    variant = fleet.variant(name)
    return variant.count if variant else 0


def check_limit(context: Context, t: Transaction, more: Iterable[ProductionVariant]) -> None:
    """Raises ResourceLimitExceeded when the instances of `more` are too many for this machine's settings."""
    used = sum(endpoint.instances() for endpoint in t.world().endpoints)
    delta, limit = sum(variant.replicas for variant in more), context.instance_limit
    if used + delta > limit:
        raise AwsError(
            "ResourceLimitExceeded",
            f"The account-level service limit 'instances for endpoint usage' is {limit} Instances, with current utilization of "
            f"{used} Instances and a request delta of {delta} Instances. Raise PENSTOCK_INSTANCE_LIMIT to allow more.",
        )


def _check_deployment(config: Mapping[str, Any]) -> None:
    """Raises ValidationException on what a deployment here does not do: it goes all at once, and rolls back when it can't start."""
    routing = config.get("BlueGreenUpdatePolicy", {}).get("TrafficRoutingConfiguration", {})
    if routing.get("Type", "ALL_AT_ONCE") != "ALL_AT_ONCE":
        raise ValidationException("DeploymentConfig: Penstock shifts traffic ALL_AT_ONCE.")
    if "RollingUpdatePolicy" in config:
        raise ValidationException("DeploymentConfig: Penstock does not support rolling updates; it shifts ALL_AT_ONCE.")
    if config.get("AutoRollbackConfiguration", {}).get("Alarms"):
        raise ValidationException("DeploymentConfig: Penstock does not support alarms.")
