"""An object's body on its way to the disk: unframed, hashed, bounded, checked against all that the client says of it.

Owns the order of these and the memory that they take: a megabyte a request, whatever its size. It must never know an operation.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import suppress
from typing import Any, TypeVar

import anyio

from penstock.control.neighbours.s3 import checksums, errors
from penstock.control.neighbours.s3.checksums import Digests
from penstock.control.neighbours.s3.records import Writer
from penstock.control.neighbours.s3.store import ObjectStore
from penstock.errors import AwsError
from penstock.wire.awschunked import SIGNED, STREAMING, UNSIGNED_TRAILER, ChunkedDecoder, ChunkSigner
from penstock.wire.messages import WireRequest
from penstock.wire.refusals import wrong_body
from penstock.wire.sigv4 import Request, derive_key, is_hash, read_claim

T = TypeVar("T")
_PIECE = 1024 * 1024
_DRAIN_BYTES = 1024**3
_DRAIN_S = 5.0

Secrets = Callable[[str], str | None]
"""The secret of an access key."""


class DiskThreads:
    """Runs what blocks on the disk in a few threads. A caller that is cancelled leaves only when the thread is done with its file."""

    def __init__(self, threads: int = 8) -> None:
        self._limiter = anyio.CapacityLimiter(threads)

    async def __call__(self, function: Callable[..., T], *args: Any) -> T:
        return await anyio.to_thread.run_sync(function, *args, limiter=self._limiter)


class Stream:
    """A request's body, of which is known whether it has been read to its end.

    `awaited` says that the client waits for a `100 Continue`, which the server sends when the first piece is asked for.
    """

    def __init__(self, pieces: AsyncIterator[bytes], *, awaited: bool) -> None:
        self._pieces = pieces
        self._awaited = awaited
        self._broken = False
        self.ended = False

    async def next(self, idle_s: float) -> bytes | None:
        """The next piece, None at the end. Raises AwsError RequestTimeout."""
        self._awaited = False
        try:
            async with asyncio.timeout(idle_s):
                return await anext(self._pieces)
        except StopAsyncIteration:
            self.ended = True
            return None
        except TimeoutError:
            self._broken = True  # the iterator was closed in the middle: what it gives from now on is no end
            raise errors.request_timeout() from None

    async def drain(self, limit: int = _DRAIN_BYTES, idle_s: float = _DRAIN_S) -> bool:
        """Reads and drops what is left: a connection that is closed on a sender takes the answer with it.

        False where that is too much, or where the client was never told to send: then the connection is of no more use.
        """
        if self._awaited or self._broken:
            return False
        with suppress(AwsError):
            while not self.ended and limit > 0:
                limit -= len(await self.next(idle_s) or b"")
        return self.ended


async def receive(
    head: WireRequest,
    stream: Stream,
    store: ObjectStore,
    disk: DiskThreads,
    *,
    secrets: Secrets,
    limit: int,
    idle_s: float,
    algorithm: str = "",
) -> Writer:
    """The body, written and verified, but not yet sealed: the caller commits or discards it.

    `algorithm` is a checksum to compute besides those that come along. Raises AwsError: EntityTooLarge, IncompleteBody, BadDigest,
    XAmzContentSHA256Mismatch, RequestTimeout and their like; then nothing is left on the disk.
    """
    headers = head.headers
    declared = headers.get("x-amz-content-sha256", "")
    decoder = _decoder(head, declared, secrets)
    length = _number(headers, "x-amz-decoded-content-length" if decoder else "content-length")
    if length is not None and length > limit:
        raise errors.entity_too_large(length, limit)
    md5 = checksums.content_md5(headers)
    algorithms = {*checksums.announced(headers), *([algorithm] if algorithm else [])}
    writer = await disk(store.writer, Digests(algorithms, sha256=is_hash(declared)))
    try:
        await _write(stream, decoder, writer, disk, limit, idle_s)
        trailers = decoder.finish() if decoder else {}
        if length is not None and writer.digests.size != length:
            raise errors.incomplete_body()
        _verify(writer.digests, headers, trailers, declared, md5)
    except BaseException:
        with anyio.CancelScope(shield=True):
            await disk(writer.discard)
        raise
    return writer


def _decoder(head: WireRequest, declared: str, secrets: Secrets) -> ChunkedDecoder | None:
    if not declared.startswith(STREAMING):
        return None
    length = _number(head.headers, "x-amz-decoded-content-length")
    if declared == UNSIGNED_TRAILER:
        return ChunkedDecoder(length=length)
    if declared not in SIGNED:
        raise errors.not_implemented("x-amz-content-sha256")
    claim = read_claim(Request(head.method, head.path, head.query, head.headers), "s3")
    secret = secrets(claim.access_key)
    if secret is None:
        raise errors.access_denied()
    key = derive_key(secret, claim.date, claim.region, claim.service)
    return ChunkedDecoder(
        length=length, signer=ChunkSigner(key, time=claim.time, scope=claim.scope, seed=claim.signature)
    )


def _number(headers: Mapping[str, str], name: str) -> int | None:
    value = headers.get(name)
    if value is None:
        return None
    if not (value.isascii() and value.isdigit() and len(value) < 19):
        raise errors.invalid_argument(f"The header {name} must be a number", name, value)
    return int(value)


async def _write(
    stream: Stream,
    decoder: ChunkedDecoder | None,
    writer: Writer,
    disk: DiskThreads,
    limit: int,
    idle_s: float,
) -> None:
    buffer = bytearray()
    while (chunk := await stream.next(idle_s)) is not None:
        if decoder is None:
            buffer += chunk
        else:
            for piece in decoder.feed(chunk):
                buffer += piece
        if writer.digests.size + len(buffer) > limit:
            raise errors.entity_too_large(writer.digests.size + len(buffer), limit)
        if len(buffer) >= _PIECE:
            await disk(writer.write, bytes(buffer))
            buffer.clear()
    if buffer:
        await disk(writer.write, bytes(buffer))


def _verify(
    digests: Digests, headers: Mapping[str, str], trailers: Mapping[str, str], declared: str, md5: bytes | None
) -> None:
    if is_hash(declared) and digests.sha256 != declared.lower():
        raise wrong_body("s3")
    if md5 is not None and digests.md5 != md5:
        raise errors.bad_digest("Content-MD5")
    promised = {name.strip().lower() for name in headers.get("x-amz-trailer", "").split(",") if name.strip()}
    if not promised <= trailers.keys():
        raise AwsError("MalformedTrailerError", "The request contained trailing data that was not well-formed.")
    found = digests.checksums()
    for algorithm, value in {**checksums.given(headers), **checksums.given(trailers)}.items():
        if found.get(algorithm) != value:
            raise errors.bad_digest(algorithm)


def check_whole(body: bytes, headers: Mapping[str, str]) -> None:
    """The checksums of a small body that is XML. Those of a completed upload speak of the object, and are left to it.

    Raises AwsError as `receive` does.
    """
    digests = Digests(checksums.announced(headers) if "x-amz-sdk-checksum-algorithm" in headers else (), sha256=True)
    digests.update(body)
    declared = headers.get("x-amz-content-sha256", "")
    md5 = checksums.content_md5(headers)
    if is_hash(declared) and digests.sha256 != declared.lower():
        raise wrong_body("s3")
    if md5 is not None and digests.md5 != md5:
        raise errors.bad_digest("Content-MD5")
    for algorithm, value in digests.checksums().items():
        if checksums.given(headers).get(algorithm, value) != value:
            raise errors.bad_digest(algorithm)
