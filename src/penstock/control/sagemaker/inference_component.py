"""CreateInferenceComponent, DescribeInferenceComponent, ListInferenceComponents, their two updates and their deletion.

Owns what AWS asks of a component. What becomes of its copies is not its business: a component is an Endpoint with a host, and the
reconciler treats it like any other.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from penstock.control.fleet import Endpoint, Fleet, Host, ProductionVariant
from penstock.control.lifecycle import Status, Trigger, asked
from penstock.control.sagemaker import endpoint, endpoint_config, model, paging, tags
from penstock.control.sagemaker.context import Context
from penstock.control.sagemaker.names import ENDPOINT, INFERENCE_COMPONENT
from penstock.control.sagemaker.refusals import refuse
from penstock.control.service import Caller
from penstock.control.store import AlreadyExists, Transaction
from penstock.errors import ValidationException

_REFUSED = {
    "Specifications": "several Specifications, by instance type; give one Specification",
    "DeploymentConfig": "rolling updates; all new copies are started before the old ones leave",
}
_REFUSED_OF_SPECIFICATION = {"BaseInferenceComponentName": "adapters: a component of its own needs a Model or an Image"}


async def create(context: Context, caller: Caller, params: dict[str, Any]) -> dict[str, Any]:
    """https://docs.aws.amazon.com/sagemaker/latest/APIReference/API_CreateInferenceComponent.html"""
    name: str = params["InferenceComponentName"]
    arn, now = INFERENCE_COMPONENT.arn(caller, name), context.now()
    refuse(params, _REFUSED)
    given = tags.read(params.get("Tags", []))
    copies: int = params.get("RuntimeConfig", {}).get("CopyCount", 1)

    def work(t: Transaction) -> None:
        if t.endpoint(arn) is not None:
            raise INFERENCE_COMPONENT.taken(arn)
        host = _host(t, caller, params)
        fleet = _fleet(t, caller, host.variant, params.get("Specification", {}), copies, generation=1)
        endpoint.check_limit(context, t, fleet.variants)
        made = Endpoint(
            arn, context.new_id(), caller.account, caller.region, name, Status.CREATING, fleet, now, now, host=host
        )
        try:
            t.add_endpoint(made)
        except AlreadyExists:
            raise INFERENCE_COMPONENT.taken(arn) from None
        t.write_tags(arn, given)

    await context.store.run(work)
    context.poke()
    return {"InferenceComponentArn": arn}


async def describe(context: Context, caller: Caller, params: dict[str, Any]) -> dict[str, Any]:
    """https://docs.aws.amazon.com/sagemaker/latest/APIReference/API_DescribeInferenceComponent.html"""
    found = await context.store.run(lambda t: _find(t, caller, params["InferenceComponentName"]))
    desired = _copies(found.target or found.fleet)
    current = sum(context.serving(found.id).values())
    return {
        **_summary(caller, found),
        "FailureReason": found.failure_reason or None,
        "Specification": _show(found.fleet.specification, found.created_at),
        "RuntimeConfig": {"DesiredCopyCount": desired, "CurrentCopyCount": current},
    }


async def list_(context: Context, caller: Caller, params: dict[str, Any]) -> dict[str, Any]:
    """https://docs.aws.amazon.com/sagemaker/latest/APIReference/API_ListInferenceComponents.html"""
    wanted = params.get("EndpointNameEquals", "").lower(), params.get("VariantNameEquals")

    def fits(host: Host | None) -> bool:
        assert host is not None
        return wanted[0] in ("", host.endpoint.lower()) and wanted[1] in (None, host.variant)

    found = await context.store.run(lambda t: t.components(caller.account, caller.region))
    listed = (
        paging.Listed(one, one.name, one.created_at, one.modified_at, _status(one)) for one in found if fits(one.host)
    )
    components, token = paging.page(params, listed)
    return {"InferenceComponents": [_summary(caller, one) for one in components], "NextToken": token}


async def update(context: Context, caller: Caller, params: dict[str, Any]) -> dict[str, Any]:
    """https://docs.aws.amazon.com/sagemaker/latest/APIReference/API_UpdateInferenceComponent.html"""
    refuse(params, _REFUSED)
    if "Specification" not in params and "RuntimeConfig" not in params:
        raise ValidationException("Give a Specification or a RuntimeConfig to update to.")
    copies: int | None = params.get("RuntimeConfig", {}).get("CopyCount")

    def work(t: Transaction) -> str:
        found = _find(t, caller, params["InferenceComponentName"])
        if "Specification" not in params:
            assert copies is not None, "AWS's model requires it of a RuntimeConfig"
            return _scale(context, t, found, copies)
        status = asked(found.status, Trigger.UPDATE, found.arn, INFERENCE_COMPONENT.text)
        specification = _changed(found.fleet.specification, params["Specification"])
        count = _copies(found.fleet) if copies is None else copies
        assert found.host is not None
        # Revisions rise with every write, so that no two fleets of a component ever share a generation.
        fleet = _fleet(t, caller, found.host.variant, specification, count, generation=found.revision + 2)
        endpoint.check_limit(context, t, fleet.variants)
        t.write_endpoint(replace(found, status=status, target=fleet, failure_reason="", modified_at=context.now()))
        return found.arn

    arn = await context.store.run(work)
    context.poke()
    return {"InferenceComponentArn": arn}


async def update_runtime_config(context: Context, caller: Caller, params: dict[str, Any]) -> dict[str, Any]:
    """https://docs.aws.amazon.com/sagemaker/latest/APIReference/API_UpdateInferenceComponentRuntimeConfig.html"""
    copies: int = params["DesiredRuntimeConfig"]["CopyCount"]
    name: str = params["InferenceComponentName"]
    arn = await context.store.run(lambda t: _scale(context, t, _find(t, caller, name), copies))
    context.poke()
    return {"InferenceComponentArn": arn}


async def delete(context: Context, caller: Caller, params: dict[str, Any]) -> dict[str, Any]:
    """https://docs.aws.amazon.com/sagemaker/latest/APIReference/API_DeleteInferenceComponent.html"""

    def work(t: Transaction) -> None:
        found = _find(t, caller, params["InferenceComponentName"])
        status = asked(found.status, Trigger.DELETE, found.arn, INFERENCE_COMPONENT.text)
        if status is not found.status:
            t.write_endpoint(replace(found, status=status, target=None, modified_at=context.now()))

    await context.store.run(work)
    context.poke()
    return {}


def _find(t: Transaction, caller: Caller, name: str) -> Endpoint:
    arn = INFERENCE_COMPONENT.arn(caller, name)
    if (found := t.endpoint(arn)) is None:
        raise INFERENCE_COMPONENT.missing(arn)
    return found


def _host(t: Transaction, caller: Caller, params: Mapping[str, Any]) -> Host:
    """Where the component is to live. Raises ValidationException where it can't."""
    found = endpoint.find(t, caller, params["EndpointName"])
    if found.status is Status.DELETING:
        raise ENDPOINT.missing(found.arn)
    if not (name := params.get("VariantName")):
        raise ValidationException("VariantName is required: the production variant that is to host the component.")
    for fleet in (found.fleet, found.target or found.fleet):  # an update under way must have room for it too
        if not fleet.hosts_components:
            raise ValidationException(
                f'The endpoint "{found.arn}" runs models. Inference components need an endpoint whose production variants '
                "have no ModelName."
            )
        if fleet.variant(name) is None:
            raise ValidationException(f'The endpoint "{found.arn}" has no variant "{name}".')
    return Host(found.id, found.name, name)


def _fleet(
    t: Transaction, caller: Caller, variant: str, specification: Mapping[str, Any], copies: int, generation: int
) -> Fleet:
    """The copies that a Specification asks for, its Model read into it. Raises ValidationException."""
    refuse(specification, _REFUSED_OF_SPECIFICATION)
    container = _container(t, caller, specification)
    start = specification.get("StartupParameters", {})
    plan = endpoint_config.plan({"VariantName": variant, "InitialInstanceCount": copies, **start}, container)
    return Fleet(generation, "", (plan,), specification=specification)


def _container(t: Transaction, caller: Caller, specification: Mapping[str, Any]) -> Mapping[str, Any]:
    """What each copy runs, by the members of a ContainerDefinition."""
    own: Mapping[str, Any] | None = specification.get("Container")
    name: str | None = specification.get("ModelName")
    if bool(own) == bool(name):
        raise ValidationException("Specification: give either a ModelName or a Container.")
    if name:
        return model.container(model.find(t, caller, name).request)
    assert own is not None
    refuse(own, {"ContainerMetricsConfig": "metrics of the container's own"})
    if not own.get("Image"):
        raise ValidationException("Specification: the Container needs an Image.")
    container = {"Image": own["Image"], "Environment": own.get("Environment", {})}
    return container | ({"ModelDataUrl": own["ArtifactUrl"]} if "ArtifactUrl" in own else {})


def _changed(old: Mapping[str, Any], new: Mapping[str, Any]) -> Mapping[str, Any]:
    """What an update does not name stays, but for what runs: that is a Model or a Container."""
    replaced = {"ModelName", "Container"} if {"ModelName", "Container"} & new.keys() else set[str]()
    return {name: value for name, value in old.items() if name not in replaced} | dict(new)


def _scale(context: Context, t: Transaction, found: Endpoint, copies: int) -> str:
    """Other copies of the same, so that those that stay are not touched. Returns the ARN."""
    status = asked(found.status, Trigger.SCALE, found.arn, INFERENCE_COMPONENT.text)
    (variant,) = found.fleet.variants
    endpoint.check_limit(context, t, [_more(variant, copies)])
    target = replace(found.fleet, variants=(replace(variant, count=copies),))
    t.write_endpoint(replace(found, status=status, target=target, failure_reason="", modified_at=context.now()))
    return found.arn


def _more(variant: ProductionVariant, copies: int) -> ProductionVariant:
    return replace(variant, count=max(0, copies - variant.count))


def _copies(fleet: Fleet) -> int:
    (variant,) = fleet.variants
    return variant.count


def _status(component: Endpoint) -> str:
    """AWS's components know no RollingBack: it is the end of an update."""
    return (Status.UPDATING if component.status is Status.ROLLING_BACK else component.status).value


def _summary(caller: Caller, component: Endpoint) -> dict[str, Any]:
    host = component.host
    assert host is not None
    return {
        "InferenceComponentName": component.name,
        "InferenceComponentArn": component.arn,
        "EndpointName": host.endpoint,
        "EndpointArn": ENDPOINT.arn(caller, host.endpoint),
        "VariantName": host.variant,
        "InferenceComponentStatus": _status(component),
        "CreationTime": component.created_at,
        "LastModifiedTime": component.modified_at,
    }


def _show(specification: Mapping[str, Any], at: float) -> dict[str, Any]:
    """AWS's InferenceComponentSpecificationSummary."""
    shown = dict(specification)
    if container := specification.get("Container"):
        rest = {name: value for name, value in container.items() if name != "Image"}
        shown["Container"] = {"DeployedImage": endpoint.deployed_image(container["Image"], at), **rest}
    return shown
