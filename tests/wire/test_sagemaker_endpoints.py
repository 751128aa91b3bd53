"""Endpoints from creation to deletion, by boto3 over a socket, on a placement in memory."""

from __future__ import annotations

import asyncio
import datetime as dt
from pathlib import Path

import pytest

from penstock.placement.base import ReplicaSpec
from penstock.placement.null import NullPlacement, Plan
from tests.control_plane import ACCOUNT, REGION, ControlPlane, control_plane, tags
from tests.waiting import until_async

ARN = f"arn:aws:sagemaker:{REGION}:{ACCOUNT}:endpoint/e"


def of_image(word: str, plan: Plan) -> NullPlacement:
    """A placement in which every replica of an image with `word` in it goes by `plan`; the others are healthy."""
    return NullPlacement(lambda spec: plan if word in spec.image.uri else Plan())


def served(plane: ControlPlane, name: str = "e") -> list[str]:
    """The replicas in the routing table."""
    of_name = [e for e in plane.table.table.endpoints if e.name == name]
    return [replica.id for e in of_name for v in e.variants for replica in v.replicas]


async def test_an_endpoint_comes_into_service_and_goes(tmp_path: Path) -> None:
    placement = NullPlacement()
    async with control_plane(tmp_path, placement) as plane:
        await plane.deploy("E", count=2)
        found = await plane.until("E", "InService")
        assert isinstance(found.pop("CreationTime"), dt.datetime)
        assert isinstance(found.pop("LastModifiedTime"), dt.datetime)
        (variant,) = found.pop("ProductionVariants")
        assert variant.pop("DeployedImages")[0]["SpecifiedImage"] == "penstock/scripted"
        assert found == {
            "EndpointName": "E",
            "EndpointArn": ARN,
            "EndpointConfigName": "E",
            "EndpointStatus": "InService",
        }
        assert variant == {
            "VariantName": "AllTraffic",
            "CurrentWeight": 1.0,
            "DesiredWeight": 1.0,
            "CurrentInstanceCount": 2,
            "DesiredInstanceCount": 2,
        }
        assert len(served(plane, "E")) == 2
        await plane.call("delete_endpoint", EndpointName="E")
        await plane.until_gone("E")
        assert served(plane, "E") == []
        assert placement.observe() == ()
        assert (await plane.call("describe_endpoint_config", EndpointConfigName="E"))["EndpointConfigName"] == "E"


async def test_a_replica_is_told_all_it_needs(tmp_path: Path) -> None:
    placement = NullPlacement()
    async with control_plane(tmp_path, placement) as plane:
        plane.objects.bodies["b", "m.tar.gz"] = b"x"
        container = {
            "Image": "x/djl-inference:0.23.0-deepspeed0.9.5-cu118",
            "Environment": {"K": "V"},
            "ModelDataUrl": "s3://b/m.tar.gz",
            "ContainerHostname": "front",
        }
        await plane.call(
            "create_model",
            ModelName="m",
            ExecutionRoleArn="arn:aws:iam::123456789012:role/r",
            Containers=[container],
        )
        await plane.configure(
            "c", model="m", ContainerStartupHealthCheckTimeoutInSeconds=61, ModelDataDownloadTimeoutInSeconds=62
        )
        await plane.call("create_endpoint", EndpointName="e", EndpointConfigName="c")
        await plane.until("e", "InService")
        (spec,) = placement.started
        assert (spec.account, spec.region, spec.endpoint, spec.variant) == (ACCOUNT, REGION, "e", "AllTraffic")
        assert (spec.image.server, spec.image.version, spec.environment) == ("lmi", "0.23.0", {"K": "V"})
        assert spec.model_data is not None
        assert (spec.model_data.url, spec.model_data.kind) == ("s3://b/m.tar.gz", "tar.gz")
        assert (spec.startup_timeout_s, spec.download_timeout_s, spec.container) == (61, 62, "front")
        assert spec.instance_id.startswith("i-0")


async def test_each_of_several_containers_is_told_what_it_needs(tmp_path: Path) -> None:
    placement = NullPlacement()
    async with control_plane(tmp_path, placement) as plane:
        plane.objects.bodies["b", "m.tar.gz"] = b"x"
        containers = [
            {"Image": "penstock/scripted", "Environment": {"K": "1"}, "ModelDataUrl": "s3://b/m.tar.gz"},
            {"Image": "penstock/tgi"},
        ]
        role = "arn:aws:iam::123456789012:role/r"
        await plane.call("create_model", ModelName="m", ExecutionRoleArn=role, Containers=containers)
        await plane.configure("c", model="m", count=2)
        await plane.call("create_endpoint", EndpointName="e", EndpointConfigName="c")
        found = await plane.until("e", "InService")
        assert found["ProductionVariants"][0]["CurrentInstanceCount"] == 2
        told = [
            (s.container, s.several, s.image.server, dict(s.environment), bool(s.model_data)) for s in placement.started
        ]
        assert (
            told
            == [
                ("container-1", True, "scripted", {"K": "1"}, True),
                ("container-2", True, "tgi", {}, False),
            ]
            * 2
        )
        assert len({s.instance_id for s in placement.started}) == 2


async def test_a_multi_model_replica_is_told_that_it_is_one(tmp_path: Path) -> None:
    placement = NullPlacement()
    async with control_plane(tmp_path, placement) as plane:
        container = {"Image": "penstock/scripted", "Mode": "MultiModel", "ModelDataUrl": "s3://b/p/"}
        role = "arn:aws:iam::123456789012:role/r"
        await plane.call("create_model", ModelName="m", ExecutionRoleArn=role, PrimaryContainer=container)
        await plane.configure("c", model="m")
        await plane.call("create_endpoint", EndpointName="e", EndpointConfigName="c")
        await plane.until("e", "InService")
        (spec,) = placement.started
        assert (spec.container, spec.several, spec.model_data) == ("primary", False, None)
        assert spec.environment == {"SAGEMAKER_MULTI_MODEL": "true"}


async def test_several_containers_are_one_instance_of_the_limit(tmp_path: Path) -> None:
    async with control_plane(tmp_path, NullPlacement(), instance_limit=2) as plane:
        role = "arn:aws:iam::123456789012:role/r"
        containers = [{"Image": "penstock/scripted"}] * 3
        await plane.call("create_model", ModelName="m", ExecutionRoleArn=role, Containers=containers)
        await plane.configure("c", model="m", count=2)
        await plane.call("create_endpoint", EndpointName="e", EndpointConfigName="c")
        await plane.until("e", "InService")
        await plane.configure("d", model="m", count=1)
        code, message = await plane.error("create_endpoint", EndpointName="f", EndpointConfigName="d")
        assert code == "ResourceLimitExceeded"
        assert "current utilization of 2 Instances" in message


async def test_a_failed_endpoint_says_why_and_can_only_be_deleted(tmp_path: Path) -> None:
    async with control_plane(tmp_path, of_image("scripted", Plan("failed", "no such model, says the server"))) as plane:
        await plane.deploy()
        found = await plane.until("e", "Failed")
        assert found["FailureReason"] == "no such model, says the server"
        assert "status Failed" in await plane.refused("update_endpoint", EndpointName="e", EndpointConfigName="e")
        await plane.call("delete_endpoint", EndpointName="e")
        await plane.until_gone("e")


async def test_an_endpoint_that_never_comes_up_can_be_deleted_while_creating(tmp_path: Path) -> None:
    placement = of_image("scripted", Plan("starting", stop_s=0.05))
    async with control_plane(tmp_path, placement) as plane:
        await plane.deploy(count=3)
        await until_async(lambda: len(placement.observe()) == 3)
        assert (await plane.call("describe_endpoint", EndpointName="e"))["EndpointStatus"] == "Creating"
        assert "in-progress" in await plane.refused("update_endpoint", EndpointName="e", EndpointConfigName="e")
        assert "already existing endpoint" in await plane.refused(
            "create_endpoint", EndpointName="E", EndpointConfigName="e"
        )
        await plane.call("delete_endpoint", EndpointName="e")
        await plane.call("delete_endpoint", EndpointName="e")
        await plane.until_gone("e")
        assert placement.observe() == ()


async def test_of_many_creations_at_once_one_wins_and_starts_one_fleet(tmp_path: Path) -> None:
    placement = NullPlacement()
    async with control_plane(tmp_path, placement) as plane:
        await plane.deploy("other")
        calls = (plane.call("create_endpoint", EndpointName="e", EndpointConfigName="other") for _ in range(8))
        results = await asyncio.gather(*calls, return_exceptions=True)
        assert sum(isinstance(r, dict) for r in results) == 1
        await plane.until("e", "InService")
        assert sum(spec.endpoint == "e" for spec in placement.started) == 1


async def test_a_dead_replica_leaves_the_table_at_once_and_is_replaced(tmp_path: Path) -> None:
    placement = NullPlacement()
    async with control_plane(tmp_path, placement) as plane:
        await plane.deploy()
        await plane.until("e", "InService")
        (old,) = served(plane)
        version = plane.table.table.version
        placement.exit(old)
        await until_async(lambda: served(plane) not in ([], [old]))
        (new,) = served(plane)
        assert new != old
        assert plane.table.table.version > version
        epochs = {spec.id: spec.epoch for spec in placement.started}
        assert epochs[new] > epochs[old]
        assert (await plane.call("describe_endpoint", EndpointName="e"))["EndpointStatus"] == "InService"


async def test_an_endpoint_lives_on_without_its_model_and_config(tmp_path: Path) -> None:
    placement = NullPlacement()
    async with control_plane(tmp_path, placement) as plane:
        await plane.deploy()
        await plane.until("e", "InService")
        await plane.call("delete_model", ModelName="e")
        await plane.call("delete_endpoint_config", EndpointConfigName="e")
        (old,) = served(plane)
        placement.exit(old)
        await until_async(lambda: served(plane) not in ([], [old]))
        assert "Could not find endpoint configuration" in await plane.refused(
            "update_endpoint", EndpointName="e", EndpointConfigName="e"
        )


async def test_an_update_brings_the_new_fleet_up_before_the_old_goes(tmp_path: Path) -> None:
    states: list[tuple[str, list[str]]] = []
    placement = NullPlacement(lambda spec: Plan("starting") if spec.endpoint == "e" and states else Plan())
    async with control_plane(tmp_path, placement) as plane:
        await plane.deploy()
        await plane.until("e", "InService")
        (old,) = served(plane)
        states.append(("before", [old]))
        await plane.configure("second", model="e", count=2)
        assert await plane.call("update_endpoint", EndpointName="e", EndpointConfigName="second") == {
            "EndpointArn": ARN
        }
        await until_async(lambda: len(placement.observe()) == 3)
        found = await plane.call("describe_endpoint", EndpointName="e")
        assert (found["EndpointStatus"], found["EndpointConfigName"]) == ("Updating", "e")
        assert found["ProductionVariants"][0]["DesiredInstanceCount"] == 2
        assert served(plane) == [old]
        new = [status.id for status in placement.observe() if status.id != old]
        for replica in new:
            placement.healthy(replica)
        found = await plane.until("e", "InService")
        assert found["EndpointConfigName"] == "second"
        assert sorted(served(plane)) == sorted(new)
        await until_async(lambda: len(placement.observe()) == 2)


async def test_an_update_that_fails_rolls_back(tmp_path: Path) -> None:
    async with control_plane(tmp_path, of_image("broken", Plan("failed", "broken image"))) as plane:
        await plane.deploy()
        await plane.until("e", "InService")
        (old,) = served(plane)
        await plane.call(
            "create_model",
            ModelName="broken",
            ExecutionRoleArn="arn:aws:iam::123456789012:role/r",
            PrimaryContainer={"Image": "broken"},
        )
        await plane.configure("broken", model="broken")
        await plane.call("update_endpoint", EndpointName="e", EndpointConfigName="broken")
        found = await plane.until("e", "InService")
        assert (found["EndpointConfigName"], found["FailureReason"]) == ("e", "broken image")
        assert served(plane) == [old]


async def test_weights_and_capacities_change_in_place(tmp_path: Path) -> None:
    placement = NullPlacement()
    async with control_plane(tmp_path, placement) as plane:
        await plane.deploy()
        await plane.until("e", "InService")
        (old,) = served(plane)
        wish = {"VariantName": "AllTraffic", "DesiredInstanceCount": 3, "DesiredWeight": 0.5}
        await plane.call("update_endpoint_weights_and_capacities", EndpointName="e", DesiredWeightsAndCapacities=[wish])
        found = await plane.until("e", "InService")
        (variant,) = found["ProductionVariants"]
        assert (variant["CurrentInstanceCount"], variant["CurrentWeight"]) == (3, 0.5)
        assert old in served(plane)
        assert plane.table.table.endpoints[0].variants[0].weight == 0.5
        wrong = [{"VariantName": "no", "DesiredWeight": 1}]
        assert 'no variant "no"' in await plane.refused(
            "update_endpoint_weights_and_capacities", EndpointName="e", DesiredWeightsAndCapacities=wrong
        )
        # A plain update to the same config takes its counts; one that retains keeps what was scaled.
        await plane.call("update_endpoint", EndpointName="e", EndpointConfigName="e", RetainAllVariantProperties=True)
        (variant,) = (await plane.until("e", "InService"))["ProductionVariants"]
        assert (variant["CurrentInstanceCount"], variant["CurrentWeight"]) == (3, 0.5)
        await plane.call(
            "update_endpoint",
            EndpointName="e",
            EndpointConfigName="e",
            RetainAllVariantProperties=True,
            ExcludeRetainedVariantProperties=[{"VariantPropertyType": "DesiredInstanceCount"}],
        )
        (variant,) = (await plane.until("e", "InService"))["ProductionVariants"]
        assert (variant["CurrentInstanceCount"], variant["CurrentWeight"]) == (1, 0.5)


async def test_there_is_a_limit_to_instances_in_awss_shape(tmp_path: Path) -> None:
    async with control_plane(tmp_path, NullPlacement(), instance_limit=3) as plane:
        await plane.deploy("a", count=2)
        await plane.configure("two", model="a", count=2)
        code, message = await plane.error("create_endpoint", EndpointName="b", EndpointConfigName="two")
        assert code == "ResourceLimitExceeded"
        assert "is 3 Instances, with current utilization of 2 Instances and a request delta of 2 Instances" in message
        assert "Could not find" in await plane.refused("describe_endpoint", EndpointName="b")
        await plane.call("delete_endpoint", EndpointName="a")
        await plane.until_gone("a")
        await plane.call("create_endpoint", EndpointName="b", EndpointConfigName="two")
        await plane.until("b", "InService")


async def test_endpoints_are_listed_by_status_and_time(tmp_path: Path) -> None:
    async with control_plane(tmp_path, of_image("never", Plan("starting"))) as plane:
        await plane.deploy("up")
        await plane.deploy("creating", image="never")
        await plane.until("up", "InService")
        listed = await plane.call("list_endpoints", StatusEquals="InService")
        assert [e["EndpointName"] for e in listed["Endpoints"]] == ["up"]
        assert set(listed["Endpoints"][0]) == {
            "EndpointName",
            "EndpointArn",
            "CreationTime",
            "LastModifiedTime",
            "EndpointStatus",
        }
        by_status = await plane.call("list_endpoints", SortBy="Status", SortOrder="Descending")
        assert [e["EndpointStatus"] for e in by_status["Endpoints"]] == ["InService", "Creating"]
        changed = (await plane.call("describe_endpoint", EndpointName="up"))["LastModifiedTime"]
        later = await plane.call("list_endpoints", LastModifiedTimeAfter=changed)
        assert [e["EndpointName"] for e in later["Endpoints"]] == ["creating"]


async def test_the_tables_tags_follow_the_endpoints(tmp_path: Path) -> None:
    async with control_plane(tmp_path, NullPlacement()) as plane:
        await plane.deploy("e")
        await plane.until("e", "InService")
        await plane.call("add_tags", ResourceArn=ARN, Tags=tags({"penstock:fault": "x"}))
        await until_async(lambda: plane.table.table.endpoints[0].tags == {"penstock:fault": "x"})
        await plane.call("delete_tags", ResourceArn=ARN, TagKeys=["penstock:fault"])
        await until_async(lambda: plane.table.table.endpoints[0].tags == {})


async def test_boto3s_waiters_end(tmp_path: Path) -> None:
    async with control_plane(tmp_path, NullPlacement()) as plane:
        await plane.deploy("e")
        quick = {"Delay": 0.02, "MaxAttempts": 100}
        for name in ("endpoint_in_service", "endpoint_deleted"):
            waiter = plane.client().get_waiter(name)
            await asyncio.to_thread(waiter.wait, EndpointName="e", WaiterConfig=quick)
            await plane.call("delete_endpoint", EndpointName="e") if name == "endpoint_in_service" else None


@pytest.mark.parametrize("state", ["exited", "failed"])
async def test_a_slot_that_keeps_dying_is_not_restarted_without_end(tmp_path: Path, state: str) -> None:
    alive: list[ReplicaSpec] = []

    def plan(spec: ReplicaSpec) -> Plan:
        alive.append(spec)
        return Plan() if len(alive) == 1 else Plan(state)  # type: ignore[arg-type]

    placement = NullPlacement(plan)
    async with control_plane(tmp_path, placement) as plane:
        await plane.deploy()
        await plane.until("e", "InService")
        placement.exit(placement.observe()[0].id)
        await until_async(lambda: len(alive) >= 3, deadline_s=5)
        began = len(alive)
        assert began <= 4, "back-off: at once, then after 1 s, 2 s, 4 s"
        assert (await plane.call("describe_endpoint", EndpointName="e"))["EndpointStatus"] == "InService"
        assert served(plane) == []
