"""The compiled twin and Python read, sign and write the same: over usual inputs, and over usual inputs that have been damaged."""

from __future__ import annotations

import hashlib
import hmac
import json
from random import Random
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from penstock._speed import COMPILED, WHY_NOT
from penstock.errors import AwsError
from penstock.gateway.headers import STREAMED, UNARY, to_container_here
from penstock.gateway.quick import read_answer_here, read_request_here
from penstock.gateway.trace import line_here
from penstock.wire import sigv4

pytestmark = pytest.mark.skipif(not COMPILED, reason=f"no compiled twin: {WHY_NOT}")
if COMPILED:
    from penstock._speed import native

NAMES = (
    *(
        "Host",
        "content-type",
        "Content-Length",
        "USER-AGENT",
        "Authorization",
        "X-Amz-Date",
        "Accept",
        "Date",
        "X-Amz-Target",
    ),
    *(
        "Connection",
        "Expect",
        "Keep-Alive",
        "TE",
        "Trailer",
        "Transfer-Encoding",
        "Upgrade",
        "x-a",
        "X" * 64,
        "X" * 65,
        "Te2",
    ),
)
LONGEST = 600

values = st.one_of(
    st.sampled_from(
        [
            "",
            "a",
            "localhost:80",
            "a b",
            "a ",
            " a",
            "\ta",
            "a\t",
            "0",
            "12",
            "9" * 15,
            "9" * 16,
            "3",
            "\xe9",
            "\x7f",
            "a,b",
        ]
    ),
    st.text(st.characters(min_codepoint=32, max_codepoint=126), max_size=20),
)
lines = st.lists(st.tuples(st.sampled_from(NAMES), st.sampled_from([":", ": ", ":\t", " :", ""]), values), max_size=8)
firsts = st.sampled_from(
    [
        *("POST /endpoints/e/invocations HTTP/1.1", "GET / HTTP/1.1", "GET /a?b=c?d HTTP/1.1", "HEAD /? HTTP/1.1"),
        *(
            "POST  / HTTP/1.1",
            "POST / HTTP/1.0",
            "POST /#a HTTP/1.1",
            "PATCH / HTTP/1.1",
            "PUT http://a/ HTTP/1.1",
            "GET /a b HTTP/1.1",
        ),
        *(
            "DELETE /" + "x" * 494 + " HTTP/1.1",
            "DELETE /" + "x" * 495 + " HTTP/1.1",
            "GET HTTP/1.1",
            "POST / HTTP/1.1 ",
            "POST",
            "",
        ),
    ]
)
statuses = st.sampled_from(
    [
        *(
            "HTTP/1.1 200 OK",
            "HTTP/1.1 404 Not\tFound",
            "HTTP/1.1 599 ",
            "HTTP/1.1 204 No",
            "HTTP/1.1 304 No",
            "HTTP/1.1 100 Continue",
        ),
        *(
            "HTTP/1.1 600 A",
            "HTTP/1.0 200 OK",
            "HTTP/1.1 200",
            "HTTP/1.1 20 O",
            "HTTP/1.1 200 \x01",
            "HTTP/1.1 200 " + "x" * 498,
        ),
        *(
            "HTTP/1.1 200 " + "x" * 499,
            "HTTP/1.1 2",
            "",
            "HTTP/1.1  200 OK",
            "HTTP/1.1 2\u0663\u0663 OK".encode().decode("latin-1"),
        ),
    ]
)


@st.composite
def messages(draw: st.DrawFn, first: st.SearchStrategy[str]) -> bytes:
    """A head, often a good one, and a body; at times with a byte changed, left out or put in."""
    found = draw(lines)
    if draw(st.booleans()):
        found = [("Host", ": ", "a"), *(one for one in found if one[0] != "Host")]
    body = draw(st.sampled_from([b"", b"abc", b"x" * 12]))
    if draw(st.booleans()):
        found = [("Content-Length", ": ", str(len(body))), *(one for one in found if one[0] != "Content-Length")]
    text = "\r\n".join((draw(first), *(f"{name}{colon}{value}" for name, colon, value in found), "", ""))
    data = bytearray(text.encode("latin-1") + body)
    for at, how, byte in draw(
        st.lists(st.tuples(st.integers(0, 10_000), st.integers(0, 2), st.integers(0, 255)), max_size=2)
    ):
        at %= len(data) + 1
        data[at : at + (how > 0)] = bytes([byte]) if how < 2 else b""
    return bytes(data)


@given(messages(firsts), st.integers(0, LONGEST))
@example(b"POST / HTTP/1.1\r\nHost: a\r\n\r\n", 24)
@example(b"POST / HTTP/1.1\r\nHost: a\r\n\r\n", 23)
@example(b"POST / HTTP/1.1\r\n\r\n", 500)
@example(b"POST / HTTP/1.1\r\nHost: a\r\n\r", 500)
def test_a_request_is_read_the_same(data: bytes, longest: int) -> None:
    here = read_request_here(data, longest)
    read = native.request_head(data, longest)
    assert (here is None) == (read is None)
    if here is None or read is None:
        return
    head, body, length = here
    method, path, query, headers, begin, at, announced = read
    assert (method, path, query, list(headers.items())) == (
        head.method,
        head.path,
        head.query,
        list(head.headers.items()),
    )
    assert (at, announced) == (body, length)
    assert data[begin : at - 4] == head.as_sent


@given(messages(statuses))
@example(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
@example(b"HTTP/1.1 200 OK\r\n\r\n")
def test_an_answer_is_read_the_same(data: bytes) -> None:
    assert native.whole_answer(data) == read_answer_here(data)


def signed(method: str, path: str, query: str, headers: dict[str, str], body: bytes) -> dict[str, str]:
    """The headers with an Authorization for all of them, made from the canonical form of Python."""
    headers = {"host": "a", "x-amz-date": "20261125T070000Z", **headers}
    names = tuple(sorted(headers))
    claim = sigv4.Claim("AKID", "20261125", "us-east-1", "sagemaker", names, "", headers["x-amz-date"])
    request = sigv4.Request(method, path, query, headers)
    canonical = next(sigv4.canonical_requests(request, claim, hashlib.sha256(body).hexdigest()))
    key = sigv4.derive_key("secret", claim.date, claim.region, claim.service)
    signature = hmac.new(key, sigv4.string_to_sign(claim, canonical), "sha256").hexdigest()
    credential = f"AKID/{claim.scope}"
    headers["authorization"] = (
        f"{sigv4.ALGORITHM} Credential={credential}, SignedHeaders={';'.join(names)}, Signature={signature}"
    )
    return headers


KEY = sigv4.Key("secret")
header_values = st.one_of(
    st.text(st.characters(max_codepoint=1000), max_size=30), st.text(st.sampled_from("ab \t\x1c\xe9"), max_size=8)
)


def both(request: sigv4.Request, digest: str, monkeypatch: pytest.MonkeyPatch) -> list[object]:
    """What either twin makes of a request: an identity, or an error's code and text."""
    found: list[object] = []
    for compiled in (True, False):
        with monkeypatch.context() as patch:
            patch.setattr(sigv4, "COMPILED", compiled)
            try:
                found.append(
                    sigv4.verify(
                        request,
                        keys={"AKID": KEY}.get,
                        now=1795590000.0,
                        skew=1e9,
                        body_sha256=digest,
                        dialect="rest-json",
                    )
                )
            except AwsError as error:
                found.append((error.code, error.message, error.status))
    return found


@given(
    st.sampled_from(["/endpoints/e/invocations", "/", "/a b", "/a/../b", "/\xe9", "/" + "x" * 5000]),
    st.sampled_from(["", "b=2&a=1", "a", "a=%2f&a=", "X-Amz-Signature=1"]),
    st.dictionaries(st.sampled_from(["x-a", "x-b", "content-type", "x-amz-content-sha256"]), header_values),
    st.binary(max_size=300),
    st.one_of(st.none(), st.tuples(st.integers(0, 400), st.characters(max_codepoint=300))),
)
def test_a_signature_holds_for_both_or_for_neither(
    path: str, query: str, headers: dict[str, str], body: bytes, damage: tuple[int, str] | None
) -> None:
    if "x-amz-content-sha256" in headers:
        headers["x-amz-content-sha256"] = hashlib.sha256(body).hexdigest()
    made = signed("POST", path, query, headers, body)
    if damage is not None:
        at, sign = damage
        text = made["authorization"]
        at %= len(text)
        made["authorization"] = text[:at] + sign + text[at + 1 :]
    request = sigv4.Request("POST", path, query, made)
    with pytest.MonkeyPatch.context() as monkeypatch:
        compiled, plain = both(request, hashlib.sha256(body).hexdigest(), monkeypatch)
    assert compiled == plain
    if damage is None and all(value.isascii() for value in (path, *headers.values())):
        assert isinstance(plain, sigv4.Identity), plain


def test_what_sdks_sign_is_checked_without_python(monkeypatch: pytest.MonkeyPatch) -> None:
    made = signed("POST", "/endpoints/e/invocations", "", {"content-type": "application/json"}, b"abc")
    request = sigv4.Request("POST", "/endpoints/e/invocations", "", made)
    claim = sigv4.read_claim(request, "rest-json")
    digest = hashlib.sha256(b"abc").hexdigest()
    assert sigv4.holds_as_usual(request, claim, KEY, digest)
    assert not sigv4.holds_as_usual(request, claim, KEY, "0" * 64)
    assert not sigv4.holds_as_usual(request, claim, sigv4.Key("other"), digest)


@given(st.text(st.characters(max_codepoint=300), max_size=200), st.integers(0, 300))
@example("", 0)
def test_a_claim_is_read_the_same(text: str, at: int) -> None:
    usual = signed("GET", "/", "", {}, b"")["authorization"]
    for authorization in (text, usual[:at] + text + usual[at:], usual[:at] + text + usual[at + len(text) :]):
        assert native.claim(authorization) == sigv4.read_usual_here(authorization)
    assert native.claim(usual) is not None


@given(
    st.dictionaries(
        st.sampled_from([*UNARY, *STREAMED, "host", "x-other"]), st.one_of(header_values, st.just("x" * 1025))
    ),
    st.sampled_from([UNARY, STREAMED]),
    st.integers(0, 2**40),
)
def test_a_containers_head_is_the_same(
    headers: dict[str, str], rules: dict[str, tuple[str, str, int]], length: int
) -> None:
    written = native.container_head(headers, rules, length)
    if written is not None:
        assert written == to_container_here(headers, rules, length)
    elif (
        all(len(headers.get(name, "")) <= rule[2] for name, rule in rules.items())
        and sum(map(len, headers.values())) < 2000
    ):
        assert any(ord(sign) > 255 for value in headers.values() for sign in value), "only Python has a word for this"


@pytest.mark.parametrize("length", [*range(300), 4095, 4096, 4097, 1_000_003])
def test_sha256_is_hashlibs(length: int, rng: Random) -> None:
    data = rng.randbytes(length)
    try:
        for plainly in (True, False):
            native.hash_plainly(plainly)
            assert native.digest(data) == hashlib.sha256(data).hexdigest()
    finally:
        native.hash_plainly(False)


def test_a_wrong_argument_is_an_error_and_no_crash() -> None:
    for call in (
        lambda: native.request_head(bytearray(b"x"), 1),  # type: ignore[arg-type]
        lambda: native.request_head(b"x", "1"),  # type: ignore[arg-type]
        lambda: native.whole_answer("x"),  # type: ignore[arg-type]
        lambda: native.claim(b"x"),  # type: ignore[arg-type]
        lambda: native.digest("x"),  # type: ignore[arg-type]
        lambda: native.keyed(b"x" * 65),
        lambda: native.signed(b"x", "", "", "", {}, (), "", "", "", "", "", ""),
        lambda: native.container_head({"accept": 1}, UNARY, 0),  # type: ignore[dict-item]
        lambda: native.container_head({}, UNARY, "0"),  # type: ignore[arg-type]
        lambda: native.silent("x"),  # type: ignore[arg-type]
    ):
        with pytest.raises(TypeError):
            call()
    with pytest.raises(OSError, match="descriptor"):
        native.silent(-1)


log_texts = st.text(st.characters(max_codepoint=300), max_size=12)
numbers = st.integers(0, 2**40)
times = st.one_of(st.floats(0, 1e9), st.just(0.0005), st.just(1.0))


@given(
    st.tuples(log_texts, log_texts, log_texts, numbers, log_texts, log_texts, numbers, numbers, times),
    st.one_of(st.just(()), st.tuples(log_texts, log_texts, log_texts, numbers, st.one_of(st.none(), times), log_texts)),
)
def test_a_line_of_the_access_log_says_the_same(begin: tuple[Any, ...], more: tuple[Any, ...]) -> None:
    values = (*begin, *more)
    line = native.access_line(*values)
    if line is not None:
        assert line.endswith(b"}\n")
        assert json.loads(line) == json.loads(line_here(*values))
    else:
        plain = [one for one in values if isinstance(one, str)]
        assert not all(one.isascii() and one.isprintable() and not set('"\\') & set(one) for one in plain)
