"""Models, EndpointConfigs and tags, by boto3 over a socket."""

from __future__ import annotations

import asyncio
import datetime as dt
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from penstock.placement.null import NullPlacement
from tests.control_plane import ACCOUNT, REGION, ROLE, ControlPlane, control_plane, tags

IMAGE = "763104351884.dkr.ecr.us-east-1.amazonaws.com/djl-inference:0.23.0-deepspeed0.9.5-cu118"


@pytest.fixture
async def plane(tmp_path: Path) -> AsyncIterator[ControlPlane]:
    async with control_plane(tmp_path, NullPlacement()) as plane:
        yield plane


def variant(**more: Any) -> dict[str, Any]:
    return {"VariantName": "v", "ModelName": "m", "InstanceType": "ml.g5.2xlarge", "InitialInstanceCount": 1} | more


async def model(plane: ControlPlane, name: str = "m", **container: Any) -> dict[str, Any]:
    primary = {"Image": IMAGE} | container
    return await plane.call("create_model", ModelName=name, ExecutionRoleArn=ROLE, PrimaryContainer=primary)


async def test_a_model_is_described_as_it_was_created(plane: ControlPlane) -> None:
    made = await plane.call(
        "create_model",
        ModelName="My-Model",
        ExecutionRoleArn=ROLE,
        PrimaryContainer={"Image": IMAGE, "Environment": {"A": "ü", "B": ""}},
        Tags=tags({"k": "v"}),
    )
    assert made == {"ModelArn": f"arn:aws:sagemaker:{REGION}:{ACCOUNT}:model/my-model"}
    found = await plane.call("describe_model", ModelName="My-Model")
    assert isinstance(found.pop("CreationTime"), dt.datetime)
    assert found == {
        "ModelName": "My-Model",
        "ModelArn": made["ModelArn"],
        "ExecutionRoleArn": ROLE,
        "EnableNetworkIsolation": False,
        "PrimaryContainer": {"Image": IMAGE, "Mode": "SingleModel", "Environment": {"A": "ü", "B": ""}},
    }


async def test_what_is_not_there_is_not_found_in_awss_words(plane: ControlPlane) -> None:
    arn = f"arn:aws:sagemaker:{REGION}:{ACCOUNT}"
    for operation, name, word, text in [
        ("describe_model", "ModelName", "model", "model"),
        ("delete_model", "ModelName", "model", "model"),
        ("describe_endpoint_config", "EndpointConfigName", "endpoint-config", "endpoint configuration"),
        ("delete_endpoint_config", "EndpointConfigName", "endpoint-config", "endpoint configuration"),
        ("describe_endpoint", "EndpointName", "endpoint", "endpoint"),
        ("delete_endpoint", "EndpointName", "endpoint", "endpoint"),
    ]:
        assert await plane.refused(operation, **{name: "No"}) == f'Could not find {text} "{arn}:{word}/no".'


async def test_a_name_is_taken_whatever_its_case(plane: ControlPlane) -> None:
    await model(plane, "m")
    arn = f"arn:aws:sagemaker:{REGION}:{ACCOUNT}:model/m"
    with pytest.raises(Exception, match="Cannot create already existing model") as caught:
        await model(plane, "M")
    assert f'"{arn}"' in str(caught.value)
    await plane.configure("c", model="m")
    with pytest.raises(Exception, match="Cannot create already existing endpoint configuration"):
        await plane.configure("C", model="m")


async def test_of_two_that_create_at_once_one_wins(plane: ControlPlane) -> None:
    results = await asyncio.gather(*(model(plane) for _ in range(6)), return_exceptions=True)
    assert sum(isinstance(result, dict) for result in results) == 1
    assert all("already existing" in str(r) for r in results if not isinstance(r, dict))


async def test_accounts_and_regions_see_nothing_of_each_other(plane: ControlPlane) -> None:
    await model(plane)
    for place in ({"account": "999999999999"}, {"region": "eu-central-1"}):
        assert (await plane.call("list_models", **place))["Models"] == []
        assert "Could not find" in await plane.refused("describe_model", ModelName="m", **place)
        created = await plane.call(
            "create_model", ModelName="m", ExecutionRoleArn=ROLE, PrimaryContainer={"Image": IMAGE}, **place
        )
        await plane.call("delete_model", ModelName="m", **place)
        assert created["ModelArn"].split(":")[3:5] == [place.get("region", REGION), place.get("account", ACCOUNT)]
    assert (await plane.call("describe_model", ModelName="m"))["ModelName"] == "m"


async def test_a_compressed_model_must_be_there_and_a_prefix_need_not(plane: ControlPlane) -> None:
    with pytest.raises(Exception, match=r"Could not find model data at s3://bucket/gone/model\.tar\.gz"):
        await model(plane, ModelDataUrl="s3://bucket/gone/model.tar.gz")
    assert (await plane.call("list_models"))["Models"] == []
    plane.objects.bodies["bucket", "here/model.tar.gz"] = b"x"
    await model(plane, ModelDataUrl="s3://bucket/here/model.tar.gz")
    await model(plane, "empty-prefix", ModelDataUrl="s3://bucket/nothing/here/")
    source = {"S3Uri": "s3://bucket/nothing", "S3DataType": "S3Prefix", "CompressionType": "None"}
    await model(plane, "source", ModelDataSource={"S3DataSource": source})
    found = await plane.call("describe_model", ModelName="source")
    assert found["PrimaryContainer"]["ModelDataSource"] == {"S3DataSource": source}


@pytest.mark.parametrize(
    ("container", "words"),
    [
        ({"Mode": "MultiModel"}, "needs either ModelDataUrl or ModelDataSource"),
        ({"Mode": "MultiModel", "ModelDataUrl": "s3://b/m.tar.gz"}, "must be the prefix of its models"),
        ({"Mode": "MultiModel", "ModelDataUrl": "https://b/p/"}, "must lie at an s3:// URL"),
        (
            {"Mode": "MultiModel", "ModelDataUrl": "s3://b/p/", "Image": "penstock/tgi"},
            "capabilities.multi-models=true Docker label",
        ),
        ({"MultiModelConfig": {"ModelCacheSetting": "Disabled"}}, "needs the Mode MultiModel"),
        ({"ModelDataUrl": "https://elsewhere/x.tar.gz"}, "must lie at an s3:// URL"),
        ({"ModelPackageName": "p"}, "does not support model packages"),
        (
            {
                "ModelDataUrl": "s3://b/p/",
                "ModelDataSource": {
                    "S3DataSource": {"S3Uri": "s3://b/p", "S3DataType": "S3Prefix", "CompressionType": "None"}
                },
            },
            "either ModelDataUrl or ModelDataSource",
        ),
        (
            {
                "ModelDataSource": {
                    "S3DataSource": {"S3Uri": "s3://b/p", "S3DataType": "S3Prefix", "CompressionType": "Gzip"}
                }
            },
            "S3Prefix needs CompressionType None",
        ),
    ],
)
async def test_what_penstock_can_not_run_is_refused(plane: ControlPlane, container: dict[str, Any], words: str) -> None:
    with pytest.raises(Exception, match=words):
        await model(plane, **container)
    assert (await plane.call("list_models"))["Models"] == []


async def test_a_model_has_one_container(plane: ControlPlane) -> None:
    one = {"Image": IMAGE}
    assert "PrimaryContainer" in await plane.refused("create_model", ModelName="m", ExecutionRoleArn=ROLE)
    assert "not both" in await plane.refused(
        "create_model", ModelName="m", ExecutionRoleArn=ROLE, PrimaryContainer=one, Containers=[one]
    )
    await plane.call("create_model", ModelName="m", ExecutionRoleArn=ROLE, Containers=[one])
    assert (await plane.call("describe_model", ModelName="m"))["Containers"] == [one]


@pytest.mark.parametrize(
    ("names", "mode", "words"),
    [
        (("a", "a"), "Direct", "must be unique, not a, a"),
        (("a", ""), "Direct", "give every container a ContainerHostname"),
        (("", ""), "Direct", "give every container a ContainerHostname"),
        (("a", ""), "Serial", "give every container a ContainerHostname"),
        (("a", "not_a_hostname"), "Direct", "ontainerHostname"),
    ],
)
async def test_several_containers_have_names(
    plane: ControlPlane, names: tuple[str, ...], mode: str, words: str
) -> None:
    containers = [{"Image": IMAGE} | ({"ContainerHostname": name} if name else {}) for name in names]
    assert words in await plane.refused(
        "create_model",
        ModelName="m",
        ExecutionRoleArn=ROLE,
        Containers=containers,
        InferenceExecutionConfig={"Mode": mode},
    )


async def test_several_containers_are_shown_as_they_were_given(plane: ControlPlane) -> None:
    plane.objects.bodies["b", "m.tar.gz"] = b"x"
    containers = [{"Image": IMAGE, "ModelDataUrl": "s3://b/m.tar.gz"}, {"Image": IMAGE, "Environment": {"K": "V"}}]
    await plane.call("create_model", ModelName="m", ExecutionRoleArn=ROLE, Containers=containers)
    assert (await plane.call("describe_model", ModelName="m"))["Containers"] == containers
    missing = [{"Image": IMAGE}, {"Image": IMAGE, "ModelDataUrl": "s3://b/none.tar.gz"}]
    assert "Could not find model data" in await plane.refused(
        "create_model", ModelName="n", ExecutionRoleArn=ROLE, Containers=missing
    )
    mixed = [{"Image": IMAGE}, {"Image": IMAGE, "Mode": "MultiModel", "ModelDataUrl": "s3://b/p/"}]
    assert "together with others" in await plane.refused(
        "create_model", ModelName="n", ExecutionRoleArn=ROLE, Containers=mixed
    )
    sixteen = [{"Image": IMAGE}] * 16
    assert "15" in await plane.refused("create_model", ModelName="n", ExecutionRoleArn=ROLE, Containers=sixteen)


@pytest.mark.parametrize(
    "source",
    [
        {"ModelDataUrl": "s3://b/p/"},
        {"ModelDataUrl": "s3://b"},
        {
            "ModelDataSource": {
                "S3DataSource": {"S3Uri": "s3://b/p/", "S3DataType": "S3Prefix", "CompressionType": "None"}
            }
        },
    ],
)
async def test_a_multi_model_container_is_shown_as_it_was_given(plane: ControlPlane, source: dict[str, Any]) -> None:
    given = {"Mode": "MultiModel", "MultiModelConfig": {"ModelCacheSetting": "Disabled"}, **source}
    await model(plane, "m", **given)
    assert (await plane.call("describe_model", ModelName="m"))["PrimaryContainer"] == {"Image": IMAGE, **given}


async def test_what_a_model_of_many_can_not_be_used_for(plane: ControlPlane) -> None:
    await model(plane, "many", Mode="MultiModel", ModelDataUrl="s3://b/p/")
    two = [{"Image": IMAGE}, {"Image": IMAGE}]
    await plane.call("create_model", ModelName="two", ExecutionRoleArn=ROLE, Containers=two)
    variant = {"VariantName": "v", "InstanceType": "ml.m5.large", "InitialInstanceCount": 1}
    output = {"OutputConfig": {"S3OutputPath": "s3://b/out/"}}
    for name in ("many", "two"):
        assert "can't be invoked asynchronously" in await plane.refused(
            "create_endpoint_config",
            EndpointConfigName="c",
            ProductionVariants=[variant | {"ModelName": name}],
            AsyncInferenceConfig=output,
        )
        serverless = {"MemorySizeInMB": 1024, "MaxConcurrency": 1}
        assert "needs instances" in await plane.refused(
            "create_endpoint_config",
            EndpointConfigName="c",
            ProductionVariants=[{"VariantName": "v", "ModelName": name, "ServerlessConfig": serverless}],
        )


async def test_names_are_checked_as_awss_model_says(plane: ControlPlane) -> None:
    message = await plane.refused("create_model", ModelName="no_underscores", PrimaryContainer={"Image": IMAGE})
    assert message.startswith("1 validation error detected: Value 'no_underscores' at 'modelName' failed to satisfy")
    assert "regular expression pattern" in message


async def test_an_endpoint_config_is_described_as_it_was_created(plane: ControlPlane) -> None:
    await model(plane)
    given = variant(
        InitialVariantWeight=0.25,
        ContainerStartupHealthCheckTimeoutInSeconds=900,
        InferenceAmiVersion="al2-ami-sagemaker-inference-gpu-2",
        RoutingConfig={"RoutingStrategy": "LEAST_OUTSTANDING_REQUESTS"},
    )
    made = await plane.call("create_endpoint_config", EndpointConfigName="C", ProductionVariants=[given])
    assert made == {"EndpointConfigArn": f"arn:aws:sagemaker:{REGION}:{ACCOUNT}:endpoint-config/c"}
    found = await plane.call("describe_endpoint_config", EndpointConfigName="C")
    assert isinstance(found.pop("CreationTime"), dt.datetime)
    assert found == made | {
        "EndpointConfigName": "C",
        "ProductionVariants": [given],
        "EnableNetworkIsolation": False,
    }
    await plane.call("delete_endpoint_config", EndpointConfigName="C")
    assert "Could not find" in await plane.refused("describe_endpoint_config", EndpointConfigName="C")


@pytest.mark.parametrize(
    ("variants", "words"),
    [
        ([variant(ModelName="gone")], "Could not find model"),
        ([variant(), variant()], "names must be unique"),
        (
            [{"VariantName": "v", "InstanceType": "ml.g5.2xlarge", "InitialInstanceCount": 1}],
            "ExecutionRoleArn is required",
        ),
        ([variant(), {"VariantName": "w", "InstanceType": "ml.m5.large", "InitialInstanceCount": 1}], "or none"),
        (
            [{"VariantName": "v", "ServerlessConfig": {"MemorySizeInMB": 1024, "MaxConcurrency": 1}}],
            "needs a ModelName",
        ),
        ([{"VariantName": "v", "ModelName": "m"}], "give InstanceType"),
        ([variant(InitialInstanceCount=0)], "(at least 1|greater than or equal to 1)"),
        ([variant(ManagedInstanceScaling={"Status": "ENABLED"})], "only supported for inference component endpoints"),
        ([variant(RoutingConfig={"RoutingStrategy": "KV_AWARE"})], "KV_AWARE"),
        ([variant(RoutingConfig={"RoutingStrategy": "PREFIX_AWARE"})], "PrefixAwareRoutingConfig"),
        ([variant(ServerlessConfig={"MemorySizeInMB": 1024, "MaxConcurrency": 1})], "either ServerlessConfig"),
    ],
)
async def test_a_config_that_can_not_be_run_is_refused(
    plane: ControlPlane, variants: list[dict[str, Any]], words: str
) -> None:
    await model(plane)
    with pytest.raises(Exception, match=words):
        await plane.call("create_endpoint_config", EndpointConfigName="c", ProductionVariants=variants)
    assert (await plane.call("list_endpoint_configs"))["EndpointConfigs"] == []


async def test_lists_have_filters_order_and_pages(plane: ControlPlane) -> None:
    for i in range(7):
        await model(plane, f"m{i}" if i % 2 else f"Odd{i}")
    listed = await plane.call("list_models", SortBy="Name", SortOrder="Ascending", MaxResults=3)
    names = [m["ModelName"] for m in listed["Models"]]
    while "NextToken" in listed:
        listed = await plane.call(
            "list_models", SortBy="Name", SortOrder="Ascending", MaxResults=3, NextToken=listed["NextToken"]
        )
        names += [m["ModelName"] for m in listed["Models"]]
    assert names == ["Odd0", "Odd2", "Odd4", "Odd6", "m1", "m3", "m5"]
    found = await plane.call("list_models", NameContains="odd")
    assert [m["ModelName"] for m in found["Models"]] == ["Odd6", "Odd4", "Odd2", "Odd0"]
    assert set(found["Models"][0]) == {"ModelName", "ModelArn", "CreationTime"}
    moment = found["Models"][1]["CreationTime"]
    later = await plane.call("list_models", CreationTimeAfter=moment, NameContains="Odd")
    assert [m["ModelName"] for m in later["Models"]] == ["Odd6"]
    earlier = await plane.call("list_models", CreationTimeBefore=moment, NameContains="Odd")
    assert [m["ModelName"] for m in earlier["Models"]] == ["Odd2", "Odd0"]
    assert await plane.refused("list_models", NextToken="bm9uc2Vuc2U=") == "Invalid pagination token."
    assert "less than or equal to 100" in await plane.refused("list_models", MaxResults=101)


async def test_tags_are_added_replaced_listed_and_deleted(plane: ControlPlane) -> None:
    await model(plane)
    arn = (await plane.call("describe_model", ModelName="m"))["ModelArn"]
    added = await plane.call("add_tags", ResourceArn=arn, Tags=tags({"a": "1", "b": "2"}))
    assert added == {"Tags": tags({"a": "1", "b": "2"})}
    assert await plane.call("add_tags", ResourceArn=arn, Tags=tags({"a": "3"})) == {"Tags": tags({"a": "3", "b": "2"})}
    assert await plane.call("delete_tags", ResourceArn=arn, TagKeys=["b", "never"]) == {}
    assert await plane.call("list_tags", ResourceArn=arn) == {"Tags": tags({"a": "3"})}
    await plane.call("delete_model", ModelName="m")
    await model(plane)
    assert await plane.call("list_tags", ResourceArn=arn) == {"Tags": []}


async def test_a_resource_has_at_most_fifty_tags_and_none_twice(plane: ControlPlane) -> None:
    await model(plane)
    arn = (await plane.call("describe_model", ModelName="m"))["ModelArn"]
    await plane.call("add_tags", ResourceArn=arn, Tags=tags({f"k{i}": "" for i in range(50)}))
    assert "at most 50" in await plane.refused("add_tags", ResourceArn=arn, Tags=tags({"k50": ""}))
    assert "Duplicate tag key" in await plane.refused("add_tags", ResourceArn=arn, Tags=tags({"x": "1"}) * 2)
    first = await plane.call("list_tags", ResourceArn=arn, MaxResults=50)
    assert len(first["Tags"]) == 50
    assert "NextToken" not in first


@pytest.mark.parametrize(
    ("arn", "words"),
    [
        (f"arn:aws:sagemaker:{REGION}:{ACCOUNT}:model/gone", "Could not find model"),
        (f"arn:aws:sagemaker:eu-west-1:{ACCOUNT}:endpoint/e", "Could not find endpoint"),
        (f"arn:aws:sagemaker:{REGION}:999999999999:endpoint/e", "Could not find endpoint"),
        (f"arn:aws:sagemaker:{REGION}:{ACCOUNT}:training-job/t", "not supported"),
    ],
)
async def test_tags_of_what_is_not_there_are_refused(plane: ControlPlane, arn: str, words: str) -> None:
    calls: list[tuple[str, dict[str, Any]]] = [
        ("list_tags", {}),
        ("add_tags", {"Tags": tags({"k": "v"})}),
        ("delete_tags", {"TagKeys": ["k"]}),
    ]
    for operation, more in calls:
        assert words in await plane.refused(operation, ResourceArn=arn, **more)


async def test_an_operation_that_is_not_served_says_so(plane: ControlPlane) -> None:
    code, message = await plane.error("list_notebook_instances")
    assert "ListNotebookInstances" in message, (code, message)
