"""Signatures of invocations over a socket, by botocore's signers: header and presigned, bound to the body and not, session tokens."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta
from hashlib import sha256
from pathlib import Path

import pytest
import requests
from botocore import auth
from botocore.auth import SigV4Auth, SigV4QueryAuth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials

from penstock.routes import AccessKey
from tests.wire.gateway_fixture import KEY, REGION, House, echo
from tests.wire.raw import connect, read_answer

TOKEN = replace(KEY, id="ASIATOKEN", secret="secret/of+token", session_token="a/session+token==")
BODY = b"the body"


@pytest.fixture(scope="module")
def signing(tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    house = House(Path(tmp_path_factory.mktemp("signatures")) / "home", {"PENSTOCK_CLOCK_SKEW_S": "60"})
    try:
        house.start()
        house.serve(echo)
        house.keys = (KEY, TOKEN)
        house.publish()
        yield house
    finally:
        house.close()


class Unsigned(SigV4Auth):  # type: ignore[misc]  # botocore has no types
    """A signer that leaves the body out, as SDKs do over TLS where they are told to."""

    def payload(self, request: AWSRequest) -> str:
        return "UNSIGNED-PAYLOAD"


class OfBody(SigV4QueryAuth):  # type: ignore[misc]
    """botocore would move a POST's body into the query; other SDKs' presigners leave it where it is."""

    def payload(self, request: AWSRequest) -> str:
        return sha256(BODY).hexdigest()


def credentials(key: AccessKey) -> Credentials:
    return Credentials(key.id, key.secret, key.session_token or None)


def presigned(house: House, key: AccessKey = KEY, *, expires: int = 60) -> str:
    request = AWSRequest("POST", house.url() + "/endpoints/ep/invocations")
    OfBody(credentials(key), "sagemaker", REGION, expires=expires).add_auth(request)
    return str(request.url)


def post(url: str, body: bytes = BODY, headers: dict[str, str] | None = None) -> tuple[int, str]:
    """Status, and what was said or which error it is."""
    answer = requests.post(url, data=body, headers=headers, timeout=10)
    return answer.status_code, answer.headers.get("x-amzn-errortype", answer.text)


@pytest.mark.parametrize("key", [KEY, TOKEN], ids=["lasting", "session"])
def test_a_presigned_invocation(signing: House, key: AccessKey) -> None:
    url = presigned(signing, key)
    assert post(url) == (200, "you said the body")
    assert post(url, b"another body") == (403, "InvalidSignatureException"), "it is for this body alone"
    assert post(url.replace("/ep/", "/other/"))[1] == "InvalidSignatureException"
    assert post(url[:-1] + ("0" if url[-1] != "0" else "1"))[1] == "InvalidSignatureException"


def test_a_presigned_invocation_ends(signing: House) -> None:
    url = presigned(signing, expires=1)
    assert post(url)[0] == 200
    time.sleep(2.1)
    assert post(url) == (403, "InvalidSignatureException")


def headers_of(house: House, signer: type[SigV4Auth], key: AccessKey, **more: str) -> dict[str, str]:
    request = AWSRequest("POST", house.url() + "/endpoints/ep/invocations", more, BODY)
    signer(credentials(key), "sagemaker", REGION).add_auth(request)
    return dict(request.headers.items())


@pytest.mark.parametrize("key", [KEY, TOKEN], ids=["lasting", "session"])
@pytest.mark.parametrize("signer", [SigV4Auth, Unsigned])
def test_in_the_header(signing: House, signer: type[SigV4Auth], key: AccessKey) -> None:
    more = {"X-Amz-Content-SHA256": "UNSIGNED-PAYLOAD"} if signer is Unsigned else {}
    headers = headers_of(signing, signer, key, **more)
    url = signing.url() + "/endpoints/ep/invocations"
    assert post(url, headers=headers) == (200, "you said the body")
    changed = post(url, b"another body", headers)
    assert changed == ((200, "you said another body") if signer is Unsigned else (403, "InvalidSignatureException"))


def test_session_tokens(signing: House) -> None:
    url = signing.url() + "/endpoints/ep/invocations"
    headers = headers_of(signing, SigV4Auth, TOKEN)
    assert "X-Amz-Security-Token" in headers
    assert post(url, headers=headers)[0] == 200
    for wrong in (
        headers | {"X-Amz-Security-Token": "another"},
        {name: value for name, value in headers.items() if name != "X-Amz-Security-Token"},
        headers_of(signing, SigV4Auth, replace(TOKEN, session_token="")),
        headers_of(signing, SigV4Auth, replace(KEY, session_token="uncalled for")),
    ):
        assert post(url, headers=wrong)[0] == 403


@pytest.mark.parametrize(("seconds", "status"), [(-45, 200), (45, 200), (-75, 403), (75, 403)])
def test_the_clock_may_be_off_as_far_as_the_setting_says(
    signing: House, monkeypatch: pytest.MonkeyPatch, seconds: int, status: int
) -> None:
    now = auth.get_current_datetime
    monkeypatch.setattr(
        auth, "get_current_datetime", lambda *args, **named: now(*args, **named) + timedelta(seconds=seconds)
    )
    headers = headers_of(signing, SigV4Auth, KEY)
    assert post(signing.url() + "/endpoints/ep/invocations", headers=headers)[0] == status


@pytest.mark.parametrize(
    ("sent", "signed_as"),
    [
        (b"X-Amz-Meta: a   b  c", "a b c"),
        (b"X-Amz-Meta:   padded\t ", "padded"),
        (b"X-Amz-Meta: a\r\nX-Amz-Meta: b", "a,b"),
        (b"X-Amz-Meta: ", ""),
        (b'X-Amz-Meta: "q,  q"', '"q, q"'),
        (b"x-aMZ-mETA: case", "case"),
    ],
)
def test_oddities_of_header_values(signing: House, sent: bytes, signed_as: str) -> None:
    """Values are signed trimmed, with runs of spaces as one, and repeated ones joined by commas."""
    request = AWSRequest("POST", signing.url() + "/endpoints/ep/invocations", {"X-Amz-Meta": signed_as}, BODY)
    signer = SigV4Auth(credentials(KEY), "sagemaker", REGION)
    signer.add_auth(request)
    lines = [f"{n}: {v}".encode() for n, v in request.headers.items() if n != "X-Amz-Meta"]
    head = [
        b"POST /endpoints/ep/invocations HTTP/1.1",
        f"Host: localhost:{signing.ports['http']}".encode(),
        *lines,
        sent,
    ]
    with connect(signing) as sock:
        sock.sendall(b"\r\n".join([*head, b"Content-Length: 8", b"", BODY]))
        answer = read_answer(sock)
    assert (answer.status, answer.body) == (200, b"you said the body")
