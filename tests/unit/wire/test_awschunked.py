"""aws-chunked bodies: any slicing of the same bytes gives the same result, and no damage passes for an object."""

from __future__ import annotations

import hashlib
import hmac
import io
import random
from itertools import pairwise

import pytest
from botocore.httpchecksum import AwsChunkedWrapper, Crc32Checksum
from hypothesis import given, settings
from hypothesis import strategies as st

from penstock.errors import AwsError
from penstock.wire.awschunked import ChunkedDecoder, ChunkSigner

KEY, TIME, SCOPE, SEED = b"k" * 32, "20260131T120000Z", "20260131/us-east-1/s3/aws4_request", "ab" * 32


def decode(
    slices: list[bytes], *, length: int | None = None, signer: ChunkSigner | None = None
) -> tuple[bytes, dict[str, str]]:
    decoder = ChunkedDecoder(length=length, signer=signer)
    data = b"".join(piece for part in slices for piece in decoder.feed(part))
    return data, decoder.finish()


def sliced(body: bytes, cuts: list[int]) -> list[bytes]:
    edges = [0, *sorted(c % (len(body) + 1) for c in cuts), len(body)]
    return [body[a:b] for a, b in pairwise(edges)]


def frame(chunks: list[bytes], trailers: dict[str, str]) -> bytes:
    body = b"".join(b"%x\r\n%b\r\n" % (len(chunk), chunk) for chunk in chunks if chunk)
    return body + b"0\r\n" + "".join(f"{k}:{v}\r\n" for k, v in trailers.items()).encode() + b"\r\n"


def sign(chunks: list[bytes], trailers: dict[str, str]) -> bytes:
    """The naive twin: the whole body at once, as the signing page describes it."""
    previous, out = SEED, b""

    def step(kind: str, text: str) -> str:
        return hmac.digest(KEY, f"{kind}\n{TIME}\n{SCOPE}\n{previous}\n{text}".encode(), "sha256").hex()

    for chunk in [*(c for c in chunks if c), b""]:
        empty = hashlib.sha256(b"").hexdigest()
        previous = step("AWS4-HMAC-SHA256-PAYLOAD", f"{empty}\n{hashlib.sha256(chunk).hexdigest()}")
        out += b"%x;chunk-signature=%b\r\n%b" % (len(chunk), previous.encode(), chunk + b"\r\n" if chunk else b"")
    if trailers:
        lines = "".join(f"{k}:{v}\n" for k, v in trailers.items())
        out += lines.replace("\n", "\r\n").encode()
        signature = step("AWS4-HMAC-SHA256-TRAILER", hashlib.sha256(lines.encode()).hexdigest())
        out += f"x-amz-trailer-signature:{signature}\r\n".encode()
    return out + b"\r\n"


TRAILERS = st.dictionaries(
    st.sampled_from(["x-amz-checksum-crc32", "x-amz-checksum-sha256"]), st.just("AAAAAA=="), max_size=2
)
CHUNKS = st.lists(st.binary(max_size=80), max_size=5)
CUTS = st.lists(st.integers(0, 10_000), max_size=30)


@given(chunks=CHUNKS, trailers=TRAILERS, cuts=CUTS, tell=st.booleans())
def test_any_slicing_gives_the_same(chunks: list[bytes], trailers: dict[str, str], cuts: list[int], tell: bool) -> None:
    whole = b"".join(chunks)
    body = frame(chunks, trailers)
    assert decode(sliced(body, cuts), length=len(whole) if tell else None) == (whole, trailers)
    assert decode([body[i : i + 1] for i in range(len(body))]) == (whole, trailers)


@given(chunks=CHUNKS, trailers=TRAILERS, cuts=CUTS)
def test_signed_chunks_and_trailers(chunks: list[bytes], trailers: dict[str, str], cuts: list[int]) -> None:
    signer = ChunkSigner(KEY, time=TIME, scope=SCOPE, seed=SEED)
    assert decode(sliced(sign(chunks, trailers), cuts), signer=signer) == (b"".join(chunks), trailers)


@settings(max_examples=300)
@given(data=st.data(), chunks=st.lists(st.binary(min_size=1, max_size=40), min_size=1, max_size=4), trailers=TRAILERS)
def test_no_changed_byte_passes_a_signature(data: st.DataObject, chunks: list[bytes], trailers: dict[str, str]) -> None:
    body = bytearray(sign(chunks, trailers))
    at = data.draw(st.integers(0, len(body) - 1))
    body[at] ^= data.draw(st.integers(1, 255))
    signer = ChunkSigner(KEY, time=TIME, scope=SCOPE, seed=SEED)
    try:
        result = decode([bytes(body)], signer=signer)
    except AwsError:
        return
    # What may change is how a size, a name or a signature is written (spaces, letter case), never what is said.
    assert result == (b"".join(chunks), trailers)


def test_a_chunk_may_not_go_unsigned_where_signatures_are_due() -> None:
    signer = ChunkSigner(KEY, time=TIME, scope=SCOPE, seed=SEED)
    with pytest.raises(AwsError) as caught:
        decode([frame([b"data"], {})], signer=signer)
    assert (caught.value.code, caught.value.status) == ("SignatureDoesNotMatch", 403)


@given(chunks=CHUNKS, trailers=TRAILERS, cut=st.integers(0, 10_000))
def test_a_body_cut_short_is_incomplete(chunks: list[bytes], trailers: dict[str, str], cut: int) -> None:
    body = frame(chunks, trailers)
    with pytest.raises(AwsError) as caught:
        decode([body[: cut % len(body)]])
    assert caught.value.code == "IncompleteBody"


@pytest.mark.parametrize(
    ("body", "code"),
    [
        (b"\r\n", "InvalidRequest"),
        (b"zz\r\n", "InvalidRequest"),
        (b"-1\r\n", "InvalidRequest"),
        (b"1\nx", "InvalidRequest"),
        (b"f" * 13 + b"\r\n", "InvalidRequest"),
        (b"1\r\nxy\r\n", "InvalidRequest"),
        (b"1" * 20_000, "InvalidRequest"),
        (b"0\r\n\r\nmore", "InvalidRequest"),
        (b"0\r\nno colon\r\n\r\n", "MalformedTrailerError"),
        (
            b"0\r\n" + b"a:" + b"b" * 8000 + b"\r\na:" + b"b" * 8000 + b"\r\na:" + b"b" * 8000 + b"\r\n",
            "MalformedTrailerError",
        ),
    ],
)
def test_bad_framing_is_refused(body: bytes, code: str) -> None:
    for slices in ([body], [body[i : i + 1] for i in range(len(body))]):
        with pytest.raises(AwsError) as caught:
            decode(slices)
        assert caught.value.code == code


@pytest.mark.parametrize("length", [0, 3, 5])
def test_the_declared_length_must_be_true(length: int) -> None:
    with pytest.raises(AwsError) as caught:
        decode([frame([b"four"], {})], length=length)
    assert caught.value.code == "IncompleteBody"


@settings(max_examples=1000)
@given(body=st.binary(max_size=200), cuts=CUTS)
def test_garbage_gives_an_error_or_a_result_never_anything_else(body: bytes, cuts: list[int]) -> None:
    outcomes = []
    for slices in ([body], sliced(body, cuts)):
        try:
            outcomes.append(repr(decode(slices)))
        except AwsError as error:
            outcomes.append(error.code)
    assert outcomes[0] == outcomes[1]


def test_what_botocore_sends_is_read(rng: random.Random) -> None:
    data = rng.randbytes(3_000_000)
    wrapper = AwsChunkedWrapper(
        io.BytesIO(data), checksum_cls=Crc32Checksum, checksum_name="x-amz-checksum-crc32", chunk_size=1_000_000
    )
    body = wrapper.read()
    decoded, trailers = decode([body[i : i + 65_536] for i in range(0, len(body), 65_536)], length=len(data))
    assert decoded == data
    checksum = Crc32Checksum()
    checksum.update(data)
    assert trailers == {"x-amz-checksum-crc32": checksum.b64digest()}
