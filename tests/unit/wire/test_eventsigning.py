"""Signed event streams: envelopes that AWS's own signer made, and what is wrong with others."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from penstock.errors import AwsError
from penstock.wire.eventsigning import EventVerifier, date_header, event_signature
from penstock.wire.eventstream import Decoder, Message
from penstock.wire.sigv4 import Claim

# Made by aws-sdk-signers 0.4.0 and smithy-aws-event-stream 0.3.0 at NOW, from the secret and the seed below: an event, and the end.
ENVELOPES = bytes.fromhex(
    "000000a800000043caa01b14053a6461746508000001a213f8ff53103a6368756e6b2d7369676e6174757265060020eb1f3966bd9ff9bcce69db0b434ea3206f75"
    "307ff4ca5087984695b7e3c4b9ce0000005500000040e30dde420d3a6d6573736167652d747970650700056576656e740b3a6576656e742d7479706507000b5061"
    "796c6f6164506172740844617461547970650700045554463868656c6c6fc5f7be2616923419"
    "0000005300000043f5447a58053a6461746508000001a213f8ff53103a6368756e6b2d7369676e6174757265060020be26e31dc5929fa9e0c1ee51a73c38880e4d"
    "7a40fc35eaa7186c97386522fe1287e8083e"
)
SECRET = "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY"
CLAIM = Claim("AKIDEXAMPLE", "20261125", "us-east-1", "sagemaker", (), "ab" * 32, "20261125T183000Z")
WHEN = datetime(2026, 11, 25, 18, 30, 15, 123000, tzinfo=UTC)
NOW = WHEN.timestamp()


def envelopes() -> list[Message]:
    return Decoder().feed(ENVELOPES)


def verifier(*, required: bool = True, secret: str = SECRET) -> EventVerifier:
    return EventVerifier(CLAIM, secret, skew=900, required=required)


def refusal(message: Message, now: float = NOW, *, required: bool = True) -> str:
    with pytest.raises(AwsError) as caught:
        verifier(required=required).unwrap(message, now)
    assert caught.value.status == 403
    return caught.value.code


def test_what_awss_signer_made_is_believed_in_order() -> None:
    first, last = envelopes()
    chain = verifier()
    inner = chain.unwrap(first, NOW)
    assert isinstance(inner, bytes)
    (event,) = Decoder().feed(inner)
    assert (event.headers["DataType"], event.payload) == ("UTF8", b"hello")
    assert chain.unwrap(last, NOW) == b""


def test_order_secret_time_and_content_are_under_the_signature() -> None:
    first, last = envelopes()
    assert refusal(last) == "InvalidSignatureException", "the second is no first"
    assert refusal(replace(first, payload=first.payload + b"x")) == "InvalidSignatureException"
    later = {**first.headers, ":date": WHEN + timedelta(milliseconds=1)}
    assert refusal(replace(first, headers=later)) == "InvalidSignatureException"
    assert refusal(replace(first, headers={**first.headers, "more": "x"})) == "InvalidSignatureException"
    with pytest.raises(AwsError):
        verifier(secret="another").unwrap(first, NOW)


@pytest.mark.parametrize("off", [-901, 901])
def test_an_event_of_another_hour(off: float) -> None:
    assert refusal(envelopes()[0], NOW + off) == "InvalidSignatureException"


def test_an_event_far_from_all_time() -> None:
    for when in (datetime(1, 1, 1, tzinfo=UTC), datetime(9999, 12, 31, tzinfo=UTC)):
        first = envelopes()[0]
        assert refusal(replace(first, headers={**first.headers, ":date": when})) == "InvalidSignatureException"


def test_no_signature_where_one_is_promised_and_where_none_is() -> None:
    bare = Message({":message-type": "event"}, b"bare")
    assert refusal(bare) == "MissingAuthenticationTokenException"
    assert verifier(required=False).unwrap(bare, NOW) is bare
    first = envelopes()[0]
    assert isinstance(verifier(required=False).unwrap(first, NOW), bytes), "an envelope is opened all the same"
    assert refusal(replace(first, payload=b""), required=False) == "InvalidSignatureException"
    assert refusal(replace(first, headers={":date": WHEN, ":chunk-signature": "text"})) == (
        "MissingAuthenticationTokenException"
    )


def test_the_chain_goes_on_over_midnight() -> None:
    """Each event's key and scope are those of its own day, whatever the request's."""
    midnight = int(datetime(2026, 11, 26, tzinfo=UTC).timestamp() * 1000)
    one = event_signature(SECRET, CLAIM, bytes.fromhex(CLAIM.signature), midnight, b"x")
    assert one == event_signature(SECRET, replace_date(CLAIM), bytes.fromhex(CLAIM.signature), midnight, b"x")
    assert date_header(midnight)[:7] == b"\x05:date\x08"


def replace_date(claim: Claim) -> Claim:
    return Claim(claim.access_key, "20200101", claim.region, claim.service, (), claim.signature, "20200101T000000Z")
