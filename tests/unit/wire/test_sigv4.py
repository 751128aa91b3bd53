"""Our verifier against botocore's signer: every shape it signs must pass, every change must not."""

from __future__ import annotations

import hmac
import random
from collections.abc import Mapping
from datetime import UTC, datetime
from hashlib import sha256
from urllib.parse import urlsplit

import pytest
from botocore import auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials
from hypothesis import given
from hypothesis import strategies as st

from penstock.errors import AwsError
from penstock.wire import sigv4
from penstock.wire.refusals import Dialect, stamp

SECRET = "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY"
KEYS = {"AKIDEXAMPLE": sigv4.Key(SECRET), "ASIAEXAMPLE": sigv4.Key(SECRET, "token/with+signs==")}
NOW = datetime(2026, 11, 23, 7, 45, tzinfo=UTC).timestamp()


@pytest.fixture(autouse=True)
def _clock(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(auth, "get_current_datetime", lambda **_: datetime.fromtimestamp(NOW, UTC).replace(tzinfo=None))


def received(request: AWSRequest, method: str) -> sigv4.Request:
    """The request as a server sees it."""
    prepared = request.prepare()
    parts = urlsplit(prepared.url)
    headers = {"host": parts.netloc}
    for name, value in prepared.headers.items():
        text = value.decode("latin-1") if isinstance(value, bytes) else str(value)
        lower = name.lower()
        headers[lower] = f"{headers[lower]},{text}" if lower in headers and lower != "host" else text
    return sigv4.Request(method, parts.path or "/", parts.query, headers)


def signed(
    url: str,
    *,
    method: str = "POST",
    body: bytes = b"",
    headers: Mapping[str, str] | None = None,
    service: str = "sagemaker",
    token: bool = False,
    signer: type[auth.SigV4Auth] = auth.SigV4Auth,
    context: dict[str, object] | None = None,
) -> sigv4.Request:
    request = AWSRequest(method, url, dict(headers or {}), body)
    request.context.update(context or {})
    credentials = Credentials(
        "ASIAEXAMPLE" if token else "AKIDEXAMPLE", SECRET, "token/with+signs==" if token else None
    )
    signer(credentials, service, "eu-central-1").add_auth(request)
    return received(request, method)


def verify(
    request: sigv4.Request, body: bytes = b"", *, now: float = NOW, dialect: Dialect = "rest-json"
) -> sigv4.Identity:
    return sigv4.verify(
        request, keys=KEYS.get, now=now, skew=900, body_sha256=sha256(body).hexdigest(), dialect=dialect
    )


INVOKE = "https://runtime.sagemaker.eu-central-1.amazonaws.com/endpoints/my-endpoint/invocations"


@pytest.mark.parametrize(
    ("url", "body", "headers"),
    [
        (INVOKE, b'{"inputs": "x"}', {"Content-Type": "application/json", "Accept": "*/*"}),
        (INVOKE, b"", {}),
        ("http://127.0.0.1:8080/", b"Action=GetCallerIdentity", {"Content-Type": "application/x-www-form-urlencoded"}),
        ("http://[::1]:8080/endpoints/a/invocations", b"x", {}),
        (INVOKE.replace("my-endpoint", "a%20b%2Fc%25"), b"x", {}),
        (INVOKE.replace("my-endpoint", "caf%C3%A9"), b"x", {}),
        ("http://h/a/./b/../c//d/", b"", {}),
        ("http://h/..", b"", {}),
        ("http://h/x?b=2&a=1&a=0&flag&empty=&z=a%2Fb%20c&A=~", b"", {}),
        ("http://h/x?%E1%88%B4=%C3%A9&a%3Db=c", b"", {}),
        (INVOKE, b"x", {"X-Amzn-SageMaker-Custom-Attributes": "  a   b \t c  "}),
        (INVOKE, b"x", {"X-Amzn-SageMaker-Custom-Attributes": 'accept_eula=true,"quoted  twice"'}),
        (INVOKE, b"x", {"X-Amz-Target": "SageMaker.CreateModel"}),
        (INVOKE, b"x", {"X-Amzn-SageMaker-Custom-Attributes": "caf\u00e9"}),
    ],
)
@pytest.mark.parametrize("token", [False, True])
def test_what_botocore_signs_is_accepted(url: str, body: bytes, headers: dict[str, str], token: bool) -> None:
    request = signed(url, body=body, headers=headers, token=token)
    identity = verify(request, body)
    assert identity.access_key == ("ASIAEXAMPLE" if token else "AKIDEXAMPLE")
    assert (identity.region, identity.service, identity.date) == ("eu-central-1", "sagemaker", "20261123")
    assert identity.payload == sha256(body).hexdigest()
    assert not identity.presigned


@pytest.mark.parametrize(
    "path", ["/bucket/key", "/bucket/a%2Bb%20c%3D", "/bucket//double/./dots/../kept", "/", "/b/caf%C3%A9~"]
)
@pytest.mark.parametrize("signer", [auth.S3SigV4Auth, auth.S3SigV4QueryAuth])
def test_s3_paths_are_encoded_once_and_never_normalised(path: str, signer: type[auth.SigV4Auth]) -> None:
    request = signed("https://s3.amazonaws.com" + path, method="GET", service="s3", signer=signer)
    assert verify(request, dialect="s3").service == "s3"


def test_a_path_that_the_client_encoded_less_than_aws_does_is_accepted_too() -> None:
    clean = signed(
        "https://s3.amazonaws.com/b/a%3Db%40c?prefix=x%2Fy", method="GET", service="s3", signer=auth.S3SigV4Auth
    )
    lazy = sigv4.Request(clean.method, "/b/a=b@c", "prefix=x/y", clean.headers)
    assert verify(lazy, dialect="s3").access_key == "AKIDEXAMPLE"


def test_repeated_headers_are_signed_as_one_joined_by_commas() -> None:
    request = signed(INVOKE, headers={"X-Amz-Meta": "a,b , c"})
    assert verify(request).access_key == "AKIDEXAMPLE"
    changed = dict(request.headers) | {"x-amz-meta": "a,c,b"}
    with pytest.raises(AwsError, match="does not match"):
        verify(sigv4.Request(request.method, request.path, request.query, changed))


def test_how_the_body_is_bound() -> None:
    hashed = signed("http://h/b/k", method="PUT", body=b"data", service="s3", signer=auth.S3SigV4Auth)
    assert verify(hashed, b"data", dialect="s3").payload == sha256(b"data").hexdigest()
    unsigned = signed(
        "https://h/b/k",
        method="PUT",
        body=b"data",
        service="s3",
        signer=auth.S3SigV4Auth,
        headers={"Content-MD5": "given"},
        context={"payload_signing_enabled": False, "has_streaming_input": True},
    )
    assert verify(unsigned, b"other", dialect="s3").payload == "UNSIGNED-PAYLOAD"
    trailer = signed(
        "https://h/b/k",
        method="PUT",
        body=b"data",
        service="s3",
        signer=auth.S3SigV4Auth,
        context={"checksum": {"request_algorithm": {"in": "trailer", "algorithm": "crc32"}}},
    )
    assert verify(trailer, b"other", dialect="s3").payload == "STREAMING-UNSIGNED-PAYLOAD-TRAILER"


def test_needs_body_tells_before_the_body_is_there() -> None:
    plain = sigv4.read_claim(signed(INVOKE, body=b"x"), "rest-json")
    stated = sigv4.read_claim(signed("http://h/b/k", service="s3", signer=auth.S3SigV4Auth), "s3")
    presigned = sigv4.read_claim(signed("http://h/b/k", service="s3", signer=auth.S3SigV4QueryAuth), "s3")
    assert [sigv4.needs_body(claim) for claim in (plain, stated, presigned)] == [True, False, False]


def test_a_presigned_request_of_another_service_binds_its_body() -> None:
    request = signed(INVOKE, signer=auth.SigV4QueryAuth)
    identity = verify(request)
    assert identity.presigned
    assert identity.payload == sha256(b"").hexdigest()
    with pytest.raises(AwsError, match="does not match"):
        verify(request, b"added")


@pytest.mark.parametrize("signer", [auth.SigV4Auth, auth.SigV4QueryAuth])
def test_presigned_and_header_forms_carry_the_session_token(signer: type[auth.SigV4Auth]) -> None:
    assert verify(signed(INVOKE, token=True, signer=signer)).access_key == "ASIAEXAMPLE"


REFUSALS: list[tuple[Dialect, str, str, int]] = [
    ("rest-json", "missing", "MissingAuthenticationTokenException", 403),
    ("json", "missing", "MissingAuthenticationTokenException", 400),
    ("query", "missing", "MissingAuthenticationToken", 403),
    ("s3", "missing", "AccessDenied", 403),
    ("rest-json", "key", "UnrecognizedClientException", 403),
    ("json", "key", "UnrecognizedClientException", 400),
    ("query", "key", "InvalidClientTokenId", 403),
    ("s3", "key", "InvalidAccessKeyId", 403),
    ("rest-json", "body", "InvalidSignatureException", 403),
    ("json", "body", "InvalidSignatureException", 400),
    ("query", "body", "SignatureDoesNotMatch", 403),
    ("rest-json", "signature", "InvalidSignatureException", 403),
    ("s3", "signature", "SignatureDoesNotMatch", 403),
    ("rest-json", "old", "InvalidSignatureException", 403),
    ("query", "old", "SignatureDoesNotMatch", 403),
    ("s3", "old", "RequestTimeTooSkewed", 403),
    ("rest-json", "future", "InvalidSignatureException", 403),
    ("s3", "future", "RequestTimeTooSkewed", 403),
    ("rest-json", "algorithm", "IncompleteSignatureException", 400),
    ("query", "algorithm", "IncompleteSignature", 400),
    ("s3", "algorithm", "InvalidRequest", 400),
    ("rest-json", "no-signature", "IncompleteSignatureException", 400),
    ("s3", "no-signature", "AuthorizationHeaderMalformed", 400),
    ("rest-json", "credential", "IncompleteSignatureException", 400),
    ("rest-json", "scope-date", "InvalidSignatureException", 403),
    ("rest-json", "token", "UnrecognizedClientException", 403),
    ("s3", "token", "InvalidToken", 400),
    ("rest-json", "unsigned-host", "InvalidSignatureException", 403),
    ("rest-json", "unsigned-header", "InvalidSignatureException", 403),
    ("s3", "unsigned-header", "AccessDenied", 403),
    ("rest-json", "no-date", "IncompleteSignatureException", 400),
]


def spoil(request: sigv4.Request, how: str) -> sigv4.Request:
    headers = dict(request.headers)
    authorization = headers["authorization"]
    edits = {
        "key": ("AKIDEXAMPLE", "AKIDUNKNOWN"),
        "algorithm": ("AWS4-HMAC-SHA256", "AWS4-ECDSA-P256-SHA256"),
        "no-signature": ("Signature=", "Signatur="),
        "credential": ("/aws4_request", ""),
        "scope-date": ("/20261123/", "/20261122/"),
        "unsigned-host": ("host;", ""),
    }
    if how in edits:
        headers["authorization"] = authorization.replace(*edits[how])
    elif how == "missing":
        del headers["authorization"]
    elif how == "signature":
        headers["authorization"] = authorization[:-1] + ("0" if authorization[-1] != "0" else "1")
    elif how == "token":
        headers["x-amz-security-token"] = "stray"
    elif how == "unsigned-header":
        headers["x-amz-target"] = "SageMaker.DeleteEndpoint"
    elif how == "no-date":
        del headers["x-amz-date"]
    return sigv4.Request(request.method, request.path, request.query, headers)


@pytest.mark.parametrize(("dialect", "how", "code", "status"), REFUSALS)
def test_each_refusal_has_the_services_own_spelling(dialect: Dialect, how: str, code: str, status: int) -> None:
    request = spoil(signed(INVOKE, body=b"x"), how)
    now = {"old": NOW + 901, "future": NOW - 901}.get(how, NOW)
    with pytest.raises(AwsError) as refused:
        verify(request, b"y" if how == "body" else b"x", now=now, dialect=dialect)
    assert (refused.value.code, refused.value.status) == (code, status)


def test_expiry_texts_are_aws_s() -> None:
    request = signed(INVOKE)
    with pytest.raises(AwsError) as refused:
        verify(request, now=NOW + 3600)
    assert refused.value.message == (
        "Signature expired: 20261123T074500Z is now earlier than 20261123T083000Z (20261123T084500Z - 15 min.)"
    )
    with pytest.raises(AwsError) as refused:
        verify(request, now=NOW - 3600)
    assert refused.value.message == (
        "Signature not yet current: 20261123T074500Z is still later than 20261123T070000Z (20261123T064500Z + 15 min.)"
    )


@pytest.mark.parametrize("offset", [-900, 900])
def test_fifteen_minutes_either_way_still_pass(offset: int) -> None:
    assert verify(signed(INVOKE), now=NOW + offset).date == "20261123"


def test_a_presigned_url_ends_with_its_own_expiry() -> None:
    request = signed("https://h/b/k", method="GET", service="s3", signer=auth.S3SigV4QueryAuth)  # 3600 s
    assert verify(request, now=NOW + 3600, dialect="s3").presigned
    with pytest.raises(AwsError, match="Request has expired") as refused:
        verify(request, now=NOW + 3601, dialect="s3")
    assert refused.value.members["X-Amz-Expires"] == 3600
    with pytest.raises(AwsError) as refused:
        verify(request, now=NOW - 1000, dialect="s3")
    assert refused.value.code == "RequestTimeTooSkewed"


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("X-Amz-Expires=3600", "X-Amz-Expires=604801"),
        ("X-Amz-Expires=3600", "X-Amz-Expires=-1"),
        ("X-Amz-Expires=3600", "X-Amz-Expires=" + "9" * 5000),
        ("X-Amz-Expires=3600", "X-Amz-Expires=3600&X-Amz-Expires=3600"),
        ("X-Amz-SignedHeaders=host", "X-Amz-SignedHeaders="),
        ("X-Amz-Algorithm=AWS4-HMAC-SHA256&", ""),
    ],
)
def test_broken_presigned_queries_are_told_apart(old: str, new: str) -> None:
    request = signed("https://h/b/k", method="GET", service="s3", signer=auth.S3SigV4QueryAuth)
    assert old in request.query
    broken = sigv4.Request(request.method, request.path, request.query.replace(old, new), request.headers)
    with pytest.raises(AwsError) as refused:
        verify(broken, dialect="s3")
    assert refused.value.code == "AuthorizationQueryParametersError"


def test_a_stated_hash_that_the_body_does_not_have_is_told_as_s3_does() -> None:
    request = signed("http://h/b/k", method="PUT", body=b"data", service="s3", signer=auth.S3SigV4Auth)
    with pytest.raises(AwsError) as refused:
        verify(request, b"other", dialect="s3")
    assert refused.value.code == "XAmzContentSHA256Mismatch"


@pytest.mark.parametrize("part", ["method", "path", "query", "host", "content-type"])
def test_any_changed_part_breaks_the_signature(part: str) -> None:
    good = signed(INVOKE + "?a=1", body=b"x", headers={"Content-Type": "application/json"})
    headers = dict(good.headers)
    method, path, query = good.method, good.path, good.query
    if part == "method":
        method = "PUT"
    elif part == "path":
        path += "x"
    elif part == "query":
        query = "a=2"
    else:
        headers[part] += "x"
    with pytest.raises(AwsError, match="does not match"):
        verify(sigv4.Request(method, path, query, headers), b"x")


def test_the_date_header_stands_in_for_x_amz_date() -> None:
    assert sigv4.http_date("Mon, 23 Nov 2026 07:45:00 GMT") == stamp(NOW)
    assert sigv4.http_date("yesterday") == ""


def test_many_random_requests(rng: random.Random) -> None:
    alphabet = "abcXYZ019-_.~/%+= &é"
    for _ in range(300):
        text = "".join(rng.choices(alphabet, k=12))
        quoted = "".join(c if c.isalnum() and c.isascii() else "".join(f"%{b:02X}" for b in c.encode()) for c in text)
        s3 = rng.random() < 0.5
        url = f"https://h.example/{quoted}/{quoted[::-1] if '%' not in quoted else 'k'}?p={quoted}&q"
        body = rng.randbytes(rng.randint(0, 50))
        signer = auth.S3SigV4Auth if s3 else auth.SigV4Auth
        request = signed(url, body=body, service="s3" if s3 else "sagemaker", signer=signer, token=rng.random() < 0.5)
        assert verify(request, body).region == "eu-central-1"


@given(
    authorization=st.text(st.characters(max_codepoint=255), max_size=120),
    query=st.text(st.characters(max_codepoint=127)),
)
def test_garbage_is_refused_with_an_aws_error(authorization: str, query: str) -> None:
    for headers in ({"authorization": f"AWS4-HMAC-SHA256 {authorization}", "x-amz-date": "20261123T074500Z"}, {}):
        request = sigv4.Request("POST", "/", f"X-Amz-Signature={query}", {"host": "h", **headers})
        with pytest.raises(AwsError):
            verify(request)


def test_what_proves_the_caller_is_compared_in_constant_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """The signature and the session token go through `hmac.compare_digest`, which has the word. The C twin's loop has no way out."""
    seen: list[tuple[bytes, bytes]] = []
    says = True

    def compare(one: bytes, other: bytes) -> bool:
        seen.append((one, other))
        return says

    monkeypatch.setattr(sigv4, "COMPILED", False)
    monkeypatch.setattr(hmac, "compare_digest", compare)
    request = signed("https://h/endpoints/ep/invocations", body=b"{}", token=True)
    wrong = request.headers["authorization"][:-64] + "0" * 64
    forged = sigv4.Request(
        request.method,
        request.path,
        request.query,
        {**request.headers, "authorization": wrong, "x-amz-security-token": "guessed"},
    )

    def verify(asked: sigv4.Request) -> sigv4.Identity:
        digest = sha256(b"{}").hexdigest()
        return sigv4.verify(asked, keys=KEYS.get, now=NOW, skew=900, body_sha256=digest, dialect="rest-json")

    assert verify(forged).access_key == "ASIAEXAMPLE", "nothing else looks at them"
    (token, kept), (expected, given) = seen
    assert (token, kept) == (b"guessed", b"token/with+signs==")
    assert (len(expected), given) == (64, b"0" * 64)
    says = False
    with pytest.raises(AwsError):
        verify(request)


def test_secrets_never_show() -> None:
    assert SECRET not in repr(sigv4.Key(SECRET, "token"))
