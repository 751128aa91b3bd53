"""One answer, over the fake's socket: its figures, its end, and above all its being stopped."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import pytest

from penstock.chat.generation import Answer, Generation
from penstock.config import Paths
from penstock.errors import AwsError
from penstock.gateway.tls import ensure_certificates
from tests.unit.chat.conftest import Start
from tests.unit.chat.fake_sagemaker import FakeEndpoint, Step
from tests.unit.client import formats
from tests.waiting import until

BODY = b'{"inputs": "hello"}'


def says(*pieces: str, then: AwsError | None = None) -> Any:
    """A script: one TGI event a part."""
    steps: list[Step] = [event + b"\n\n" for event in formats.tgi(pieces).split(b"\n\n") if event]
    return lambda body: [*steps, *([then] if then else [])]


def finished(generation: Generation) -> Answer:
    answer: Answer | None = None
    while answer is None or not answer.done:
        answer = generation.wait(answer, 10)
    return answer


def test_an_answer_and_its_figures(sagemaker: Start) -> None:
    fake = sagemaker(e=FakeEndpoint(says("Hello", " ", "world"), pause_s=0.02))
    generation = Generation("e", BODY)
    answer = finished(generation)
    assert (answer.text, answer.tokens, answer.problem, answer.stopped) == ("Hello world", 3, None, False)
    assert answer.first_s is not None
    assert 0.02 <= answer.first_s < answer.last_s
    assert answer.tokens_per_s == pytest.approx(2 / (answer.last_s - answer.first_s))
    kept: list[Answer] = []
    assert generation.settle(kept.append) == answer
    assert generation.settle(kept.append) is None
    assert kept == [answer]
    assert fake.endpoints["e"].bodies == [{"inputs": "hello"}]
    assert generation.join(5)


@pytest.mark.parametrize("tls", [False, True], ids=["plain", "tls"])
@pytest.mark.parametrize("silent", [False, True], ids=["between-tokens", "before-the-first-byte"])
def test_settling_closes_the_connection_at_once(
    sagemaker: Start, silent: bool, tls: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between two tokens that are a minute apart, and before the first byte, when botocore holds the only way to the socket."""
    endpoint = FakeEndpoint(says("Hello", *[" again"] * 50), pause_s=0.01, silent=silent)
    paths = Paths(tmp_path)
    if tls:
        ensure_certificates(paths)
        monkeypatch.setenv("AWS_CA_BUNDLE", str(paths.ca_certificate))
    sagemaker((paths.server_certificate, paths.server_key) if tls else None, e=endpoint)
    generation = Generation("e", BODY)
    if silent:
        until(lambda: endpoint.bodies, what="the request is there")
    else:
        assert generation.wait(generation.wait(None, 0), 10).text
        endpoint.pause_s = 60
    answer = generation.settle(lambda answer: None)
    assert answer is not None
    assert (answer.done, answer.stopped, answer.problem) == (True, True, None)
    assert answer.text.startswith("" if silent else "Hello")
    assert endpoint.client_left.wait(5)
    assert generation.join(5)
    assert len(endpoint.bodies) == 1  # nothing tried again
    assert generation.wait(None, 0) == answer  # what came after does not change it


def test_who_settles_second_finds_the_answer_kept(sagemaker: Start) -> None:
    """Two runs of the page's script settle one generation at the same time; the second then shows what the first kept."""
    sagemaker(e=FakeEndpoint(says("Hello", *[" again"] * 50), pause_s=0.01))
    generation = Generation("e", BODY)
    kept: list[Answer] = []
    keeping, may_keep = threading.Event(), threading.Event()

    def keep(answer: Answer) -> None:
        keeping.set()
        assert may_keep.wait(10)
        kept.append(answer)

    first = threading.Thread(target=generation.settle, args=(keep,))
    first.start()
    assert keeping.wait(10)
    seen: list[tuple[Answer | None, int]] = []
    second = threading.Thread(target=lambda: seen.append((generation.settle(kept.append), len(kept))))
    second.start()
    second.join(0.2)
    assert seen == []
    may_keep.set()
    second.join(10)
    first.join(10)
    assert seen == [(None, 1)]


def test_a_break_in_the_middle_keeps_the_text(sagemaker: Start) -> None:
    late = AwsError("ModelStreamError", "Your model primary did not complete sending the inference response.")
    sagemaker(e=FakeEndpoint(says("Hello", " wor", "ld", then=late)))
    answer = finished(Generation("e", BODY))
    assert answer.text == "Hello world"
    assert answer.problem is not None
    assert answer.problem.title == "The answer broke off: ModelStreamError."
    assert answer.problem.detail == late.message


def test_a_generation_that_is_refused(sagemaker: Start) -> None:
    members: dict[str, str | int] = {"OriginalStatusCode": 422, "OriginalMessage": "`inputs` cannot be empty"}
    refused = AwsError("ModelError", "Received client error (422) from primary", status=424, members=members)
    sagemaker(e=FakeEndpoint(says("Hello"), refuses=refused))
    answer = finished(Generation("e", BODY))
    assert answer.problem is not None
    assert (answer.problem.title, answer.problem.detail) == (
        "The model server answered with status 422.",
        "`inputs` cannot be empty",
    )
    gone = finished(Generation("gone", BODY)).problem
    assert gone is not None
    assert gone.title == "That endpoint is not there."
    assert "Endpoint gone of account 123456789012 not found." in gone.detail


def test_an_inference_component_is_named(sagemaker: Start) -> None:
    seen: list[dict[str, Any]] = []

    class Client:
        def invoke_endpoint_with_response_stream(self, **request: Any) -> dict[str, Any]:
            seen.append(request)
            raise ConnectionResetError("gone")

        def close(self) -> None:
            seen.append({})

    answer = finished(Generation("e", BODY, component="part", client=Client))
    assert seen == [
        {"EndpointName": "e", "ContentType": "application/json", "Body": BODY, "InferenceComponentName": "part"},
        {},
    ]
    assert answer.problem is not None
    assert answer.problem.title == "The request failed: ConnectionResetError."


def test_an_answer_that_never_ends_is_broken_off(sagemaker: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("penstock.chat.generation.MOST_TEXT", 10)
    endpoint = FakeEndpoint(says(*["Hello "] * 200), pause_s=0.01)
    sagemaker(e=endpoint)
    answer = finished(Generation("e", BODY))
    assert answer.text == "Hello Hello "
    assert answer.problem is not None
    assert answer.problem.title == "The answer does not end."
    assert endpoint.client_left.wait(5)
