"""AWS's published Signature Version 4 test suite: every request of it, signed in its header and in its query.

Facts of the suite (requests and signatures, as in the repository awslabs/aws-c-auth) in a table; botocore's signer stands beside them.
A vector that is not normalised is signed as S3 does it: the path as it is.
"""

from __future__ import annotations

import hmac
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from hashlib import sha256
from urllib.parse import quote

import msgspec
import pytest
from botocore import auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials

from penstock.errors import AwsError
from penstock.wire import sigv4

SECRET = "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY"
STAMP = "20150830T123600Z"
SCOPE = "20150830/us-east-1/service/aws4_request"
NOW = datetime(2015, 8, 30, 12, 36, tzinfo=UTC).timestamp()
TOKEN = "6e86291e8372ff2a2260956d9b8aae1d763fbf315fa00fa31553b73ebf194267"
STS_TOKEN = (
    "AQoDYXdzEPT//////////wEXAMPLEtc764bNrC9SAPBSM22wDOk4x4HIZ8j4FZTwdQWLWsKWHGBuFqwAeMicRXmxfpSPfIeoIYRq"
    "TflfKD8YUuwthAx7mSEI/qkPpKPi/kMcGdQrmGdeehM4IC1NtBmUpp2wUE8phUZampKsburEDy0KPkyQDYwT7WZ0wq5VSXDvp75Y"
    "U9HFvlRd8Tx6q6fE8YQcHNVXAkiY9q6d+xo0rKwT38xVqr7ZD0u0iPPkUL64lIZbqBAz+scqKmlzm8FDrypNC9Yjc8fPOLn9FX9K"
    "SYvKTr4rvx3iSIlTJabIQwj2ICCR/oLxBA=="
)


@dataclass(frozen=True, slots=True)
class Vector:
    """A request of the suite and its two signatures."""

    name: str
    method: str
    target: str
    header_signature: str
    query_signature: str
    headers: tuple[tuple[str, str], ...] = ()
    body: bytes = b""
    states_hash: bool = False
    normalise: bool = True
    token: str = ""

    @property
    def path(self) -> str:
        return self.target.partition("?")[0]

    @property
    def query(self) -> str:
        return self.target.partition("?")[2]

    @property
    def key(self) -> sigv4.Key:
        return sigv4.Key(SECRET, self.token)

    def base_headers(self) -> dict[str, str]:
        """As a server has them: a repeated header's values joined, one broken over lines as its lines joined by spaces."""
        headers = {"host": "example.amazonaws.com"}
        for name, value in self.headers:
            text = " ".join(value.split("\n"))
            headers[name.lower()] = f"{headers[name.lower()]},{text}" if name.lower() in headers else text
        return headers


VECTORS = (
    Vector(
        "get-header-key-duplicate",
        "GET",
        "/",
        "c9d5ea9f3f72853aea855b47ea873832890dbdd183b4468f858259531a5138ea",
        "3349ee0b81b4b589da0ff28a395c3591e04de515651dd74f298fa992d1507a97",
        headers=(("My-Header1", "value2"), ("My-Header1", "value2"), ("My-Header1", "value1")),
    ),
    Vector(
        "get-header-value-multiline",
        "GET",
        "/",
        "cfd34249e4b1c8d6b91ef74165d41a32e5fab3306300901bb65a51a73575eefd",
        "e6f5def831211aca02987a44b96826706278c7bc078112ae0263659c5b2f2d56",
        headers=(("My-Header1", "value1\n  value2\n     value3"),),
    ),
    Vector(
        "get-header-value-order",
        "GET",
        "/",
        "08c7e5a9acfcfeb3ab6b2185e75ce8b1deb5e634ec47601a50643f830c755c01",
        "313720e71ca6202fdcfa9b20f88de01a4eb0638a83c833b1c184359a4eda864e",
        headers=(
            ("My-Header1", "value4"),
            ("My-Header1", "value1"),
            ("My-Header1", "value3"),
            ("My-Header1", "value2"),
        ),
    ),
    Vector(
        "get-header-value-trim",
        "GET",
        "/",
        "acc3ed3afb60bb290fc8d2dd0098b9911fcaa05412b367055dee359757a9c736",
        "e7bb0fd515e125e1aec2ecc4c0c17484fb06f6846b927c35e46005dd3df3acd4",
        headers=(("My-Header1", " value1"), ("My-Header2", ' "a   b   c"')),
    ),
    Vector(
        "get-relative-normalized",
        "GET",
        "/example/..",
        "5fa00fa31553b73ebf1942676e86291e8372ff2a2260956d9b8aae1d763fbf31",
        "e93c787ed7f371d5c6b165c1b38ede9550f4dce4144713e844b25b7192d3865d",
    ),
    Vector(
        "get-relative-relative-normalized",
        "GET",
        "/example1/example2/../..",
        "5fa00fa31553b73ebf1942676e86291e8372ff2a2260956d9b8aae1d763fbf31",
        "e93c787ed7f371d5c6b165c1b38ede9550f4dce4144713e844b25b7192d3865d",
    ),
    Vector(
        "get-relative-relative-unnormalized",
        "GET",
        "/example1/example2/../..",
        "dc33e0856fd4baca4d7aa2146c38958283844764f38c74252a333df5e613003b",
        "b45db0bfd1cf15003493b733e33aa208dd981bd0e63037a6ed953f71d2118a16",
        normalise=False,
    ),
    Vector(
        "get-relative-unnormalized",
        "GET",
        "/example/..",
        "eca7ead57bb5aa5c8e28007acd4ff04e1ff9a0ff3b237ec1554a184887ff9282",
        "cbcb213b928a077e43275df47b500f1dfaa864ab3f5a18f6b95f4ff0938167ee",
        normalise=False,
    ),
    Vector(
        "get-slash-dot-slash-normalized",
        "GET",
        "/./",
        "5fa00fa31553b73ebf1942676e86291e8372ff2a2260956d9b8aae1d763fbf31",
        "e93c787ed7f371d5c6b165c1b38ede9550f4dce4144713e844b25b7192d3865d",
    ),
    Vector(
        "get-slash-dot-slash-unnormalized",
        "GET",
        "/./",
        "68714168e6557f8f2de0ef956fc24dc2593a4bd2961f8df51898d8a134695145",
        "a9b13e8f3484d9505bf1a6f347219f8f35b0fe8f128ceea597efc146a3dfe90c",
        normalise=False,
    ),
    Vector(
        "get-slash-normalized",
        "GET",
        "//",
        "5fa00fa31553b73ebf1942676e86291e8372ff2a2260956d9b8aae1d763fbf31",
        "e93c787ed7f371d5c6b165c1b38ede9550f4dce4144713e844b25b7192d3865d",
    ),
    Vector(
        "get-slash-pointless-dot-normalized",
        "GET",
        "/./example",
        "ef75d96142cf21edca26f06005da7988e4f8dc83a165a80865db7089db637ec5",
        "35034b1a0bdd969f346975386daf8aedfd4976573b8348cf4f67eaa41c5857de",
    ),
    Vector(
        "get-slash-pointless-dot-unnormalized",
        "GET",
        "/./example",
        "beb03f223f7deae4146464f06e29eebbee9c8afbe15c290cf07aa8b119e14cff",
        "72b11f16d9530b18204bfb71f2d6ab085894c0ed8d352730a6e76234c58b5e10",
        normalise=False,
    ),
    Vector(
        "get-slash-unnormalized",
        "GET",
        "//",
        "c88bcd3d312d75078c0cd961d6deae3f4c754924b01669efcfcb439fd5e5b76e",
        "b2a9542809db687769200f56a844a03f2bd0291d6eb90232d5101c6a579446cd",
        normalise=False,
    ),
    Vector(
        "get-slashes-normalized",
        "GET",
        "//example//",
        "9a624bd73a37c9a373b5312afbebe7a714a789de108f0bdfe846570885f57e84",
        "c1834e8fb0307243711f0f907f6ab7311ed300d87f13792d7ee4da89ab93e082",
    ),
    Vector(
        "get-slashes-unnormalized",
        "GET",
        "//example//",
        "87cca117541a147f6df867677d98a7d80dff226d2bfca9e4ffa899665623c7e5",
        "822a5a9ba28072c5ab2bb4a6307d0c88276d40e49fec6b724c03fb4d4ba60fc2",
        normalise=False,
    ),
    Vector(
        "get-space-normalized",
        "GET",
        "/example space/",
        "652487583200325589f1fba4c7e578f72c47cb61beeca81406b39ddec1366741",
        "7a1f416954786484c9824d93c1f26ef64acb9b1b6c9154d08c9f07d0e394abf6",
    ),
    Vector(
        "get-space-unnormalized",
        "GET",
        "/example space/",
        "652487583200325589f1fba4c7e578f72c47cb61beeca81406b39ddec1366741",
        "7a1f416954786484c9824d93c1f26ef64acb9b1b6c9154d08c9f07d0e394abf6",
        normalise=False,
    ),
    Vector(
        "get-unreserved",
        "GET",
        "/-._~0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz",
        "07ef7494c76fa4850883e2b006601f940f8a34d404d0cfa977f52a65bbf5f24f",
        "95968482db1b9e0fadef6efc1bd24689f77c77d9ef56919c96a28cc92e0d6005",
    ),
    Vector(
        "get-utf8",
        "GET",
        "/ሴ",
        "8318018e0b0f223aa2bbf98705b62bb787dc9c0e678f255a891fd03141be5d85",
        "10eae3f14a260bd3911cc6d008d3c576d143b05b62f09782a7a4b37f52178e44",
    ),
    Vector(
        "get-vanilla-empty-query-key",
        "GET",
        "/?Param1=value1",
        "a67d582fa61cc504c4bae71f336f98b97f1ea3c7a6bfe1b6e45aec72011b9aeb",
        "49096700cbbaa5753443850f40df10f904fc2fdb544dc9512203cc77c471a9de",
    ),
    Vector(
        "get-vanilla-query-order-encoded",
        "GET",
        "/?Param-3=Value3&Param=Value2&%E1%88%B4=Value1",
        "371d3713e185cc334048618a97f809c9ffe339c62934c032af5a0e595648fcac",
        "c5f1848ceec943ac2ca68ee720460c23aaae30a2300586597ada94c4a65e4787",
    ),
    Vector(
        "get-vanilla-query-order-key-case",
        "GET",
        "/?Param2=value2&Param1=value1",
        "b97d918cfa904a5beff61c982a1b6f458b799221646efd99d3219ec94cdf2500",
        "86012e2c9ad4d77369f5d81c11f75158aae4f895a085212cc6d3f923d300bed5",
    ),
    Vector(
        "get-vanilla-query-unreserved",
        "GET",
        "/?-._~0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz=-._~0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz",
        "9c3e54bfcdf0b19771a7f523ee5669cdf59bc7cc0884027167c21bb143a40197",
        "8e76a88a7433637b12778d5592799b29ad21ecd6cf6325051c21d86f0acda2bf",
    ),
    Vector(
        "get-vanilla-query",
        "GET",
        "/",
        "5fa00fa31553b73ebf1942676e86291e8372ff2a2260956d9b8aae1d763fbf31",
        "e93c787ed7f371d5c6b165c1b38ede9550f4dce4144713e844b25b7192d3865d",
    ),
    Vector(
        "get-vanilla-utf8-query",
        "GET",
        "/?ሴ=bar",
        "2cdec8eed098649ff3a119c94853b13c643bcf08f8b0a1d91e12c9027818dd04",
        "0bdd809b1519ac4f0c1dc3540e2cc46bd0c7f778eda408b2ebf3b913d21ff600",
    ),
    Vector(
        "get-vanilla-with-session-token",
        "GET",
        "/",
        "07ec1639c89043aa0e3e2de82b96708f198cceab042d4a97044c66dd9f74e7f8",
        "7ff2b50b376cb4d151970630573d6291dc128cc5c2a12ffb237f73cc53f67b6c",
        token=TOKEN,
    ),
    Vector(
        "get-vanilla",
        "GET",
        "/",
        "5fa00fa31553b73ebf1942676e86291e8372ff2a2260956d9b8aae1d763fbf31",
        "e93c787ed7f371d5c6b165c1b38ede9550f4dce4144713e844b25b7192d3865d",
    ),
    Vector(
        "post-header-key-case",
        "POST",
        "/",
        "5da7c1a2acd57cee7505fc6676e4e544621c30862966e37dddb68e92efbe5d6b",
        "2ce6e6d2e0cf2f9d1b55fafec88cd20574c31dc2e7631979f71ba2310083e95b",
    ),
    Vector(
        "post-header-key-sort",
        "POST",
        "/",
        "c5410059b04c1ee005303aed430f6e6645f61f4dc9e1461ec8f8916fdf18852c",
        "c09d07e0d55871f10f2a6d350d994acf6825a3cae70673d7def55616e6119dd7",
        headers=(("My-Header1", "value1"),),
    ),
    Vector(
        "post-header-value-case",
        "POST",
        "/",
        "cdbc9802e29d2942e5e10b5bccfdd67c5f22c7c4e8ae67b53629efa58b974b7d",
        "0698bc9e4f7f9139065ba2909c0e99da257e8e2a42492a097bcd46d792391fed",
        headers=(("My-Header1", "VALUE1"),),
    ),
    Vector(
        "post-sts-header-after",
        "POST",
        "/",
        "5da7c1a2acd57cee7505fc6676e4e544621c30862966e37dddb68e92efbe5d6b",
        "2ce6e6d2e0cf2f9d1b55fafec88cd20574c31dc2e7631979f71ba2310083e95b",
        token=STS_TOKEN,
    ),
    Vector(
        "post-sts-header-before",
        "POST",
        "/",
        "85d96828115b5dc0cfc3bd16ad9e210dd772bbebba041836c64533a82be05ead",
        "46c2e3c63c1dbe7d39f8ada16fe7f001c1f56c5791441565323677f96308871c",
        token=STS_TOKEN,
    ),
    Vector(
        "post-vanilla-empty-query-value",
        "POST",
        "/?Param1=value1",
        "28038455d6de14eafc1f9222cf5aa6f1a96197d7deb8263271d420d138af7f11",
        "a9ef26247f293bffe40eeff86a0480ba8c14d31503b2e0c3399e3a16bf1a3682",
    ),
    Vector(
        "post-vanilla-query",
        "POST",
        "/?Param1=value1",
        "28038455d6de14eafc1f9222cf5aa6f1a96197d7deb8263271d420d138af7f11",
        "a9ef26247f293bffe40eeff86a0480ba8c14d31503b2e0c3399e3a16bf1a3682",
    ),
    Vector(
        "post-vanilla",
        "POST",
        "/",
        "5da7c1a2acd57cee7505fc6676e4e544621c30862966e37dddb68e92efbe5d6b",
        "2ce6e6d2e0cf2f9d1b55fafec88cd20574c31dc2e7631979f71ba2310083e95b",
    ),
    Vector(
        "post-x-www-form-urlencoded-parameters",
        "POST",
        "/",
        "328d1b9eaadca9f5818ef05e8392801e091653bafec24fcab71e7344e7f51422",
        "0dbeb9b026c7b6675f266b8427efec9b4fa8b1f6ef1477d717aea231106eab4d",
        headers=(("Content-Type", "application/x-www-form-urlencoded; charset=utf-8"), ("Content-Length", "13")),
        body=b"Param1=value1",
        states_hash=True,
    ),
    Vector(
        "post-x-www-form-urlencoded",
        "POST",
        "/",
        "d3875051da38690788ef43de4db0d8f280229d82040bfac253562e56c3f20e0b",
        "89a40deed0f26f9461242825a082d2222717248abc7ab41f552ad84a94ad46e9",
        headers=(("Content-Type", "application/x-www-form-urlencoded"), ("Content-Length", "13")),
        body=b"Param1=value1",
        states_hash=True,
    ),
)
TOKEN_LATER = "post-sts-header-after"
"""Its session token is put in after signing: the signature is as published, but no request of that kind is let in."""


def in_header(vector: Vector) -> sigv4.Request:
    headers = vector.base_headers() | {"x-amz-date": STAMP}
    if vector.token:
        headers["x-amz-security-token"] = vector.token
    if vector.states_hash:
        headers["x-amz-content-sha256"] = sha256(vector.body).hexdigest()
    names = sorted(name for name in headers if vector.name != TOKEN_LATER or name != "x-amz-security-token")
    headers["authorization"] = (
        f"{sigv4.ALGORITHM} Credential=AKIDEXAMPLE/{SCOPE}, SignedHeaders={';'.join(names)}, "
        f"Signature={vector.header_signature}"
    )
    return sigv4.Request(vector.method, vector.path, vector.query, headers)


def in_query(vector: Vector) -> sigv4.Request:
    headers = vector.base_headers()
    items = {
        "X-Amz-Algorithm": sigv4.ALGORITHM,
        "X-Amz-Credential": f"AKIDEXAMPLE/{SCOPE}",
        "X-Amz-Date": STAMP,
        "X-Amz-SignedHeaders": ";".join(sorted(headers)),
        "X-Amz-Expires": "3600",
    }
    if vector.token:
        items["X-Amz-Security-Token"] = vector.token
    items["X-Amz-Signature"] = vector.query_signature
    query = "&".join(f"{name}={quote(value, safe='')}" for name, value in items.items())
    return sigv4.Request(vector.method, vector.path, f"{vector.query}&{query}" if vector.query else query, headers)


def verified(request: sigv4.Request, vector: Vector, body: bytes) -> sigv4.Identity:
    return sigv4.verify(
        request,
        keys={"AKIDEXAMPLE": vector.key}.get,
        now=NOW,
        skew=900,
        body_sha256=sha256(body).hexdigest(),
        dialect="rest-json",
    )


def test_the_suite_is_whole() -> None:
    assert len(VECTORS) == 38
    assert len({vector.name for vector in VECTORS}) == 38


NORMALISED = [vector for vector in VECTORS if vector.normalise and vector.name != TOKEN_LATER]


@pytest.mark.parametrize("vector", NORMALISED, ids=lambda vector: vector.name)
def test_the_signature_in_the_header_holds(vector: Vector) -> None:
    identity = verified(in_header(vector), vector, vector.body)
    assert (identity.access_key, identity.region, identity.service) == ("AKIDEXAMPLE", "us-east-1", "service")


@pytest.mark.parametrize("vector", NORMALISED, ids=lambda vector: vector.name)
def test_the_signature_in_the_query_holds(vector: Vector) -> None:
    identity = verified(in_query(vector), vector, vector.body)
    assert (identity.access_key, identity.presigned) == ("AKIDEXAMPLE", True)


@pytest.mark.parametrize("vector", NORMALISED, ids=lambda vector: vector.name)
def test_no_signature_holds_for_another_body_or_method(vector: Vector) -> None:
    for request in (in_header(vector), in_query(vector)):
        with pytest.raises(AwsError):
            verified(request, vector, vector.body + b"x")
        other = sigv4.Request("PUT", request.path, request.query, request.headers)
        with pytest.raises(AwsError):
            verified(other, vector, vector.body)


@pytest.mark.parametrize("vector", [v for v in VECTORS if not v.normalise], ids=lambda vector: vector.name)
def test_what_is_not_normalised_is_signed_as_s3_does_it(vector: Vector) -> None:
    key = sigv4.derive_key(SECRET, "20150830", "us-east-1", "service")
    for request, signature in (
        (in_header(vector), vector.header_signature),
        (in_query(vector), vector.query_signature),
    ):
        claim = sigv4.read_claim(request, "rest-json")
        s3 = msgspec.structs.replace(claim, service="s3")
        canonical = sigv4.canonical_requests(request, s3, sha256(vector.body).hexdigest())
        found = [hmac.digest(key, sigv4.string_to_sign(claim, one), "sha256").hex() for one in canonical]
        assert signature in found


def test_a_token_put_in_after_signing_has_the_published_signature_and_is_not_let_in() -> None:
    vector = next(one for one in VECTORS if one.name == TOKEN_LATER)
    payload = sha256(vector.body).hexdigest()
    request = in_header(vector)
    claim = sigv4.read_claim(request, "rest-json")
    assert sigv4.check_signature(request, claim, vector.key, payload, "rest-json").access_key == "AKIDEXAMPLE"
    with pytest.raises(AwsError, match="security-token"):
        verified(request, vector, vector.body)
    untold = in_query(replace(vector, token=""))
    assert verified(untold, replace(vector, token=""), vector.body).presigned
    with pytest.raises(AwsError):
        verified(in_query(vector), vector, vector.body)


@pytest.mark.parametrize(
    "vector", [v for v in NORMALISED if v.target.isascii() and " " not in v.target], ids=lambda v: v.name
)
def test_botocore_signs_the_suite_in_a_way_that_holds(vector: Vector, monkeypatch: pytest.MonkeyPatch) -> None:
    now = datetime.fromtimestamp(NOW, UTC).replace(tzinfo=None)
    monkeypatch.setattr(auth, "get_current_datetime", lambda **_: now)
    base = vector.base_headers()
    url = f"https://example.amazonaws.com{vector.target}"
    request = AWSRequest(
        vector.method, url, {name: value for name, value in base.items() if name != "host"}, vector.body
    )
    auth.SigV4Auth(Credentials("AKIDEXAMPLE", SECRET, vector.token or None), "service", "us-east-1").add_auth(request)
    headers = base | {name.lower(): str(value) for name, value in request.headers.items()}
    seen = sigv4.Request(vector.method, vector.path, vector.query, headers)
    assert verified(seen, vector, vector.body).access_key == "AKIDEXAMPLE"
