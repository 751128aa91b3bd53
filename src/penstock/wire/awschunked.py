"""S3's `aws-chunked` bodies: data in sized chunks, each perhaps signed, then trailing headers.

Owns the framing, incrementally: bytes go in as they come, in any slices, data and at last the trailers come out. It must never do I/O or
hold more than a line: data is handed on as it arrives, so nothing may be believed before `finish` has returned.
AWS: "Signature calculations for the Authorization header: Transferring payload in multiple chunks", and its page on trailing headers.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Iterator
from typing import Literal

from penstock.errors import AwsError

STREAMING = "STREAMING-"
SIGNED = frozenset({"STREAMING-AWS4-HMAC-SHA256-PAYLOAD", "STREAMING-AWS4-HMAC-SHA256-PAYLOAD-TRAILER"})
UNSIGNED_TRAILER = "STREAMING-UNSIGNED-PAYLOAD-TRAILER"

_LINE_BYTES = 8 * 1024
_TRAILER_BYTES = 16 * 1024
_SIZE_DIGITS = 12
_TRAILER_SIGNATURE = "x-amz-trailer-signature"
_NO_BYTES = hashlib.sha256().hexdigest()

State = Literal["size", "data", "end of data", "trailer", "done"]


class ChunkSigner:
    """Checks the chain of signatures that begins with the request's own (the seed). `key` is the day's signing key."""

    def __init__(self, key: bytes, *, time: str, scope: str, seed: str) -> None:
        self._key = key
        self._prefix = f"{time}\n{scope}"
        self._previous = seed

    def check_chunk(self, sha256: str, signature: str) -> None:
        """Raises AwsError SignatureDoesNotMatch."""
        self._check(f"AWS4-HMAC-SHA256-PAYLOAD\n{self._prefix}\n{self._previous}\n{_NO_BYTES}\n{sha256}", signature)

    def check_trailers(self, canonical: bytes, signature: str) -> None:
        """`canonical` is each trailer as `name:value\\n`. Raises AwsError SignatureDoesNotMatch."""
        digest = hashlib.sha256(canonical).hexdigest()
        self._check(f"AWS4-HMAC-SHA256-TRAILER\n{self._prefix}\n{self._previous}\n{digest}", signature)

    def _check(self, text: str, signature: str) -> None:
        expected = hmac.digest(self._key, text.encode("utf-8", "surrogateescape"), "sha256").hex()
        if not hmac.compare_digest(expected.encode(), signature.encode("utf-8", "surrogateescape")):
            raise AwsError(
                "SignatureDoesNotMatch",
                "The request signature we calculated does not match the signature you provided. "
                "Check your key and signing method.",
                status=403,
            )
        self._previous = expected


class ChunkedDecoder:
    """Takes a body apart. `length` is `x-amz-decoded-content-length`, None where the client does not say.

    With a `signer` every chunk must be signed, and the trailers too where there are some.
    """

    def __init__(self, *, length: int | None = None, signer: ChunkSigner | None = None) -> None:
        self._length = length
        self._signer = signer
        self._state: State = "size"
        self._line = bytearray()
        self._left = 0
        self._last = False
        self._seen = 0
        self._signature = ""
        self._hash = hashlib.sha256()
        self._trailers: list[tuple[str, str]] = []
        self._trailer_bytes = 0

    def feed(self, data: bytes) -> Iterator[bytes]:
        """The object's bytes in `data`. Raises AwsError on bad framing, a wrong signature, or more data than was declared."""
        at = 0
        while at < len(data):
            if self._state == "data":
                piece = data[at : at + self._left]
                at += len(piece)
                yield self._data(piece)
            elif self._state == "done":
                raise _bad_framing()
            else:
                at = self._take_line(data, at)

    def finish(self) -> dict[str, str]:
        """The trailers, names in lower case, when the body is over. Raises AwsError IncompleteBody where it was not whole."""
        if self._state != "done" or (self._length is not None and self._seen != self._length):
            raise AwsError("IncompleteBody", "The request body terminated unexpectedly")
        return dict(self._trailers)

    def _data(self, piece: bytes) -> bytes:
        self._seen += len(piece)
        if self._length is not None and self._seen > self._length:
            raise AwsError("IncompleteBody", "The request body is longer than x-amz-decoded-content-length says")
        self._left -= len(piece)
        if self._signer is not None:
            self._hash.update(piece)
        if self._left == 0:
            self._state = "end of data"
        return piece

    def _take_line(self, data: bytes, at: int) -> int:
        """Moves bytes up to the next line end into the line, acts on it when it is whole, and tells where to go on."""
        end = data.find(b"\n", at, at + _LINE_BYTES + 1)
        after = end + 1 if end >= 0 else min(len(data), at + _LINE_BYTES + 1)
        self._line += data[at:after]
        if len(self._line) > _LINE_BYTES:
            raise _bad_framing()
        if end >= 0:
            if not self._line.endswith(b"\r\n"):
                raise _bad_framing()
            line = bytes(self._line[:-2])
            self._line.clear()
            self._on_line(line)
        return after

    def _on_line(self, line: bytes) -> None:
        if self._state == "size":
            self._on_size(line)
        elif self._state == "end of data":
            if line:
                raise _bad_framing()
            self._check_chunk()
            self._state = "size"
        elif line:
            self._on_trailer(line)
        else:
            self._check_trailers()
            self._state = "done"

    def _on_size(self, line: bytes) -> None:
        size, _, extension = line.partition(b";")
        if not size or len(size) > _SIZE_DIGITS or not all(c in b"0123456789abcdefABCDEF" for c in size):
            raise _bad_framing()
        name, _, signature = extension.partition(b"=")
        self._signature = signature.decode("latin-1").strip() if name == b"chunk-signature" else ""
        self._left = int(size, 16)
        self._hash = hashlib.sha256()
        if self._left:
            self._state = "data"
        else:
            self._check_chunk()
            self._state = "trailer"

    def _check_chunk(self) -> None:
        if self._signer is not None:
            self._signer.check_chunk(self._hash.hexdigest(), self._signature)

    def _on_trailer(self, line: bytes) -> None:
        self._trailer_bytes += len(line)
        name, colon, value = line.partition(b":")
        if not colon or not name.strip() or self._trailer_bytes > _TRAILER_BYTES:
            raise _bad_trailer()
        self._trailers.append((name.decode("latin-1").strip().lower(), value.decode("latin-1").strip()))

    def _check_trailers(self) -> None:
        signed = [(name, value) for name, value in self._trailers if name != _TRAILER_SIGNATURE]
        if self._signer is not None and signed:
            canonical = "".join(f"{name}:{value}\n" for name, value in signed).encode("latin-1")
            self._signer.check_trailers(canonical, dict(self._trailers).get(_TRAILER_SIGNATURE, ""))
        self._trailers = signed


def _bad_framing() -> AwsError:
    return AwsError("InvalidRequest", "The body is not a valid aws-chunked stream.")


def _bad_trailer() -> AwsError:
    return AwsError(
        "MalformedTrailerError",
        "The request contained trailing data that was not well-formed or did not conform to our published schema.",
    )
