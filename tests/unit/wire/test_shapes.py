"""Our reading of a service model against botocore's own, for every operation of every service that Penstock touches."""

from __future__ import annotations

from typing import Any

import pytest

from penstock.control import models
from penstock.errors import AwsError
from penstock.wire.shapes import Shape, read_model
from tests.unit.wire.models import document, ours, theirs

SERVICES = ["sagemaker", "s3", "sts", "iam", "logs", "cloudwatch", "application-autoscaling"]


def same(mine: Shape, its: Any, seen: set[str]) -> None:
    assert mine.name == its.name
    # botocore calls a character a char, and keeps what belongs to the wire in `serialization`.
    assert mine.type == its.type_name
    assert mine.wire_name == its.serialization.get("name", "")
    assert mine.location == its.serialization.get("location", "")
    assert mine.payload == its.serialization.get("payload", "")
    assert mine.flattened == its.serialization.get("flattened", False)
    assert mine.streaming == its.serialization.get("streaming", False)
    assert mine.xml_attribute == its.serialization.get("xmlAttribute", False)
    assert mine.timestamp_format == its.serialization.get("timestampFormat", "")
    assert list(mine.required) == its.metadata.get("required", [])
    assert list(mine.enum) == its.metadata.get("enum", [])
    assert (mine.min, mine.max, mine.pattern or None) == tuple(its.metadata.get(k) for k in ("min", "max", "pattern"))
    if mine.name in seen:
        return
    seen.add(mine.name)
    match mine.type:
        case "structure":
            assert list(mine.members) == list(its.members)
            for name in mine.members:
                same(mine.members[name], its.members[name], seen)
        case "list":
            same(mine.element, its.member, seen)
        case "map":
            same(mine.key, its.key, seen)
            same(mine.value, its.value, seen)
        case _:
            pass


@pytest.mark.parametrize("service", SERVICES)
def test_every_operation_reads_as_botocore_reads_it(service: str) -> None:
    loaded = document(service)
    model, oracle = ours(service, loaded), theirs(service, loaded)
    assert model.served == set(oracle.operation_names)
    assert model.target_prefix == oracle.metadata.get("targetPrefix", "")
    for name in oracle.operation_names:
        mine, its = model.operation(name), oracle.operation_model(name)
        assert (mine.method, mine.uri) == (its.http["method"], its.http["requestUri"])
        for side in ("input", "output"):
            a, b = getattr(mine, side), getattr(its, f"{side}_shape")
            assert (a is None) == (b is None), (name, side)
            if a is not None:
                same(a, b, set())


def test_a_cut_model_keeps_the_shapes_that_its_operations_reach() -> None:
    loaded = document("sagemaker")
    model = ours("sagemaker", loaded, "CreateEndpoint", "DescribeEndpoint")
    oracle = theirs("sagemaker", loaded)
    for name in model.served:
        mine = model.operation(name)
        assert mine.input is not None
        assert mine.output is not None
        same(mine.input, oracle.operation_model(name).input_shape, set())
        same(mine.output, oracle.operation_model(name).output_shape, set())
    assert len(model.document["shapes"]) < 200


def test_an_operation_that_is_not_served_is_told_from_one_that_does_not_exist() -> None:
    model = ours("sts", document("sts"), "GetCallerIdentity")
    with pytest.raises(AwsError, match="does not serve the operation AssumeRole of sts") as caught:
        model.operation("AssumeRole")
    assert caught.value.status == 501
    with pytest.raises(KeyError):
        model.operation("Nonsense")


def test_serving_an_operation_that_the_model_lacks_is_refused() -> None:
    with pytest.raises(ValueError, match="sts has no operation Nonsense"):
        read_model("sts", b'{"operations": {}, "shapes": {}, "metadata": {}}', ["Nonsense"])


def test_models_come_from_the_installed_data() -> None:
    model = models.load("sts", frozenset({"GetCallerIdentity"}))
    assert model.api_version == "2011-06-15"
    with pytest.raises(FileNotFoundError, match="no service nothing"):
        models.load("nothing", frozenset())
