"""Inference components from creation to deletion, by boto3 over a socket, on a placement in memory."""

from __future__ import annotations

import asyncio
import datetime as dt
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from botocore.exceptions import ClientError

from penstock.placement.null import NullPlacement, Plan
from tests.components import NEEDS, ROLE, component, hosting, scripted
from tests.control_plane import ACCOUNT, REGION, ControlPlane, control_plane, tags
from tests.waiting import until_async

ARN = f"arn:aws:sagemaker:{REGION}:{ACCOUNT}"


@pytest.fixture
async def plane(tmp_path: Path) -> AsyncIterator[ControlPlane]:
    """With an endpoint `e` that takes components; images with `broken` in them never start, those with `never` never answer."""

    def plan(spec: Any) -> Plan:
        uri = spec.image.uri
        return Plan("failed", "no such file") if "broken" in uri else Plan("starting" if "never" in uri else "healthy")

    async with control_plane(tmp_path, NullPlacement(plan)) as plane:
        await host(plane)
        yield plane


async def host(plane: ControlPlane, name: str = "e", *variants: str) -> None:
    await plane.call("create_endpoint_config", **hosting(name, *variants))
    await plane.call("create_endpoint", EndpointName=name, EndpointConfigName=name)
    await plane.until(name, "InService")


async def describe(plane: ControlPlane, name: str) -> dict[str, Any]:
    return await plane.call("describe_inference_component", InferenceComponentName=name)


async def until(plane: ControlPlane, name: str, status: str, *, deadline_s: float = 10.0) -> dict[str, Any]:
    end = time.monotonic() + deadline_s
    while (found := await describe(plane, name))["InferenceComponentStatus"] != status:
        assert time.monotonic() < end, found
        await asyncio.sleep(0.01)
    return found


async def until_gone(plane: ControlPlane, name: str, *, deadline_s: float = 10.0) -> None:
    end = time.monotonic() + deadline_s
    while True:
        try:
            await describe(plane, name)
        except ClientError as error:
            if "Could not find inference component" in str(error):
                return
            raise
        assert time.monotonic() < end, f"{name} is still there"
        await asyncio.sleep(0.01)


def copies(plane: ControlPlane, name: str, endpoint: str = "e") -> list[str] | None:
    """The copies in the routing table; None where the component is not in it."""
    of_endpoint = (one.components or () for one in plane.table.table.endpoints if one.name == endpoint)
    found = (one for components in of_endpoint for one in components if one.name == name)
    return next(([replica.id for replica in one.variant.replicas] for one in found), None)


async def test_an_endpoint_without_models_is_in_service_with_nothing_running(plane: ControlPlane) -> None:
    found = await plane.call("describe_endpoint", EndpointName="e")
    (variant,) = found["ProductionVariants"]
    assert (variant["CurrentInstanceCount"], variant["DesiredInstanceCount"]) == (1, 1)
    assert "DeployedImages" not in variant
    assert plane.placement.observe() == ()
    (shown,) = plane.table.table.endpoints
    assert shown.components == ()
    config = await plane.call("describe_endpoint_config", EndpointConfigName="e")
    assert config["ExecutionRoleArn"] == ROLE
    assert "ModelName" not in config["ProductionVariants"][0]


async def test_a_component_comes_into_service_and_goes(plane: ControlPlane) -> None:
    start = {"ContainerStartupHealthCheckTimeoutInSeconds": 61, "ModelDataDownloadTimeoutInSeconds": 62}
    container = {"Image": "penstock/scripted", "Environment": {"K": "V"}, "ArtifactUrl": "s3://b/m.tar.gz"}
    asked = component("Ic-1", copies=2, Container=container, StartupParameters=start, ComputeResourceRequirements=NEEDS)
    made = await plane.call("create_inference_component", **asked, Tags=tags({"k": "v"}))
    arn = f"{ARN}:inference-component/ic-1"
    assert made == {"InferenceComponentArn": arn}
    found = await until(plane, "Ic-1", "InService")
    assert isinstance(found.pop("CreationTime"), dt.datetime)
    assert isinstance(found.pop("LastModifiedTime"), dt.datetime)
    image = found["Specification"]["Container"].pop("DeployedImage")
    assert (image["SpecifiedImage"], image["ResolvedImage"]) == ("penstock/scripted", "penstock/scripted")
    assert found == {
        "InferenceComponentName": "Ic-1",
        "InferenceComponentArn": arn,
        "EndpointName": "e",
        "EndpointArn": f"{ARN}:endpoint/e",
        "VariantName": "AllTraffic",
        "Specification": {
            "Container": {"Environment": {"K": "V"}, "ArtifactUrl": "s3://b/m.tar.gz"},
            "StartupParameters": start,
            "ComputeResourceRequirements": NEEDS,
        },
        "RuntimeConfig": {"DesiredCopyCount": 2, "CurrentCopyCount": 2},
        "InferenceComponentStatus": "InService",
    }
    assert len(copies(plane, "Ic-1") or ()) == 2
    placement = plane.placement
    assert isinstance(placement, NullPlacement)
    spec = placement.started[0]
    assert (spec.endpoint, spec.variant, spec.component, spec.environment) == ("e", "AllTraffic", "Ic-1", {"K": "V"})
    assert (spec.startup_timeout_s, spec.download_timeout_s) == (61, 62)
    assert spec.model_data is not None
    assert spec.model_data.url == "s3://b/m.tar.gz"
    assert await plane.call("list_tags", ResourceArn=arn) == {"Tags": tags({"k": "v"})}
    assert await plane.call("delete_inference_component", InferenceComponentName="Ic-1") == {}
    await until_gone(plane, "Ic-1")
    assert copies(plane, "Ic-1") is None
    assert placement.observe() == ()
    assert "Could not find inference component" in await plane.refused("list_tags", ResourceArn=arn)


async def test_a_component_of_a_model_outlives_it(plane: ControlPlane) -> None:
    image = {"Image": "penstock/scripted", "Environment": {"OF": "model"}}
    await plane.call("create_model", ModelName="m", ExecutionRoleArn=ROLE, PrimaryContainer=image)
    await plane.call("create_inference_component", **component("ic", ModelName="m", ComputeResourceRequirements=NEEDS))
    found = await until(plane, "ic", "InService")
    assert found["Specification"] == {"ModelName": "m", "ComputeResourceRequirements": NEEDS}
    await plane.call("delete_model", ModelName="m")
    placement = plane.placement
    assert isinstance(placement, NullPlacement)
    [old] = copies(plane, "ic") or []
    placement.exit(old)
    await until_async(lambda: copies(plane, "ic") not in ([], [old]))
    assert placement.started[-1].environment == {"OF": "model"}


async def test_a_component_is_described_at_once_and_fails_with_a_reason(plane: ControlPlane) -> None:
    await plane.call("create_inference_component", **component("slow", Container={"Image": "never"}))
    found = await describe(plane, "slow")
    assert found["InferenceComponentStatus"] == "Creating"
    assert found["RuntimeConfig"] == {"DesiredCopyCount": 1, "CurrentCopyCount": 0}
    await until_async(lambda: copies(plane, "slow") == [])
    for name in ("slow", "SLOW"):
        text = await plane.refused("create_inference_component", **component(name))
        assert text == f'Cannot create already existing inference component "{ARN}:inference-component/slow".'
    await plane.call("create_inference_component", **component("bad", Container={"Image": "broken"}))
    assert (await until(plane, "bad", "Failed"))["FailureReason"] == "no such file"
    text = await plane.refused(
        "update_inference_component_runtime_config", InferenceComponentName="bad", DesiredRuntimeConfig={"CopyCount": 2}
    )
    assert text == (
        f'Cannot update inference component "{ARN}:inference-component/bad" in status Failed. Delete it and create it again.'
    )
    for name in ("slow", "bad"):
        await plane.call("delete_inference_component", InferenceComponentName=name)
        await until_gone(plane, name)


async def test_copies_come_and_go_and_those_that_stay_are_not_touched(plane: ControlPlane) -> None:
    await plane.call("create_inference_component", **component("ic", copies=0))
    found = await until(plane, "ic", "InService")
    assert found["RuntimeConfig"] == {"DesiredCopyCount": 0, "CurrentCopyCount": 0}
    assert copies(plane, "ic") == []
    seen: list[str] = []
    for count in (1, 3, 2, 0):
        answer = await plane.call(
            "update_inference_component_runtime_config",
            InferenceComponentName="ic",
            DesiredRuntimeConfig={"CopyCount": count},
        )
        assert answer == {"InferenceComponentArn": f"{ARN}:inference-component/ic"}
        found = await until(plane, "ic", "InService")
        assert found["RuntimeConfig"] == {"DesiredCopyCount": count, "CurrentCopyCount": count}
        now = copies(plane, "ic") or []
        assert len(set(now) & set(seen)) == min(len(now), len(seen))
        seen = now
    await until_async(lambda: plane.placement.observe() == ())


async def test_an_update_brings_new_copies_up_before_the_old_leave(plane: ControlPlane) -> None:
    await plane.call("create_inference_component", **component("ic", copies=2))
    await until(plane, "ic", "InService")
    old = copies(plane, "ic")
    placement = plane.placement
    assert isinstance(placement, NullPlacement)
    never = {"Container": {"Image": "never"}}
    await plane.call("update_inference_component", InferenceComponentName="ic", Specification=never)
    await until_async(lambda: len(placement.observe()) == 4)
    found = await describe(plane, "ic")
    assert found["InferenceComponentStatus"] == "Updating"
    assert found["Specification"]["Container"]["DeployedImage"]["SpecifiedImage"] == "penstock/scripted"
    assert copies(plane, "ic") == old
    text = await plane.refused("update_inference_component", InferenceComponentName="ic", Specification=never)
    assert text.startswith("Cannot update in-progress inference component")
    for status in placement.observe():
        placement.healthy(status.id)
    found = await until(plane, "ic", "InService")
    assert found["Specification"]["Container"]["DeployedImage"]["SpecifiedImage"] == "never"
    assert found["Specification"]["ComputeResourceRequirements"] == NEEDS, "what is not named stays"
    assert set(copies(plane, "ic") or ()).isdisjoint(old or ())
    await until_async(lambda: len(placement.observe()) == 2)
    # With another count in the same call, and by the count alone, which is scaling.
    await plane.call(
        "update_inference_component",
        InferenceComponentName="ic",
        Specification=scripted(),
        RuntimeConfig={"CopyCount": 1},
    )
    await until(plane, "ic", "InService")
    [one] = copies(plane, "ic") or []
    await plane.call("update_inference_component", InferenceComponentName="ic", RuntimeConfig={"CopyCount": 2})
    await until(plane, "ic", "InService")
    assert one in (copies(plane, "ic") or ())


async def test_an_update_that_fails_leaves_the_old_copies_in_service(plane: ControlPlane) -> None:
    await plane.call("create_inference_component", **component("ic"))
    await until(plane, "ic", "InService")
    old = copies(plane, "ic")
    await plane.call(
        "update_inference_component", InferenceComponentName="ic", Specification={"Container": {"Image": "broken"}}
    )
    seen, end = set[str](), time.monotonic() + 10
    while (found := await describe(plane, "ic")).get("FailureReason") is None or "InService" not in seen:
        seen.add(found["InferenceComponentStatus"])
        assert time.monotonic() < end, found
    assert seen <= {"Updating", "InService"}, "AWS's components know no RollingBack"
    assert (found["InferenceComponentStatus"], found["FailureReason"]) == ("InService", "no such file")
    assert copies(plane, "ic") == old


async def test_components_are_listed_by_endpoint_variant_status_and_name(plane: ControlPlane) -> None:
    await host(plane, "Other", "AllTraffic", "second")
    for name, where, variant in (
        ("a-1", "e", "AllTraffic"),
        ("b-1", "Other", "second"),
        ("a-2", "Other", "AllTraffic"),
    ):
        asked = component(name, where) | {"VariantName": variant}
        await plane.call("create_inference_component", **asked)
        await until(plane, name, "InService")
    await plane.call("create_inference_component", **component("slow", Container={"Image": "never"}))

    async def names(**filters: Any) -> list[str]:
        listed = await plane.call("list_inference_components", SortBy="Name", **filters)
        return [one["InferenceComponentName"] for one in listed["InferenceComponents"]]

    assert await names() == ["a-1", "a-2", "b-1", "slow"]
    assert await names(EndpointNameEquals="Other") == ["a-2", "b-1"]
    assert await names(EndpointNameEquals="Other", VariantNameEquals="second") == ["b-1"]
    assert await names(StatusEquals="Creating") == ["slow"]
    assert await names(NameContains="A-", SortOrder="Descending") == ["a-2", "a-1"]
    first = await plane.call("list_inference_components", MaxResults=3, SortOrder="Ascending")
    rest = await plane.call(
        "list_inference_components", MaxResults=3, SortOrder="Ascending", NextToken=first["NextToken"]
    )
    both = first["InferenceComponents"] + rest["InferenceComponents"]
    assert [one["InferenceComponentName"] for one in both] == ["a-1", "b-1", "a-2", "slow"]
    assert set(both[0]) == {
        "InferenceComponentName",
        "InferenceComponentArn",
        "EndpointName",
        "EndpointArn",
        "VariantName",
        "InferenceComponentStatus",
        "CreationTime",
        "LastModifiedTime",
    }
    listed = await plane.call("list_endpoints")
    assert {one["EndpointName"] for one in listed["Endpoints"]} == {"e", "Other"}


async def test_an_endpoint_with_components_stays(plane: ControlPlane) -> None:
    await plane.call("create_inference_component", **component("ic"))
    await until(plane, "ic", "InService")
    text = await plane.refused("delete_endpoint", EndpointName="e")
    assert text == (
        f'Cannot delete endpoint "{ARN}:endpoint/e" while it has inference components: ic. Delete them first.'
    )
    await plane.call("create_endpoint_config", **hosting("elsewhere", "another"))
    text = await plane.refused("update_endpoint", EndpointName="e", EndpointConfigName="elsewhere")
    assert "the inference component ic is on its variant AllTraffic" in text
    await plane.call("create_endpoint_config", **hosting("wider", "AllTraffic", "second"))
    before = copies(plane, "ic")
    await plane.call("update_endpoint", EndpointName="e", EndpointConfigName="wider")
    found = await plane.until("e", "InService")
    assert [one["VariantName"] for one in found["ProductionVariants"]] == ["AllTraffic", "second"]
    assert copies(plane, "ic") == before
    await plane.call("delete_inference_component", InferenceComponentName="ic")
    await until_gone(plane, "ic")
    await plane.call("delete_endpoint", EndpointName="e")
    await plane.until_gone("e")


async def test_an_endpoint_on_its_way_to_models_takes_no_more_components(plane: ControlPlane) -> None:
    await plane.call("create_model", ModelName="never", ExecutionRoleArn=ROLE, PrimaryContainer={"Image": "never"})
    await plane.configure("models", model="never")
    await plane.call("update_endpoint", EndpointName="e", EndpointConfigName="models")
    assert "runs models" in await plane.refused("create_inference_component", **component("ic"))
    placement = plane.placement
    assert isinstance(placement, NullPlacement)
    await until_async(lambda: len(placement.observe()) == 1)
    placement.healthy(placement.observe()[0].id)
    await plane.until("e", "InService")
    (shown,) = plane.table.table.endpoints
    assert (shown.components, len(shown.variants[0].replicas)) == (None, 1)
    await plane.call("update_endpoint", EndpointName="e", EndpointConfigName="e")
    await plane.until("e", "InService")
    await plane.call("create_inference_component", **component("ic"))
    await until(plane, "ic", "InService")


async def test_the_hosts_routing_holds_for_its_components(plane: ControlPlane) -> None:
    config = hosting("least")
    config["ProductionVariants"][0]["RoutingConfig"] = {"RoutingStrategy": "LEAST_OUTSTANDING_REQUESTS"}
    config["ProductionVariants"][0]["ManagedInstanceScaling"] = {
        "Status": "ENABLED",
        "MinInstanceCount": 0,
        "MaxInstanceCount": 2,
    }
    await plane.call("create_inference_component", **component("ic"))
    await until(plane, "ic", "InService")
    await plane.call("create_endpoint_config", **config)
    described = await plane.call("describe_endpoint_config", EndpointConfigName="least")
    assert described["ProductionVariants"][0]["ManagedInstanceScaling"]["MaxInstanceCount"] == 2
    await plane.call("update_endpoint", EndpointName="e", EndpointConfigName="least")
    await plane.until("e", "InService")
    (shown,) = plane.table.table.endpoints
    (one,) = shown.components or ()
    assert (one.variant.name, one.variant.routing) == ("AllTraffic", "LEAST_OUTSTANDING_REQUESTS")


async def test_copies_count_against_the_limit(tmp_path: Path) -> None:
    async with control_plane(tmp_path, NullPlacement(), instance_limit=3) as plane:
        await host(plane, "e", "AllTraffic", "b", "c", "d")
        await plane.call("create_inference_component", **component("a", copies=2))
        await until(plane, "a", "InService")
        for operation, more in (
            ("create_inference_component", component("b", copies=2)),
            ("update_inference_component_runtime_config", {"DesiredRuntimeConfig": {"CopyCount": 4}}),
            ("update_inference_component", {"Specification": scripted()}),
        ):
            code, message = await plane.error(operation, **({"InferenceComponentName": "a"} | more))
            assert code == "ResourceLimitExceeded"
            assert "current utilization of 2 Instances and a request delta of 2 Instances" in message
        await plane.call("create_inference_component", **component("b", copies=1))


async def test_what_is_not_there_is_not_found_in_awss_words(plane: ControlPlane) -> None:
    text = f'Could not find inference component "{ARN}:inference-component/gone".'
    for operation, more in (
        ("describe_inference_component", {}),
        ("delete_inference_component", {}),
        ("update_inference_component", {"Specification": scripted()}),
        ("update_inference_component_runtime_config", {"DesiredRuntimeConfig": {"CopyCount": 1}}),
    ):
        assert await plane.refused(operation, InferenceComponentName="Gone", **more) == text
    # A component is no endpoint, and the reverse, whatever their names.
    await plane.call("create_inference_component", **component("e"))
    await until(plane, "e", "InService")
    assert (await plane.call("describe_endpoint", EndpointName="e"))["EndpointArn"] == f"{ARN}:endpoint/e"


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"EndpointName": "gone"}, "Could not find endpoint"),
        ({"EndpointName": "models"}, "runs models"),
        ({"VariantName": "other"}, 'has no variant "other"'),
        ({"VariantName": None}, "VariantName is required"),
        ({"RuntimeConfig": {"CopyCount": -1}}, "greater than or equal to 0"),
        ({"RuntimeConfig": {}}, "copyCount"),
        ({"Specification": None}, "either a ModelName or a Container"),
        ({"Specification": {"ModelName": "gone"}}, "Could not find model"),
        ({"Specification": scripted() | {"ModelName": "m"}}, "either a ModelName or a Container"),
        ({"Specification": {"Container": {"ArtifactUrl": "s3://b/k"}}}, "needs an Image"),
        ({"Specification": {"Container": {"Image": "i", "ArtifactUrl": "https://b/k"}}}, "s3:// URL"),
        ({"Specification": scripted() | {"BaseInferenceComponentName": "base"}}, "adapters"),
        ({"Specification": scripted() | {"ComputeResourceRequirements": {}}}, "minMemoryRequiredInMb"),
        ({"Specification": scripted() | {"StartupParameters": {"ModelDataDownloadTimeoutInSeconds": 1}}}, "60"),
        ({"Specification": None, "Specifications": [scripted()]}, "several Specifications"),
        ({"InferenceComponentName": "-no-"}, "regular expression"),
    ],
)
async def test_a_component_that_can_not_be_is_refused(plane: ControlPlane, given: dict[str, Any], words: str) -> None:
    if given.get("EndpointName") == "models":
        await plane.deploy("models")
    asked = {name: value for name, value in (component("ic") | given).items() if value is not None}
    assert words in await plane.refused("create_inference_component", **asked)
    listed = await plane.call("list_inference_components")
    assert listed["InferenceComponents"] == []


async def test_an_update_that_says_nothing_or_too_much_is_refused(plane: ControlPlane) -> None:
    await plane.call("create_inference_component", **component("ic"))
    await until(plane, "ic", "InService")
    text = await plane.refused("update_inference_component", InferenceComponentName="ic")
    assert text == "Give a Specification or a RuntimeConfig to update to."
    rolling = {"MaximumBatchSize": {"Type": "COPY_COUNT", "Value": 1}, "WaitIntervalInSeconds": 0}
    text = await plane.refused(
        "update_inference_component",
        InferenceComponentName="ic",
        Specification=scripted(),
        DeploymentConfig={"RollingUpdatePolicy": rolling},
    )
    assert "does not support rolling updates" in text
    assert (await describe(plane, "ic"))["InferenceComponentStatus"] == "InService"


@pytest.mark.parametrize("config", [{"AsyncInferenceConfig": {"OutputConfig": {"S3OutputPath": "s3://b/k"}}}])
async def test_what_a_hosting_config_can_not_have_is_refused(plane: ControlPlane, config: dict[str, Any]) -> None:
    assert "inference components" in await plane.refused("create_endpoint_config", **hosting("c", **config))


async def test_a_component_asked_for_while_its_endpoint_goes_is_refused(tmp_path: Path) -> None:
    """Of the two calls one wins: never is there a component without an endpoint."""
    async with control_plane(tmp_path, NullPlacement()) as plane:
        for _ in range(8):
            await plane.call("create_endpoint_config", **hosting())
            await plane.call("create_endpoint", EndpointName="e", EndpointConfigName="e")
            await plane.until("e", "InService")
            calls = (
                plane.call("delete_endpoint", EndpointName="e"),
                plane.call("create_inference_component", **component("ic")),
            )
            outcomes = [isinstance(one, ClientError) for one in await asyncio.gather(*calls, return_exceptions=True)]
            assert sum(outcomes) == 1, outcomes
            if outcomes[0]:
                await plane.call("delete_inference_component", InferenceComponentName="ic")
                await until_gone(plane, "ic")
                await plane.call("delete_endpoint", EndpointName="e")
            await plane.until_gone("e")
            await plane.call("delete_endpoint_config", EndpointConfigName="e")


@pytest.mark.parametrize("status", ["InService", "Creating", "Updating", "Deleting"])
async def test_a_restart_of_control_finds_the_components_again(tmp_path: Path, status: str) -> None:
    slow = NullPlacement(lambda spec: Plan("starting" if "never" in spec.image.uri else "healthy", stop_s=60))
    async with control_plane(tmp_path, slow) as plane:
        await host(plane)
        await plane.call("create_inference_component", **component("stays"))
        await until(plane, "stays", "InService")
        image = "never" if status == "Creating" else "penstock/scripted"
        await plane.call("create_inference_component", **component("ic", copies=2, Container={"Image": image}))
        if status != "Creating":
            await until(plane, "ic", "InService")
        if status == "Updating":
            never = {"Container": {"Image": "never"}}
            await plane.call("update_inference_component", InferenceComponentName="ic", Specification=never)
        if status == "Deleting":
            await plane.call("delete_inference_component", InferenceComponentName="ic")
        await until(plane, "ic", status)
        before = await describe(plane, "ic")
    async with control_plane(tmp_path, NullPlacement()) as plane:  # everything in it starts now
        await until_async(lambda: len(copies(plane, "stays") or ()) == 1)
        if status == "Deleting":
            await until_gone(plane, "ic")
            return
        after = await until(plane, "ic", "InService")
        assert after["RuntimeConfig"] == {"DesiredCopyCount": 2, "CurrentCopyCount": 2}
        assert after["CreationTime"] == before["CreationTime"]
        if status == "Updating":
            assert after["Specification"]["Container"]["DeployedImage"]["SpecifiedImage"] == "never"
