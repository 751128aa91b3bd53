"""What can be done to a tape: compare, trim, scrub."""

from __future__ import annotations

import json
from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from penstock.tape import Edge, Failure, Head, Part, Request, Tape, diff, scrub, trim
from penstock.tape.whole import mask

URL = (
    "https://runtime.sagemaker.us-east-1.amazonaws.com/endpoints/e/invocations?X-Amz-Signature=s3cret&X-Amz-Date=1&q=ok"
)
HEAD = Head(
    endpoint="e",
    status=200,
    headers={"x-amzn-sagemaker-content-type": "text/event-stream", "set-cookie": "s3cret"},
    request=Request(
        url=URL,
        headers={"authorization": "s3cret", "X-Amz-Security-Token": "s3cret", "accept": "*/*"},
        body=b'{"inputs":"Wer?"}',
    ),
)
TAPE = Tape(
    HEAD,
    (Part(10, b'data:{"token":{"text":"Gr'), Part(20, "ößer".encode()), Part(30, b' 12.5e3\\n"}}\n\n')),
    Edge(40, "clean"),
)


def test_the_same_is_no_difference() -> None:
    assert list(diff(TAPE, replace(TAPE, head=replace(HEAD, recorded="later")))) == []


def test_each_difference_is_one_line() -> None:
    other = Tape(
        replace(HEAD, status=424, headers={}),
        (TAPE.parts[0], Part(20, b"X")),
        Failure(40, "ModelStreamError", "gone", {"ErrorCode": "StreamBroken"}),
    )
    lines = list(diff(TAPE, other))
    assert [line.partition(":")[0] for line in lines] == ["status", "content type", "end", "parts", "part 2", "part 3"]
    assert lines[2] == "end: clean | ModelStreamError (StreamBroken): gone"


def test_times_count_on_request_alone() -> None:
    late = replace(TAPE, parts=tuple(replace(part, t=part.t + 5) for part in TAPE.parts))
    assert list(diff(TAPE, late)) == []
    assert list(diff(TAPE, late, within_ms=6)) == []
    assert len(list(diff(TAPE, late, within_ms=4))) == 3


def test_content_without_its_borders() -> None:
    joined = replace(TAPE, parts=(Part(30, TAPE.content),))
    assert list(diff(TAPE, joined, content_only=True)) == []
    (line,) = diff(TAPE, replace(TAPE, parts=(Part(1, b"data;"),)), content_only=True)
    assert line.startswith("content, byte 4: ")


def test_trim_gives_the_beginning_and_a_clean_end() -> None:
    broken = replace(TAPE, last=Failure(40, "ModelStreamError", "gone"))
    assert trim(broken, parts=3) == broken
    assert trim(broken, parts=2) == Tape(HEAD, TAPE.parts[:2], Edge(20, "clean", "trimmed"))
    assert trim(broken, ms=15).parts == TAPE.parts[:1]
    assert trim(broken, ms=35).last == Edge(30, "clean", "trimmed")
    assert trim(broken, parts=0) == Tape(HEAD, (), Edge(0, "clean", "trimmed"))


def test_scrub_always_takes_secrets() -> None:
    scrubbed = scrub(TAPE)
    assert "s3cret" not in repr(scrubbed)
    assert scrubbed.head.request.headers["accept"] == "*/*"
    assert "q=ok" in scrubbed.head.request.url
    assert scrubbed.parts == TAPE.parts


def test_scrubbed_content_keeps_lengths_borders_and_json() -> None:
    scrubbed = scrub(TAPE, content=True)
    assert [len(part.content) for part in scrubbed.parts] == [len(part.content) for part in TAPE.parts]
    assert scrubbed.content.decode() == 'data:{"token":{"text":"xxßßxx 11.1e1\\n"}}\n\n'
    assert scrubbed.head.request.body == b'{"inputs":"xxx?"}'


def test_scrubbed_messages_say_nothing_either() -> None:
    refused = Tape(
        HEAD, (), Failure(1, "ModelError", 'says "Geheim"', {"OriginalMessage": "Geheim", "OriginalStatusCode": 500})
    )
    assert "Geheim" not in repr(scrub(refused, content=True))


@given(content=st.binary(max_size=80))
def test_masking_keeps_every_length(content: bytes) -> None:
    assert len(mask(content)) == len(content)


@given(text=st.text(max_size=60))
def test_masking_keeps_utf8_and_line_ends(text: str) -> None:
    masked = mask(text.encode()).decode()
    assert masked.count("\n") == text.count("\n")
    assert len(masked) == len(text)


@given(
    value=st.recursive(
        st.none()
        | st.booleans()
        | st.integers()
        | st.floats(allow_nan=False, allow_infinity=False)
        | st.text(max_size=12),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
        max_leaves=8,
    ),
    escaped=st.booleans(),
)
def test_masked_json_is_json(value: object, escaped: bool) -> None:
    json.loads(mask(json.dumps(value, ensure_ascii=escaped).encode()))
