"""boto3, newest and of September 2023, and aiobotocore: streams read whole, errors in AWS's shape."""

from __future__ import annotations

import json
from typing import Any, get_args

import pytest

from tests.clients.conftest import RunProgram, Url

pytestmark = [pytest.mark.clients, pytest.mark.timeout(300)]


URLS: tuple[Url, ...] = get_args(Url)


def lmi_text(parts: list[str]) -> str:
    """What the LMI jsonlines say, whatever the borders of the parts."""
    return "".join(json.loads(line)["outputs"][0] for line in "".join(parts).splitlines())


def tgi_events(parts: list[str]) -> list[dict[str, Any]]:
    """The TGI events, whatever the borders of the parts."""
    return [json.loads(event.removeprefix("data:")) for event in "".join(parts).split("\n\n") if event]


@pytest.mark.parametrize("url", URLS)
@pytest.mark.parametrize("environment", ["boto3-2023", "sdk-v2"], ids=["1.28 of 2023", "newest"])
def test_boto3_streams_from_both_servers(
    environment: str, url: Url, run_program: RunProgram, endpoints: dict[str, str]
) -> None:
    seen = run_program(environment, "boto3_streams.py", endpoints["lmi"], endpoints["tgi"], url=url)
    assert seen["botocore"].startswith("1.31." if environment == "boto3-2023" else "1.44.")

    assert seen["variant"] == "AllTraffic"
    assert seen["lmi_content_type"] == "application/jsonlines"
    assert len(seen["lmi_parts"]) == 12, "one PayloadPart for each token's chunk"
    assert seen["tgi_content_type"].startswith("text/event-stream")
    events = tgi_events(seen["tgi_parts"])
    assert len(events) == 12
    assert events[-1]["generated_text"] == lmi_text(seen["lmi_parts"]), "greedy: both servers say the same"
    assert seen["whole"][0]["generated_text"].endswith(events[-1]["generated_text"])

    unknown = seen["errors"]["unknown"]
    assert (unknown["code"], unknown["status"]) == ("ValidationError", 400)
    assert unknown["message"] == "Endpoint no-such-endpoint of account 123456789012 not found."
    malformed = seen["errors"]["malformed"]
    assert (malformed["code"], malformed["status"], malformed["original"]) == ("ModelError", 424, 400)
    assert malformed["message"].startswith("Received client error (400) from primary with message")


@pytest.mark.parametrize("url", URLS)
def test_aiobotocore_reads_two_streams_at_once(url: Url, run_program: RunProgram, endpoints: dict[str, str]) -> None:
    seen = run_program("aiobotocore", "aiobotocore_streams.py", endpoints["lmi"], endpoints["tgi"], url=url)
    assert lmi_text(seen["lmi_parts"]) == tgi_events(seen["tgi_parts"])[-1]["generated_text"] != ""
