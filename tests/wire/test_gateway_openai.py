"""The OpenAI route: bearer tokens as AWS's SDK makes them, and the container's own bytes back."""

from __future__ import annotations

import base64
import json
import subprocess
from datetime import timedelta

import pytest
import requests
from botocore import auth
from botocore.auth import SigV4QueryAuth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials

from tests.clients.conftest import ENVIRONMENTS, PROGRAMS
from tests.running import clean_environment
from tests.wire.gateway_fixture import KEY, REGION, House, Seen, Wire, echo

EVENTS = [b'data: {"choices": [{"delta": {"content": "Hel"}}]}\n\n', b"data: [DONE]\n\n"]


def token(
    *, key: str = KEY.id, secret: str = KEY.secret, expires: int = 3600, action: str = "CallWithBearerToken"
) -> str:
    """A token made the way that SageMaker's SDK v3 documents: a presigned POST, its version behind the signature, in base64."""
    request = AWSRequest(
        "POST", "https://sagemaker.amazonaws.com/", {"host": "sagemaker.amazonaws.com"}, params={"Action": action}
    )
    SigV4QueryAuth(Credentials(key, secret), "sagemaker", REGION, expires=expires).add_auth(request)
    url = request.url.removeprefix("https://") + "&Version=1"
    return "sagemaker-api-key-" + base64.b64encode(url.encode()).decode()


def complete(house: House, bearer: str, path: str = "/endpoints/ep/openai/v1/chat/completions") -> requests.Response:
    headers = {"Authorization": f"Bearer {bearer}", "Cookie": "private"}
    body = {"model": "", "messages": [{"role": "user", "content": "hi"}], "stream": True}
    headers["Content-Type"] = "application/json"
    return requests.post(house.url() + path, data=json.dumps(body), headers=headers, timeout=10)


async def chat(request: Seen, wire: Wire) -> None:
    assert request.target == "/v1/chat/completions"
    await wire.begin_chunks("text/event-stream")
    for event in EVENTS:
        await wire.chunk(event)
    await wire.end_chunks()


def test_server_sent_events_pass_unwrapped(house: House) -> None:
    replica = house.serve(chat)
    answer = complete(house, token())
    assert answer.status_code == 200
    assert answer.headers["content-type"] == "text/event-stream"
    assert answer.headers["x-amzn-invoked-production-variant"] == "AllTraffic"
    assert answer.content == b"".join(EVENTS)
    [seen] = replica.requests
    assert json.loads(seen.body)["stream"] is True
    assert "authorization" not in seen.headers
    assert "cookie" not in seen.headers


def test_an_endpoint_without_inference_components_allows_none(house: House) -> None:
    replica = house.serve(chat)
    answer = complete(house, token(), "/endpoints/ep/inference-components/ic-1/openai/v1/chat/completions")
    assert answer.status_code == 400
    assert answer.json()["Message"].startswith("Inference Component Name header is not allowed")
    assert replica.requests == []


def test_the_container_s_error_is_the_client_s(house: House) -> None:
    async def refuse(request: Seen, wire: Wire) -> None:
        await wire.answer(b'{"error": {"message": "too long"}}', status=400, type_="application/json")

    house.serve(refuse)
    answer = complete(house, token())
    assert (answer.status_code, answer.json()) == (400, {"error": {"message": "too long"}})


def test_a_container_that_dies_breaks_the_connection(house: House) -> None:
    async def die(request: Seen, wire: Wire) -> None:
        await wire.begin_chunks("text/event-stream")
        await wire.chunk(EVENTS[0])
        wire.writer.close()

    house.serve(die)
    with pytest.raises((requests.exceptions.ConnectionError, requests.exceptions.ChunkedEncodingError)):
        complete(house, token())


@pytest.mark.parametrize(
    ("bearer", "code"),
    [
        (token(secret="wrong"), "InvalidSignatureException"),
        (token(key="AKIDOTHER"), "UnrecognizedClientException"),
        (token(action="GetCallerIdentity"), "UnrecognizedClientException"),
        (token(expires=50_000), "IncompleteSignatureException"),
        (token()[:-8], "InvalidSignatureException"),
        ("sk-an-openai-key", "UnrecognizedClientException"),
        ("sagemaker-api-key-%%%", "UnrecognizedClientException"),
    ],
)
def test_other_tokens_are_refused(house: House, bearer: str, code: str) -> None:
    replica = house.serve(chat)
    answer = complete(house, bearer)
    assert answer.headers["x-amzn-errortype"] == code
    assert answer.status_code in (400, 403)
    assert replica.requests == []


@pytest.mark.parametrize("seconds", [-3601, -61, 901])
def test_a_token_has_its_time(house: House, monkeypatch: pytest.MonkeyPatch, seconds: int) -> None:
    """Made an hour ago and good for a minute, over by a second, or from a clock that is far ahead."""
    replica = house.serve(chat)
    now = auth.get_current_datetime
    monkeypatch.setattr(
        auth, "get_current_datetime", lambda *some, **named: now(*some, **named) + timedelta(seconds=seconds)
    )
    answer = complete(house, token(expires=60))
    assert answer.status_code == 403
    assert answer.headers["x-amzn-errortype"] == "InvalidSignatureException"
    early = "Signature not yet current: " if seconds > 0 else "Signature expired: "
    assert answer.json()["Message"].startswith(early)
    assert replica.requests == []


@pytest.mark.parametrize("seconds", [-43_190, -3590, 890])
def test_a_token_lives_as_long_as_it_says_and_clocks_may_differ(
    house: House, monkeypatch: pytest.MonkeyPatch, seconds: int
) -> None:
    house.serve(chat)
    now = auth.get_current_datetime
    monkeypatch.setattr(
        auth, "get_current_datetime", lambda *some, **named: now(*some, **named) + timedelta(seconds=seconds)
    )
    assert complete(house, token(expires=43_200 if seconds < -3600 else 3600)).status_code == 200


@pytest.mark.parametrize("scheme", ["bearer", "BEARER"])
def test_the_schemes_name_has_no_case(house: House, scheme: str) -> None:
    house.serve(chat)
    headers = {"Authorization": f"{scheme} {token()}"}
    url = f"{house.url()}/endpoints/ep/openai/v1/chat/completions"
    assert requests.post(url, data="{}", headers=headers, timeout=10).status_code == 200


def test_a_token_opens_no_other_route(house: House) -> None:
    replica = house.serve(echo)
    assert complete(house, token(), "/endpoints/ep/invocations").status_code == 400
    assert complete(house, token(), "/").status_code == 400
    assert replica.requests == []
    assert house.control_seen == []


async def completions(request: Seen, wire: Wire) -> None:
    """A container that speaks OpenAI's chat completions, as far as this client asks."""
    asked = json.loads(request.body)
    common = {"id": "c", "created": 1, "model": "m"}
    if asked.get("max_tokens", 1) < 1:
        refusal = {"error": {"message": "max_tokens must be positive", "type": "invalid_request_error"}}
        await wire.answer(json.dumps(refusal).encode(), status=400, type_="application/json")
    elif asked.get("stream"):
        await wire.begin_chunks("text/event-stream")
        for piece in ("Life ", "is ", "a ", "stream."):
            choice = {"index": 0, "delta": {"content": piece}, "finish_reason": None}
            event = common | {"object": "chat.completion.chunk", "choices": [choice]}
            await wire.chunk(f"data: {json.dumps(event)}\n\n".encode())
        await wire.chunk(b"data: [DONE]\n\n")
        await wire.end_chunks()
    else:
        choice = {"index": 0, "message": {"role": "assistant", "content": "Life."}, "finish_reason": "stop"}
        whole = common | {"object": "chat.completion", "choices": [choice]}
        await wire.answer(json.dumps(whole).encode(), type_="application/json")


@pytest.mark.clients
def test_the_stock_openai_client_with_a_token_of_sagemakers_sdk(house: House) -> None:
    """Both unmodified, in an environment of their own, over TLS."""
    python = ENVIRONMENTS / "sdk-v3" / "bin" / "python"
    if not python.exists():
        pytest.fail(
            f"{python} is missing: run the tests with `make test`, or make it with scripts/client_environments.py"
        )
    house.serve(completions)
    environment = clean_environment(
        AWS_ACCESS_KEY_ID=KEY.id,
        AWS_SECRET_ACCESS_KEY=KEY.secret,
        AWS_REGION=REGION,
        SSL_CERT_FILE=str(house.paths.ca_certificate),
    )
    done = subprocess.run(
        [python, PROGRAMS / "openai_chat.py", house.url("https")],
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    seen = json.loads(done.stdout.rpartition("RESULT ")[2])
    assert seen == {
        "pieces": ["Life ", "is ", "a ", "stream."],
        "whole": "Life.",
        "refused": {"message": "max_tokens must be positive", "type": "invalid_request_error"},
        "wrong": 403,
        "absent": "NO_SUCH_ENDPOINT",
    }
