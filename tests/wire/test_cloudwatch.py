"""CloudWatch's API by boto3, in each of its three protocols: what an endpoint's requests were, and what a program puts beside it."""

from __future__ import annotations

import contextlib
import datetime as dt
import json
from collections.abc import Iterator
from typing import Any

import pytest
from botocore import model
from botocore.exceptions import ClientError

from tests.running import Penstock
from tests.waiting import until

PROTOCOLS = ("json", "smithy-rpc-v2-cbor", "query")
OF_ENDPOINT = [{"Name": "EndpointName", "Value": "watched"}, {"Name": "VariantName", "Value": "AllTraffic"}]
SCRIPT: dict[str, Any] = {
    "choose": "do",
    "scripts": {
        "refuse": [{"status": 400}, {"send": "no"}],
        "fail": [{"status": 500}, {"send": "broken"}],
        "stream": [{"send": "a"}, {"wait_ms": 50}, {"send": "b"}],
        "break": [{"send": "a"}, {"wait_ms": 20}, {"end": "close"}],
    },
    "steps": [{"wait_ms": 20}, {"echo": "body"}],
}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Penstock]:
    """A server whose endpoint has answered ten requests of every kind."""
    penstock = Penstock(tmp_path_factory.mktemp("cloudwatch") / "home", "--workers", "2").start()
    script = f"PENSTOCK_SCRIPT={json.dumps(SCRIPT)}"
    penstock.cli("deploy", "scripted", "--name", "watched", "--count", "2", "--env", script)
    runtime = penstock.client("sagemaker-runtime")
    for _ in range(4):
        runtime.invoke_endpoint(EndpointName="watched", Body=b"{}")
    for kind in ("refuse", "fail", "fail"):
        with pytest.raises(ClientError):
            runtime.invoke_endpoint(EndpointName="watched", Body=json.dumps({"do": kind}))
    for kind in ("stream", "stream", "break"):
        answer = runtime.invoke_endpoint_with_response_stream(EndpointName="watched", Body=json.dumps({"do": kind}))
        with contextlib.suppress(Exception):
            list(answer["Body"])
    yield penstock
    assert penstock.stop() == 0


@pytest.fixture(params=PROTOCOLS)
def cloudwatch(server: Penstock, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setattr(model, "PRIORITY_ORDERED_SUPPORTED_PROTOCOLS", (request.param, *PROTOCOLS))
    client = server.client("cloudwatch", parameter_validation=False)  # the server must check
    assert client.meta.service_model.resolved_protocol == request.param
    return client


def an_hour(**more: Any) -> dict[str, Any]:
    now = dt.datetime.now(dt.UTC)
    return {"StartTime": now - dt.timedelta(minutes=59), "EndTime": now + dt.timedelta(minutes=1), **more}


def statistics(client: Any, name: str, **more: Any) -> dict[str, Any]:
    """The one datapoint of an hour."""
    everything = ["SampleCount", "Sum", "Average", "Minimum", "Maximum"]
    asked = an_hour(Namespace="AWS/SageMaker", MetricName=name, Dimensions=OF_ENDPOINT, Period=3600)
    answer = client.get_metric_statistics(**{"Statistics": everything, **asked, **more})
    assert answer["Label"] == name
    [point] = answer["Datapoints"]
    return dict(point)


def all_told(client: Any) -> None:
    def told() -> bool:
        with contextlib.suppress(ValueError):
            return bool(statistics(client, "Invocations")["Sum"] == 10)
        return False

    until(told, what="ten requests counted")


def test_requests_and_their_errors(cloudwatch: Any) -> None:
    all_told(cloudwatch)
    invocations = statistics(cloudwatch, "Invocations")
    assert (invocations["SampleCount"], invocations["Unit"]) == (10, "None")
    for name, errors in (("Invocation4XXErrors", 1), ("Invocation5XXErrors", 2), ("InvocationModelErrors", 3)):
        point = statistics(cloudwatch, name)
        assert (point["Sum"], point["SampleCount"]) == (errors, 10), name
        assert point["Average"] == pytest.approx(errors / 10)
        assert (point["Minimum"], point["Maximum"]) == (0, 1)
    assert statistics(cloudwatch, "MidStreamErrors")["Sum"] == 1
    assert statistics(cloudwatch, "InvocationsPerInstance")["Sum"] == pytest.approx(5)
    assert statistics(cloudwatch, "ConcurrentRequestsPerModel")["SampleCount"] > 0


def test_latencies_are_microseconds_with_percentiles(cloudwatch: Any) -> None:
    all_told(cloudwatch)
    for name in ("ModelLatency", "OverheadLatency", "FirstChunkLatency", "FirstChunkModelLatency"):
        point = statistics(cloudwatch, name, ExtendedStatistics=["p50", "p99"])
        assert point["Unit"] == "Microseconds"
        assert 0 < point["Minimum"] <= point["Average"] <= point["Maximum"] < 60e6
        assert point["Sum"] == pytest.approx(point["Average"] * point["SampleCount"])
        assert point["Minimum"] <= point["ExtendedStatistics"]["p50"] <= point["ExtendedStatistics"]["p99"]
        assert point["ExtendedStatistics"]["p99"] <= point["Maximum"]
    assert statistics(cloudwatch, "FirstChunkLatency")["SampleCount"] == 3
    assert statistics(cloudwatch, "ModelLatency")["Maximum"] >= 50_000, "the streams took 50 ms"


def test_list_metrics(cloudwatch: Any) -> None:
    all_told(cloudwatch)
    paginator = cloudwatch.get_paginator("list_metrics")
    found = [one for page in paginator.paginate(Namespace="AWS/SageMaker") for one in page["Metrics"]]
    assert all(one["Dimensions"] == OF_ENDPOINT for one in found)
    names = {one["MetricName"] for one in found}
    assert {"Invocations", "ModelLatency", "FirstChunkLatency", "MidStreamErrors", "OverheadLatency"} <= names
    filtered = cloudwatch.list_metrics(
        MetricName="Invocations", Dimensions=[{"Name": "EndpointName"}], RecentlyActive="PT3H"
    )
    assert [one["MetricName"] for one in filtered["Metrics"]] == ["Invocations"]
    none = cloudwatch.list_metrics(Dimensions=[{"Name": "EndpointName", "Value": "other"}])
    assert none["Metrics"] == []


def test_get_metric_data(cloudwatch: Any) -> None:
    all_told(cloudwatch)

    def query(number: int, name: str, stat: str, **more: Any) -> dict[str, Any]:
        metric = {"Namespace": "AWS/SageMaker", "MetricName": name, "Dimensions": OF_ENDPOINT}
        return {"Id": f"m{number}", "MetricStat": {"Metric": metric, "Period": 60, "Stat": stat}, **more}

    queries = [
        query(1, "Invocations", "Sum", Label="requests"),
        query(2, "ModelLatency", "p90"),
        query(3, "Invocations", "Average", ReturnData=False),
        query(4, "Nothing", "Sum"),
    ]
    answer = cloudwatch.get_metric_data(MetricDataQueries=queries, **an_hour())
    first, second, fourth = answer["MetricDataResults"]
    assert (first["Id"], first["Label"], first["StatusCode"]) == ("m1", "requests", "Complete")
    assert sum(first["Values"]) == 10
    assert first["Timestamps"] == sorted(first["Timestamps"], reverse=True)
    assert all(at.second == 0 for at in first["Timestamps"])
    assert second["Values"]
    assert fourth["Values"] == []
    pages = list(
        cloudwatch.get_paginator("get_metric_data").paginate(MetricDataQueries=queries, MaxDatapoints=1, **an_hour())
    )
    assert sum(sum(one["Values"]) for page in pages for one in page["MetricDataResults"] if one["Id"] == "m1") == 10
    assert len(pages) == len(first["Values"]) + len(second["Values"])


@pytest.mark.parametrize("count", [1, 400])
def test_what_a_program_puts_it_gets(cloudwatch: Any, count: int) -> None:
    """400 data are more than 10 KB: newer SDKs send them packed."""
    protocol = cloudwatch.meta.service_model.resolved_protocol
    namespace, now = f"mine/{protocol}/{count}", dt.datetime.now(dt.UTC)
    data: list[dict[str, Any]] = [
        {
            "MetricName": "depth",
            "Value": number,
            "Unit": "Count",
            "Timestamp": now,
            "Dimensions": [{"Name": "queue", "Value": "q" * 60}],
        }
        for number in range(1, count + 1)
    ]
    data.append({"MetricName": "many", "Values": [1.0, 2.0], "Counts": [3.0, 1.0]})
    data.append({"MetricName": "stated", "StatisticValues": {"SampleCount": 4, "Sum": 8, "Minimum": 1, "Maximum": 5}})
    cloudwatch.put_metric_data(Namespace=namespace, MetricData=data)

    def point(name: str, dimensions: list[dict[str, str]]) -> dict[str, Any]:
        return statistics(cloudwatch, name, Namespace=namespace, Dimensions=dimensions)

    depth = point("depth", [{"Name": "queue", "Value": "q" * 60}])
    assert (depth["SampleCount"], depth["Sum"], depth["Maximum"]) == (count, count * (count + 1) / 2, count)
    assert depth["Unit"] == "Count"
    assert point("many", [])["Sum"] == 5
    assert point("many", [])["SampleCount"] == 4
    assert (point("stated", [])["Average"], point("stated", [])["Minimum"]) == (2, 1)
    asked = an_hour(Namespace=namespace, MetricName="depth", Period=60, Statistics=["Sum"])
    assert cloudwatch.get_metric_statistics(**asked)["Datapoints"] == [], "dimensions must be the same"
    asked["Dimensions"] = [{"Name": "queue", "Value": "q" * 60}]
    assert cloudwatch.get_metric_statistics(Unit="Seconds", **asked)["Datapoints"] == []


@pytest.mark.parametrize(
    ("call", "arguments", "code", "words"),
    [
        ("get_metric_statistics", {"Period": 61, "Statistics": ["Sum"]}, "InvalidParameterValue", "multiple of 60"),
        ("get_metric_statistics", {"Period": 60}, "MissingParameter", "Statistics"),
        ("get_metric_statistics", {"Period": 60, "ExtendedStatistics": ["tm99"]}, "InvalidParameterValue", "tm99"),
        (
            "get_metric_statistics",
            {"Period": 60, "Statistics": ["Sum"], "StartTime": dt.datetime(2020, 1, 1, tzinfo=dt.UTC)},
            "InvalidParameterCombination",
            "exceeds the limit of 1,440",
        ),
        (
            "get_metric_statistics",
            {"Period": 60, "Statistics": ["Sum"], "EndTime": dt.datetime(2020, 1, 1, tzinfo=dt.UTC)},
            "InvalidParameterValue",
            "StartTime must be less than the parameter EndTime",
        ),
        (
            "get_metric_data",
            {"MetricDataQueries": [{"Id": "e", "Expression": "1+1"}]},
            "InvalidParameterValue",
            "expressions",
        ),
        ("list_metrics", {"NextToken": "???"}, "InvalidNextToken", "NextToken"),
        ("put_metric_data", {"Namespace": "AWS/Mine", "MetricData": []}, "InvalidParameterValue", "AWS/"),
        (
            "put_metric_data",
            {"Namespace": "n", "MetricData": [{"MetricName": "m"}]},
            "InvalidParameterCombination",
            "must be specified",
        ),
        ("put_metric_data", {"Namespace": "", "MetricData": []}, "ValidationError", "namespace"),
    ],
)
def test_what_breaks_the_rules_is_told_in_the_protocol_s_shape(
    cloudwatch: Any, call: str, arguments: dict[str, Any], code: str, words: str
) -> None:
    if call.startswith("get"):
        more = {"Namespace": "n", "MetricName": "m"} if call == "get_metric_statistics" else {}
        arguments = an_hour() | more | arguments
    with pytest.raises(ClientError) as refused:
        getattr(cloudwatch, call)(**arguments)
    assert refused.value.response["Error"]["Code"] == code
    assert words in refused.value.response["Error"]["Message"]
    assert refused.value.response["ResponseMetadata"]["HTTPStatusCode"] == 400
    assert refused.value.response["ResponseMetadata"]["RequestId"]


def test_an_operation_that_is_not_served_says_so(cloudwatch: Any) -> None:
    with pytest.raises(ClientError) as refused:
        cloudwatch.describe_alarms()
    assert refused.value.response["ResponseMetadata"]["HTTPStatusCode"] == 501
    assert refused.value.response["Error"]["Code"] == "NotImplemented"
