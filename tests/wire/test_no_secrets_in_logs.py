"""Whatever a client sends or a container says, nothing of it and no key of anybody is in any log."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

import pytest
import requests
from botocore.auth import SigV4Auth, SigV4QueryAuth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials
from botocore.exceptions import ClientError

from tests.running import Penstock
from tests.waiting import until

ASKED, SAID, STORED, NAMED = "what-was-asked", "what-was-said", "what-was-stored", "what-was-named"
WRONG = "a-wrong-secret-key"


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Penstock]:
    penstock = Penstock(tmp_path / "home", "--workers", "2").start(PENSTOCK_LOG_LEVEL="DEBUG")
    script: dict[str, Any] = {
        "choose": "do",
        "scripts": {"fail": [{"status": 500}, {"send": SAID}], "break": [{"send": SAID}, {"end": "close"}]},
        "steps": [{"send": SAID}],
    }
    penstock.cli("deploy", "scripted", "--name", "ep", "--env", f"PENSTOCK_SCRIPT={json.dumps(script)}")
    yield penstock
    with suppress(Exception):
        penstock.stop()


def bearer(key: str, secret: str) -> str:
    """A token of the OpenAI route."""
    request = AWSRequest(
        "POST",
        "https://sagemaker.amazonaws.com/",
        {"host": "sagemaker.amazonaws.com"},
        params={"Action": "CallWithBearerToken"},
    )
    SigV4QueryAuth(Credentials(key, secret), "sagemaker", "us-east-1", expires=600).add_auth(request)
    url = request.url.removeprefix("https://") + "&Version=1"
    return base64.b64encode(url.encode()).decode()


def invoke(server: Penstock) -> None:
    """Requests of every kind and outcome, with things in them that are nobody else's business."""
    runtime = server.client("sagemaker-runtime")
    for kind in ("answer", "fail", "break"):
        body = json.dumps({"do": kind, "prompt": ASKED})
        for call in (runtime.invoke_endpoint, runtime.invoke_endpoint_with_response_stream):
            with suppress(Exception):
                answer = call(EndpointName="ep", Body=body, CustomAttributes=NAMED, ContentType="application/json")
                with closing(answer["Body"]) as said:
                    list(said)
    with pytest.raises(ClientError):
        runtime.invoke_endpoint(EndpointName="absent", Body=ASKED)
    runtime.close()


def store(server: Penstock) -> list[str]:
    """An object put and got, and a presigned URL of it used; what the URL proves itself with."""
    s3 = server.client("s3", signature_version="s3v4")
    s3.create_bucket(Bucket="bucket")
    s3.put_object(Bucket="bucket", Key="k", Body=STORED)
    with closing(s3.get_object(Bucket="bucket", Key="k")["Body"]) as body:
        assert body.read() == STORED.encode()
    url = s3.generate_presigned_url("get_object", {"Bucket": "bucket", "Key": "k"})
    bundle = server.environment()["AWS_CA_BUNDLE"]
    assert requests.get(url, verify=bundle, timeout=10).text == STORED
    assert requests.get(url[:-3], verify=bundle, timeout=10).status_code == 403
    s3.close()
    return [part.partition("=")[2] for part in url.split("&") if "Signature" in part]


def misuse(server: Penstock, key: str, secret: str) -> list[str]:
    """Wrong keys, tokens and no HTTP at all; what they would have proved themselves with."""
    url = f"http://127.0.0.1:{server.port('http')}"
    token = bearer(key, secret)
    for presented in (token, bearer(key, WRONG)):
        headers = {"Authorization": f"Bearer sagemaker-api-key-{presented}", "Content-Type": "application/json"}
        requests.post(f"{url}/endpoints/ep/openai/v1/chat/completions", data=ASKED, headers=headers, timeout=10)
    signed = AWSRequest("POST", f"{url}/endpoints/ep/invocations", {"X-Amz-Security-Token": "a-session-token"}, ASKED)
    SigV4Auth(Credentials(key, WRONG), "sagemaker", "us-east-1").add_auth(signed)
    requests.post(signed.url, data=ASKED, headers=dict(signed.headers.items()), timeout=10)
    requests.post(f"{url}/?password={NAMED}", data=ASKED, headers={"Authorization": f"Basic {NAMED}"}, timeout=10)
    return [token, token[40:80], signed.headers["Authorization"].rpartition("=")[2], "a-session-token"]


def test_nothing_private_is_in_any_log(server: Penstock) -> None:
    variables = server.environment()
    key, secret = variables["AWS_ACCESS_KEY_ID"], variables["AWS_SECRET_ACCESS_KEY"]
    created = json.loads(server.cli("keys", "create", "--name", "other", "--json").stdout)
    invoke(server)
    proofs = [*store(server), *misuse(server, key, secret)]
    with closing(server.client("sts")) as sts:
        last = sts.get_caller_identity()["ResponseMetadata"]["RequestId"]
    logs = server.home / "logs"
    access = logs / "access.jsonl"
    until(lambda: access.exists() and last in access.read_text(), what="the last request's line")
    assert server.stop() == 0
    texts = {path: path.read_bytes() for path in [*logs.rglob("*"), server.output] if path.is_file()}
    assert any(b"InvokeEndpointWithResponseStream" in text for text in texts.values())
    private = [secret, *(str(value) for name, value in created.items() if "secret" in name.lower()), *proofs]
    assert len(private) > 5
    for word in (*private, ASKED, SAID, STORED, NAMED, WRONG):
        for path, text in texts.items():
            assert word.encode() not in text, f"{word} is in {path}"
    assert any(key.encode() in text for text in texts.values()), "who asked is noted, by the key's id"
