"""CloudWatch Logs as boto3 reads it, over files as replicas' log writers leave them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import boto3
import pytest
from botocore.config import Config
from botocore.exceptions import ClientError

from penstock.control.neighbours.logs import Logs
from penstock.control.service import AwsService
from penstock.placement import logs as store
from tests.wire.serving import ACCOUNT, SECRET, application, serve

GROUP = "/aws/sagemaker/Endpoints/falcon"
ONE, TWO = "AllTraffic/i-0123456789abcdef0", "AllTraffic/i-0fedcba9876543210"


def write(root: Path, endpoint: str, stream: str, lines: list[tuple[int, str]]) -> None:
    directory = store.stream_directory(root, ACCOUNT, "us-east-1", endpoint, stream)
    directory.mkdir(parents=True)
    encoded = b"".join(store.encode(store.Line(t, "stdout", m)) for t, m in lines)
    store.segment_path(directory, 0).write_bytes(encoded)


@pytest.fixture(scope="module")
def logs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    root = tmp_path_factory.mktemp("logs")
    write(root, "falcon", ONE, [(1000 + 10 * i, f"one {i} {'ERROR' if i % 5 == 0 else 'INFO'}") for i in range(20)])
    write(root, "falcon", TWO, [(1005 + 10 * i, f"two {i}") for i in range(10)])
    write(root, "bulky", ONE, [(i, "x" * 200_000) for i in range(12)])
    write(root, "short-lived", ONE, [(1, "a")])
    with serve(application({"logs": AwsService("logs", Logs(root).operations()).handle})) as port:
        yield boto3.client(
            "logs",
            endpoint_url=f"http://127.0.0.1:{port}",
            region_name="us-east-1",
            aws_access_key_id="AKIATEST",
            aws_secret_access_key=SECRET,
            config=Config(retries={"total_max_attempts": 1}),
        )


def messages(answer: Any) -> list[str]:
    return [event["message"] for event in answer["events"]]


def refused(call: Any, **arguments: Any) -> str:
    with pytest.raises(ClientError) as caught:
        call(**arguments)
    assert caught.value.response["ResponseMetadata"]["HTTPStatusCode"] == 400
    return str(caught.value.response["Error"]["Code"])


def test_groups_and_streams(logs: Any) -> None:
    found = [group["logGroupName"] for group in logs.describe_log_groups(logGroupNamePrefix=GROUP)["logGroups"]]
    assert found == [GROUP]
    assert len(logs.describe_log_groups(logGroupNamePattern="bulk")["logGroups"]) == 1
    pages = logs.get_paginator("describe_log_groups").paginate(PaginationConfig={"PageSize": 1})
    assert [len(page["logGroups"]) for page in pages][:2] == [1, 1]
    streams = logs.describe_log_streams(logGroupName=GROUP, orderBy="LastEventTime", descending=True)["logStreams"]
    assert [s["logStreamName"] for s in streams] == [ONE, TWO]
    assert (streams[0]["firstEventTimestamp"], streams[0]["lastEventTimestamp"]) == (1000, 1190)
    assert streams[0]["arn"].endswith(f"log-group:{GROUP}:log-stream:{ONE}")
    named = logs.describe_log_streams(logGroupName=GROUP, logStreamNamePrefix=TWO)["logStreams"]
    assert [s["logStreamName"] for s in named] == [TWO]


def test_filtering_merges_streams_by_time(logs: Any) -> None:
    """What the SageMaker SDK does while it waits for an endpoint."""
    answer = logs.filter_log_events(logGroupName=GROUP, logStreamNamePrefix="AllTraffic/", startTime=1000, endTime=1020)
    assert messages(answer) == ["one 0 ERROR", "two 0", "one 1 INFO", "two 1", "one 2 INFO"]
    assert [e["logStreamName"] for e in answer["events"]][:2] == [ONE, TWO]
    assert len({e["eventId"] for e in answer["events"]}) == 5
    assert "nextToken" not in answer


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [
        ("ERROR", ["one 0 ERROR", "one 5 ERROR", "one 10 ERROR", "one 15 ERROR"]),
        ("one ERROR -15", ["one 0 ERROR", "one 5 ERROR", "one 10 ERROR"]),
        ('"0 ERROR"', ["one 0 ERROR", "one 10 ERROR"]),
        ('?"one 1 " ?"two 3"', ["one 1 INFO", "two 3"]),
        ("error", []),
    ],
)
def test_filter_patterns(logs: Any, pattern: str, expected: list[str]) -> None:
    assert messages(logs.filter_log_events(logGroupName=GROUP, filterPattern=pattern)) == expected


def test_filtered_pages_join_without_gap_or_repeat(logs: Any) -> None:
    whole = messages(logs.filter_log_events(logGroupName=GROUP))
    assert len(whole) == 30
    for size in (1, 7, 29, 30, 31):
        pages = logs.get_paginator("filter_log_events").paginate(
            logGroupName=GROUP, PaginationConfig={"PageSize": size}
        )
        assert [m for page in pages for m in messages(page)] == whole


def test_a_stream_forwards_and_backwards(logs: Any) -> None:
    names = {"logGroupName": GROUP, "logStreamName": ONE}
    last = logs.get_log_events(limit=3, **names)
    assert [m.split()[1] for m in messages(last)] == ["17", "18", "19"]
    before = logs.get_log_events(limit=3, nextToken=last["nextBackwardToken"], **names)
    assert [m.split()[1] for m in messages(before)] == ["14", "15", "16"]
    again = logs.get_log_events(limit=3, nextToken=before["nextForwardToken"], **names)
    assert messages(again) == messages(last)
    end = logs.get_log_events(nextToken=again["nextForwardToken"], **names)
    assert (messages(end), end["nextForwardToken"]) == ([], again["nextForwardToken"])
    first = logs.get_log_events(limit=2, startFromHead=True, **names)
    assert [m.split()[1] for m in messages(first)] == ["0", "1"]
    start = logs.get_log_events(nextToken=first["nextBackwardToken"], **names)
    assert (messages(start), start["nextBackwardToken"]) == ([], first["nextBackwardToken"])
    window = logs.get_log_events(startFromHead=True, startTime=1010, endTime=1030, **names)
    assert [e["timestamp"] for e in window["events"]] == [1010, 1020]


def test_pages_hold_at_most_a_megabyte(logs: Any) -> None:
    names = {"logGroupName": "/aws/sagemaker/Endpoints/bulky", "logStreamName": ONE}
    seen: list[int] = []
    token: dict[str, Any] = {"startFromHead": True}
    while (page := logs.get_log_events(**names, **token))["events"]:
        assert len(page["events"]) <= 5
        seen += [e["timestamp"] for e in page["events"]]
        token = {"nextToken": page["nextForwardToken"]}
    assert seen == list(range(12))
    seen, token = [], {}
    while (page := logs.get_log_events(**names, **token))["events"]:
        seen = [e["timestamp"] for e in page["events"]] + seen
        token = {"nextToken": page["nextBackwardToken"]}
    assert seen == list(range(12))
    pages = logs.get_paginator("filter_log_events").paginate(logGroupName=names["logGroupName"])
    assert [e["timestamp"] for page in pages for e in page["events"]] == list(range(12))


def test_what_is_not_there(logs: Any) -> None:
    for group in (
        "/aws/sagemaker/Endpoints/none",
        "/aws/lambda/f",
        "/aws/sagemaker/Endpoints/..",
        "/aws/sagemaker/Endpoints/a/b",
    ):
        assert refused(logs.filter_log_events, logGroupName=group) == "ResourceNotFoundException"
        assert refused(logs.describe_log_streams, logGroupName=group) == "ResourceNotFoundException"
        assert refused(logs.get_log_events, logGroupName=group, logStreamName=ONE) == "ResourceNotFoundException"
    for stream in ("AllTraffic/i-0", "../../x", "x"):
        assert refused(logs.get_log_events, logGroupName=GROUP, logStreamName=stream) == "ResourceNotFoundException"


def test_what_is_refused(logs: Any) -> None:
    for arguments in (
        {"nextToken": "!"},
        {"nextToken": "e30="},
        {"filterPattern": "{ $.a = 1 }"},
        {"filterPattern": '"open'},
        {"logStreamNames": [ONE], "logStreamNamePrefix": "A"},
        {"limit": 10_001},
    ):
        assert refused(logs.filter_log_events, logGroupName=GROUP, **arguments) == "InvalidParameterException"
    assert (
        refused(logs.get_log_events, logGroupName=GROUP, logStreamName=ONE, nextToken="x/1")
        == "InvalidParameterException"
    )
    both = {"logGroupNamePrefix": "a", "logGroupNamePattern": "a"}
    assert refused(logs.describe_log_groups, **both) == "InvalidParameterException"


def test_logs_can_be_deleted(logs: Any) -> None:
    group = "/aws/sagemaker/Endpoints/short-lived"
    logs.delete_log_stream(logGroupName=group, logStreamName=ONE)
    assert logs.describe_log_streams(logGroupName=group)["logStreams"] == []
    logs.delete_log_group(logGroupName=group)
    assert refused(logs.delete_log_group, logGroupName=group) == "ResourceNotFoundException"
