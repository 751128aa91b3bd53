"""CloudWatch Logs over what replicas really wrote.

Owns the operations' rules: names, time ranges, tokens, pages of at most a megabyte. Where lines lie is `placement/logs.py`'s.
AWS: "GetLogEvents", "FilterLogEvents", Amazon CloudWatch Logs API Reference.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from penstock.control.neighbours.filters import read_filter
from penstock.control.service import Caller, Operation
from penstock.errors import AwsError
from penstock.placement import logs
from penstock.placement.logs import LogEvent, LogStream, Mark

Params = dict[str, Any]
Output = dict[str, Any]
T = TypeVar("T")
_PAGE_BYTES = 1024 * 1024
_EVENT_BYTES = 26
"""What AWS counts for an event besides its message."""
_MOST_EVENTS = 10_000
_MOST_DESCRIBED = 50


class Logs:
    """The operations over the files below `root` (`Paths.logs`)."""

    def __init__(self, root: Path) -> None:
        self._root = root

    def operations(self) -> Mapping[str, Operation]:
        return {
            "DescribeLogGroups": self._describe_log_groups,
            "DescribeLogStreams": self._describe_log_streams,
            "FilterLogEvents": self._filter_log_events,
            "GetLogEvents": self._get_log_events,
            "DeleteLogGroup": self._delete_log_group,
            "DeleteLogStream": self._delete_log_stream,
        }

    async def _describe_log_groups(self, caller: Caller, params: Params) -> Output:
        prefix, part = params.get("logGroupNamePrefix"), params.get("logGroupNamePattern")
        if prefix is not None and part is not None:
            raise _invalid("LogGroup name prefix and LogGroup name pattern are mutually exclusive parameters.")
        found = await asyncio.to_thread(
            logs.list_groups, self._root, caller.account, caller.region, prefix=prefix or ""
        )
        page, token = _described([group for group in found if part is None or part in group.name], params)
        return {
            "logGroups": [
                {
                    "logGroupName": group.name,
                    "creationTime": group.created_ms,
                    "metricFilterCount": 0,
                    "arn": f"{_arn(caller, group.name)}:*",
                    "logGroupArn": _arn(caller, group.name),
                    "logGroupClass": "STANDARD",
                }
                for group in page
            ],
            "nextToken": token,
        }

    async def _describe_log_streams(self, caller: Caller, params: Params) -> Output:
        endpoint, prefix = _group(params), params.get("logStreamNamePrefix") or ""
        by_time = params.get("orderBy") == "LastEventTime"
        if by_time and prefix:
            raise _invalid("Cannot order by LastEventTime with a logStreamNamePrefix.")
        found = list(
            await _reading(
                lambda: logs.list_streams(self._root, caller.account, caller.region, endpoint, prefix=prefix)
            )
        )
        found.sort(
            key=lambda s: (s.last_ms, s.name) if by_time else (0, s.name), reverse=bool(params.get("descending"))
        )
        page, token = _described(found, params)
        group = _arn(caller, logs.group_name(endpoint))
        return {"logStreams": [_stream(group, stream) for stream in page], "nextToken": token}

    async def _filter_log_events(self, caller: Caller, params: Params) -> Output:
        endpoint, limit = _group(params), params.get("limit", _MOST_EVENTS)
        names, prefix = params.get("logStreamNames"), params.get("logStreamNamePrefix")
        if names is not None and prefix is not None:
            raise _invalid("Specify either logStreamNames or logStreamNamePrefix, not both.")
        matches, after = read_filter(params.get("filterPattern") or ""), _read_mark(params.get("nextToken"))
        page = await _reading(
            lambda: logs.filter_events(
                self._root,
                caller.account,
                caller.region,
                endpoint,
                prefix=prefix or "",
                streams=tuple(names or ()),
                start_ms=params.get("startTime", 0),
                end_ms=params.get("endTime", logs.FOREVER_MS)
                + 1,  # here, unlike in GetLogEvents, the end belongs to it
                after=after,
                limit=limit,
                matches=matches,
            )
        )
        events = page.events[: _fitting(page.events)]
        resume = page.after if len(events) == len(page.events) else events[-1].mark
        return {
            "events": [{**_event(e), "logStreamName": e.stream, "eventId": e.id} for e in events],
            "searchedLogStreams": [],
            "nextToken": _write_mark(resume) if resume else None,
        }

    async def _get_log_events(self, caller: Caller, params: Params) -> Output:
        endpoint, stream = _group(params), params["logStreamName"]
        direction, position = _read_position(params.get("nextToken"))
        forward = direction == "f" if direction else bool(params.get("startFromHead"))
        start_ms, end_ms = params.get("startTime", 0), params.get("endTime", logs.FOREVER_MS)
        limit = params.get("limit", _MOST_EVENTS)

        def read() -> logs.Page:
            directory = logs.stream_directory(self._root, caller.account, caller.region, endpoint, stream)
            if forward:
                return logs.read_forward(
                    directory, position=position or 0, limit=limit, start_ms=start_ms, end_ms=end_ms
                )
            return logs.read_backward(directory, position=position, limit=limit, start_ms=start_ms, end_ms=end_ms)

        await _reading(lambda: logs.list_streams(self._root, caller.account, caller.region, endpoint, prefix="/"))
        page = await _reading(read, "stream")
        events, start, after = page.events, page.start, page.next
        if forward and (count := _fitting(events)) < len(events):
            events, after = events[:count], events[count].position
        elif not forward and (count := _fitting(events[::-1])) < len(events):
            events = events[len(events) - count :]
            start = events[0].position
        return {
            "events": [_event(e) for e in events],
            "nextForwardToken": f"f/{after:056d}/s",
            "nextBackwardToken": f"b/{start:056d}/s",
        }

    async def _delete_log_group(self, caller: Caller, params: Params) -> Output:
        endpoint = _group(params)
        await _reading(lambda: logs.delete_group(self._root, caller.account, caller.region, endpoint))
        return {}

    async def _delete_log_stream(self, caller: Caller, params: Params) -> Output:
        endpoint, stream = _group(params), params["logStreamName"]
        await _reading(
            lambda: logs.delete_stream(self._root, caller.account, caller.region, endpoint, stream), "stream"
        )
        return {}


async def _reading(read: Callable[[], T], what: str = "group") -> T:
    try:
        return await asyncio.to_thread(read)
    except (FileNotFoundError, ValueError):
        raise _no_group() if what == "group" else _no_stream() from None


def _no_group() -> AwsError:
    return AwsError("ResourceNotFoundException", "The specified log group does not exist.")


def _no_stream() -> AwsError:
    return AwsError("ResourceNotFoundException", "The specified log stream does not exist.")


def _invalid(message: str) -> AwsError:
    return AwsError("InvalidParameterException", message)


def _group(params: Params) -> str:
    """The group that is named, by name or by ARN, as `placement/logs.py` calls it. Raises AwsError where it can be none of ours."""
    if ("logGroupName" in params) == ("logGroupIdentifier" in params):
        raise _invalid("Specify either logGroupName or logGroupIdentifier.")
    group: str = params.get("logGroupName") or params["logGroupIdentifier"].rpartition("log-group:")[2].removesuffix(
        ":*"
    )
    try:
        return logs.group_named(group)
    except ValueError:
        raise _no_group() from None


def _arn(caller: Caller, group: str) -> str:
    return f"arn:aws:logs:{caller.region}:{caller.account}:log-group:{group}"


def _stream(group_arn: str, stream: LogStream) -> Output:
    return {
        "logStreamName": stream.name,
        "creationTime": stream.first_ms,
        "firstEventTimestamp": stream.first_ms or None,
        "lastEventTimestamp": stream.last_ms or None,
        "lastIngestionTime": stream.last_ms or None,
        "arn": f"{group_arn}:log-stream:{stream.name}",
        "storedBytes": stream.stored_bytes,
    }


def _event(event: LogEvent) -> Output:
    return {"timestamp": event.timestamp_ms, "message": event.message, "ingestionTime": event.timestamp_ms}


def _fitting(events: Sequence[LogEvent]) -> int:
    """How many of `events`, from the first on, fit a page; at least one."""
    room = _PAGE_BYTES
    for count, event in enumerate(events):
        room -= len(event.message.encode("utf-8")) + _EVENT_BYTES
        if room < 0:
            return max(1, count)
    return len(events)


def _described(found: Sequence[T], params: Params) -> tuple[Sequence[T], str | None]:
    token, most = params.get("nextToken", "0"), params.get("limit", _MOST_DESCRIBED)
    if not (token.isascii() and token.isdigit() and len(token) < 10):
        raise _invalid("The specified nextToken is invalid.")
    end = int(token) + most
    return found[int(token) : end], str(end) if end < len(found) else None


def _write_mark(mark: Mark) -> str:
    return base64.urlsafe_b64encode(msgspec.json.encode(mark)).decode("ascii")


def _read_mark(token: str | None) -> Mark | None:
    if token is None:
        return None
    try:
        return msgspec.json.decode(base64.urlsafe_b64decode(token.encode("ascii")), type=Mark)
    except (ValueError, binascii.Error):
        raise _invalid("The specified nextToken is invalid.") from None


def _read_position(token: str | None) -> tuple[str, int | None]:
    if token is None:
        return "", None
    direction, _, rest = token.partition("/")
    digits = rest.removesuffix("/s")
    if direction not in ("f", "b") or not (digits.isascii() and digits.isdigit() and len(digits) <= 56):
        raise _invalid("The specified nextToken is invalid.")
    return direction, int(digits)
