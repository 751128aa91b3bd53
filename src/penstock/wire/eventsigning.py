"""Signed event streams: each message wrapped in one that carries its time and its signature.

Owns the chain of signatures that begins with the request's own. Pure: clock and key are passed in. It must never do I/O, nor know what a
message means. AWS's page: "Event stream encoding" of Amazon Transcribe, which has the same envelopes; the SDKs make them for every service.
"""

from __future__ import annotations

import hmac
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from struct import Struct

from penstock.wire import refusals
from penstock.wire.eventstream import Message
from penstock.wire.refusals import Dialect
from penstock.wire.sigv4 import Claim, derive_key

EVENTS = "STREAMING-AWS4-HMAC-SHA256-EVENTS"
"""What a request says of its body when each event is signed."""
ALGORITHM = "AWS4-HMAC-SHA256-PAYLOAD"
DATE = ":date"
SIGNATURE = ":chunk-signature"

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_DATE_HEADER = Struct("!B5sBq")


def date_header(milliseconds: int) -> bytes:
    """The envelope's headers as they are signed: the date alone, in the encoding of the event stream."""
    return _DATE_HEADER.pack(5, DATE.encode(), 8, milliseconds)


def event_signature(secret: str, claim: Claim, previous: bytes, milliseconds: int, payload: bytes) -> bytes:
    """The signature of one envelope. `previous` is the one before it, of the first the request's own."""
    time = (_EPOCH + timedelta(milliseconds=milliseconds)).strftime("%Y%m%dT%H%M%SZ")
    scope = f"{time[:8]}/{claim.region}/{claim.service}/aws4_request"
    headers = sha256(date_header(milliseconds)).hexdigest()
    text = f"{ALGORITHM}\n{time}\n{scope}\n{previous.hex()}\n{headers}\n{sha256(payload).hexdigest()}"
    return hmac.digest(derive_key(secret, time[:8], claim.region, claim.service), text.encode(), "sha256")


class EventVerifier:
    """One request's chain. `required` is whether a message without a signature is refused; one with a wrong one always is."""

    def __init__(
        self, claim: Claim, secret: str, *, skew: float, required: bool, dialect: Dialect = "rest-json"
    ) -> None:
        self._claim, self._secret = claim, secret
        self._skew, self._required, self._dialect = skew, required, dialect
        self._previous = bytes.fromhex(claim.signature)  # it was compared with ours before anybody comes here

    def unwrap(self, message: Message, now: float) -> Message | bytes:
        """What the envelope holds: the bytes of a message, or none at the end. A message that need be no envelope, and is none, itself.

        `now` is seconds since the epoch. Raises AwsError (InvalidSignatureException, MissingAuthenticationTokenException).
        """
        signature, date = message.headers.get(SIGNATURE), message.headers.get(DATE)
        if signature is None and not self._required:
            return message
        if not isinstance(signature, bytes) or not isinstance(date, datetime):
            raise refusals.missing(self._dialect)
        if len(message.headers) > 2:  # nothing signs the others
            raise refusals.mismatch(self._dialect, self._claim.access_key, signature.hex())
        milliseconds = (date - _EPOCH) // timedelta(milliseconds=1)
        self._check_time(milliseconds / 1000, now)
        expected = event_signature(self._secret, self._claim, self._previous, milliseconds, message.payload)
        if not hmac.compare_digest(expected, signature):
            raise refusals.mismatch(self._dialect, self._claim.access_key, signature.hex())
        self._previous = expected
        return message.payload

    def _check_time(self, time: float, now: float) -> None:
        stamp = refusals.stamp(max(time, 0.0))
        if now - time > self._skew:
            raise refusals.expired(self._dialect, stamp, now, self._skew)
        if time - now > self._skew:
            raise refusals.not_yet(self._dialect, stamp, now, self._skew)
