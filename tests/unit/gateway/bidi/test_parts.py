"""Parts of a conversation as events and back."""

from __future__ import annotations

import pytest

from penstock.errors import AwsError
from penstock.gateway.bidi.errors import container_closed, error_message, renamed
from penstock.gateway.bidi.parts import Part, only_message, part_message, read_part, structured_error
from penstock.wire.eventstream import Decoder, Message, encode_message

EVENT = {":message-type": "event", ":event-type": "PayloadPart"}


def decoded(raw: bytes) -> Message:
    (message,) = Decoder().feed(raw)
    return message


@pytest.mark.parametrize("text", [True, False])
@pytest.mark.parametrize("last", [True, False])
def test_a_part_survives_the_way_there_and_back(text: bool, last: bool) -> None:
    part = Part(b"data", text, last)
    assert read_part(decoded(part_message(part))) == part


def test_what_a_client_leaves_out() -> None:
    assert read_part(Message(EVENT, b"x")) == Part(b"x", None, True)
    assert read_part(Message({**EVENT, "P": "aaaa"}, b"x")) == Part(b"x", None, True)
    assert read_part(Message({":message-type": "event", ":event-type": "initial-request"}, b"{}")) is None


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {":message-type": "exception", ":exception-type": "x"},
        {**EVENT, ":event-type": "Other"},
        {**EVENT, "DataType": "utf8"},
        {**EVENT, "DataType": 7},
        {**EVENT, "CompletionState": "DONE"},
        {**EVENT, "CompletionState": True},
    ],
    ids=str,
)
def test_what_is_no_part(headers: dict[str, str | int]) -> None:
    with pytest.raises(AwsError) as caught:
        read_part(Message(headers, b""))
    assert (caught.value.code, caught.value.status) == ("InputValidationError", 400)


@pytest.mark.parametrize("raw", [b"x", encode_message({}, b"") * 2, encode_message({}, b"")[:-1], b"\0" * 40])
def test_an_envelope_holds_one_message(raw: bytes) -> None:
    with pytest.raises(AwsError, match="signed message"):
        only_message(raw)


def test_a_container_s_own_error() -> None:
    told = structured_error(Part(b'{"ModelStreamError": {"ErrorCode": "A", "Message": "b"}}', True))
    assert told is not None
    assert (told.code, told.message, told.members) == ("ModelStreamError", "b", {"ErrorCode": "A"})


@pytest.mark.parametrize(
    "part",
    [
        Part(b'{"ModelStreamError": {"ErrorCode": "A", "Message": "b"}}', False),
        Part(b'{"ModelStreamError": {"ErrorCode": "A", "Message": "b"}}', True, False),
        Part(b'{"ModelStreamError": {"ErrorCode": "A"}}', True),
        Part(b'{"ModelStreamError": {"ErrorCode": "A", "Message": "b"}, "more": 1}', True),
        Part(b'{"ModelStreamError": "A"}', True),
        Part(b'{"ModelStreamError"', True),
        Part(b'{"ModelStreamError":' + b"[" * 100_000, True),
        Part(b"anything", True),
    ],
    ids=lambda part: repr(part)[:60],
)
def test_what_is_said_is_no_error(part: Part) -> None:
    assert structured_error(part) is None


def test_errors_by_this_service_s_names() -> None:
    names = {"ValidationError": "InputValidationError", "InternalFailure": "InternalServerError"}
    names |= {"ServiceUnavailable": "ServiceUnavailableError", "ModelError": "ModelError"}
    for code, renamed_to in names.items():
        error = AwsError(code, "text", status=503, members={"ErrorCode": "X"})
        assert (renamed(error).code, renamed(error).status, renamed(error).members) == (renamed_to, 503, error.members)


def test_an_error_in_the_stream_is_an_exception_where_the_model_has_it() -> None:
    modeled = decoded(error_message(container_closed("primary", 1011, "why")))
    assert modeled.headers[":exception-type"] == "ModelStreamError"
    general = decoded(error_message(AwsError("ValidationError", "x" * 5000)))
    assert (general.headers[":message-type"], general.headers[":error-code"]) == ("error", "InputValidationError")
    assert general.headers[":error-message"] == "x" * 2048
