"""`penstock logs`: what an endpoint's replicas wrote, through CloudWatch Logs' API."""

from __future__ import annotations

import datetime
import time
from collections.abc import Iterator
from typing import Annotated, Any

import typer

from penstock.cli.app import Home, Json, app, print_json
from penstock.cli.server import Server, aws_errors, client, running


@app.command()
def logs(
    name: Annotated[str, typer.Argument(help="The endpoint.")],
    inference_component: Annotated[str | None, typer.Option(help="One of its components, instead.")] = None,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on until Ctrl-C.")] = False,
    tail: Annotated[int | None, typer.Option("--tail", "-n", help="Only the last N lines of what is there.")] = None,
    as_json: Json = False,
    home: Home = None,
) -> None:
    """Show an endpoint's logs, or a component's, every replica's, in order of time."""
    server = running(home)
    with aws_errors():
        group = group_of(name, inference_component)
        events = list(read(server, group))
        shown = events if tail is None else events[max(0, len(events) - tail) :]
        if as_json:
            print_json([dict(event) for event in shown])
            return
        for event in shown:
            _print(event)
        if follow:
            _follow(server, group, events)


def group_of(endpoint: str, component: str | None = None) -> str:
    """The log group of an endpoint's own replicas, or of a component's copies."""
    return f"/aws/sagemaker/InferenceComponents/{component}" if component else f"/aws/sagemaker/Endpoints/{endpoint}"


def read(server: Server, group: str, since_ms: int = 0) -> Iterator[dict[str, Any]]:
    """FilterLogEvents' events of a group from a time on. Raises botocore's ClientError where there is no such group."""
    cloudwatch = client(server, "logs")
    request: dict[str, Any] = {"logGroupName": group, "startTime": since_ms}
    while True:
        page = cloudwatch.filter_log_events(**request)
        yield from page["events"]
        if not (token := page.get("nextToken")):
            return
        request["nextToken"] = token


def last_lines(server: Server, name: str, count: int) -> list[str]:
    """The last lines of an endpoint's logs; none where there are no logs."""
    from botocore.exceptions import ClientError

    try:
        return [event["message"] for event in read(server, group_of(name))][-count:]
    except ClientError:
        return []


def _follow(server: Server, group: str, seen: list[dict[str, Any]]) -> None:
    shown = {event["eventId"] for event in seen}
    latest = max((event["timestamp"] for event in seen), default=0)
    while True:
        time.sleep(0.3)
        for event in read(server, group, latest):
            if event["eventId"] in shown:
                continue
            shown.add(event["eventId"])
            latest = max(latest, event["timestamp"])
            _print(event)


def _print(event: dict[str, Any]) -> None:
    at = datetime.datetime.fromtimestamp(event["timestamp"] / 1000, tz=datetime.UTC).astimezone()
    stream = event["logStreamName"].rsplit("/", 1)[-1]
    print(f"{at:%H:%M:%S}.{event['timestamp'] % 1000:03d} {stream} {event['message']}", flush=True)
