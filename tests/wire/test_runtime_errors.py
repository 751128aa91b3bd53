"""The runtime's errors, each over a socket: status, type, `ErrorCode`, text and the rest, as AWS spells them and as boto3 reads them."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Any

import pytest
from botocore.exceptions import ClientError

from penstock.routes import Variant
from tests.waiting import until
from tests.wire.gateway_fixture import ACCOUNT, KEY, REGION, House, Seen, Wire, answering, echo
from tests.wire.raw import Answer, connect, read_answer, signed

SEE = (
    f" See https://{REGION}.console.aws.amazon.com/cloudwatch/home?region={REGION}"
    f"#logEventViewer:group=/aws/sagemaker/Endpoints/ep in account {ACCOUNT} for more information."
)
LOG = f"arn:aws:logs:{REGION}:{ACCOUNT}:log-group:/aws/sagemaker/Endpoints/ep"
DEAD = (
    "Amazon SageMaker could not get a response from the ep endpoint. This can occur when CPU or memory utilization is high. "
    "To check your utilization, see Amazon CloudWatch. To fix this problem, use an instance type with more CPU capacity or memory."
)
LATE = (
    "Your invocation timed out while waiting for a response from container primary. Review the latency metrics for each "
    "container in Amazon CloudWatch, resolve the issue, and try again."
)
BOTH = ("invocations", "invocations-response-stream")
LONGEST = {
    "customAttributes": ("X-Amzn-SageMaker-Custom-Attributes", 1024),
    "targetVariant": ("X-Amzn-SageMaker-Target-Variant", 63),
    "inferenceId": ("X-Amzn-SageMaker-Inference-Id", 64),
    "prefixAwareId": ("X-Amzn-SageMaker-Prefix-Aware-Id", 64),
}


@dataclass(frozen=True)
class Case:
    """A request, and the answer that it must get. `model` is ModelError's OriginalStatusCode and OriginalMessage."""

    type: str
    status: int
    code: str
    text: str
    endpoint: str = "ep"
    body: bytes = b"{}"
    headers: dict[str, str] = field(default_factory=dict)
    calls: tuple[str, ...] = BOTH
    model: tuple[int, str] | None = None


def from_model(status: int, said: str, *, body: bytes, kind: str = "") -> Case:
    kind = kind or ("client" if 400 <= status < 500 else "server")
    text = f'Received {kind} error ({status}) from primary with message "{said}".{SEE}'
    return Case("ModelError", 424, f"{kind.upper()}_ERROR_FROM_MODEL", text, body=body, model=(status, said))


def unloaded(status: int, body: bytes) -> Case:
    text = f"Received server error ({status}) from primary and could not load the entire response body.{SEE}"
    return Case("ModelError", 424, "SERVER_ERROR_FROM_MODEL", text, body=body, model=(status, ""))


def invalid(text: str, code: str = "VALIDATION_ERROR", **more: Any) -> Case:
    return Case("ValidationError", 400, code, text, **more)


CASES: dict[str, Case] = {
    "no such endpoint": invalid(
        f"Endpoint absent of account {ACCOUNT} not found.", "NO_SUCH_ENDPOINT", endpoint="absent"
    ),
    "a name that cannot be": invalid(
        "1 validation error detected: Value '-ep' at 'endpointName' failed to satisfy constraint: Member must satisfy regular "
        "expression pattern: ^[a-zA-Z0-9](-*[a-zA-Z0-9]){0,62}",
        endpoint="-ep",
    ),
    "no such variant": invalid(
        "Variant other of endpoint ep not found.",
        "NO_SUCH_VARIANT",
        headers={"X-Amzn-SageMaker-Target-Variant": "other"},
    ),
    "no such session": invalid(
        "Session s-1 of endpoint ep not found.", "NO_SUCH_SESSION", headers={"X-Amzn-SageMaker-Session-Id": "s-1"}
    ),
    "a session by the streamed call": invalid(
        "1 validation error detected: Value 'NEW_SESSION' at 'sessionId' failed to satisfy constraint: A session is opened with "
        "InvokeEndpoint.",
        headers={"X-Amzn-SageMaker-Session-Id": "NEW_SESSION"},
        calls=BOTH[1:],
    ),
    **{
        f"{member} too long": invalid(
            f"1 validation error detected: Value at '{member}' failed to satisfy constraint: Member must have length less than or "
            f"equal to {limit}",
            headers={name: "x" * (limit + 1)},
        )
        for member, (name, limit) in LONGEST.items()
        if member != "targetVariant"
    },
    "the container's 400": from_model(400, "bad", body=b"400 bad"),
    "the container's 404": from_model(404, '{"a": "ü"}', body='404 {"a": "ü"}'.encode()),
    "the container's 429": from_model(429, "later", body=b"429 later"),
    "the container's 500": from_model(500, "no", body=b"500 no"),
    "the container's 503": from_model(503, "no", body=b"503 no"),
    "the container's 302": from_model(302, "there", body=b"302 there"),
    "an empty 500": unloaded(500, b"500 "),
    "an endless 500": unloaded(500, b"500 " + b"x" * 100_000),
    "no answer in time": replace(from_model(0, LATE, body=b"late"), model=(0, LATE)),
    "a container that dies": Case(
        "ModelError",
        424,
        "SERVER_ERROR_FROM_MODEL",
        f'Received server error (0) from model with message "{DEAD}".{SEE}',
        body=b"die",
        model=(0, DEAD),
    ),
    "a full queue": Case(
        "ServiceUnavailable",
        503,
        "QUEUE_FULL",
        "All replicas are busy and the queue before them is full. Send the request again later.",
        endpoint="full",
    ),
    "too much": Case("", 413, "", "HTTP content length exceeded 200000 bytes.", body=b"x" * 200_001),
}


async def container(request: Seen, wire: Wire) -> None:
    """Answers as the body says: a status and what to say with it."""
    word, _, said = request.body.partition(b" ")
    if word == b"late":
        await wire.gone()
    elif word == b"die":
        wire.writer.close()
    elif word.isdigit():
        await wire.answer(said, status=int(word))
    else:
        await echo(request, wire)


@pytest.fixture(scope="module")
def busy(tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    """A gateway with a container that answers as it is told, and an endpoint where one runs and one waits."""
    environ = {
        "PENSTOCK_INVOCATION_TIMEOUT_S": "0.4",
        "PENSTOCK_STREAM_TIMEOUT_S": "0.4",
        "PENSTOCK_BODY_BYTES": "200000",
    }
    house = House(tmp_path_factory.mktemp("errors") / "home", environ)
    try:
        house.start()
        replica = house.replica(answering(container))
        house.endpoint("ep", Variant("AllTraffic", 1.0, (replica.replica,)))
        yield house
        assert "Traceback" not in house.log()
    finally:
        house.close()


def asked(house: House, case: Case, call: str) -> Answer:
    with connect(house) as sock:
        sock.sendall(signed(house, f"/endpoints/{case.endpoint}/{call}", case.body, headers=case.headers))
        return read_answer(sock)


@pytest.fixture
def filled(busy: House) -> Iterator[None]:
    """Endpoint `full`: one request runs, one waits, for as long as the test takes."""
    entered: list[bytes] = []

    async def hold(request: Seen, wire: Wire) -> None:
        entered.append(request.body)
        await wire.gone()

    replica = busy.replica(answering(hold))
    variant = Variant("AllTraffic", 1.0, (replica.replica,), max_concurrency=1)
    busy.endpoint("full", variant)
    socks = [connect(busy) for _ in range(2)]
    for sock in socks:
        sock.sendall(signed(busy, "/endpoints/full/invocations", b"hold"))
    until(lambda: entered, what="one that runs")
    with connect(busy) as probe:
        for _ in range(3):
            probe.sendall(signed(busy, "/endpoints/absent/invocations", b""))
            assert read_answer(probe).status == 400
    yield
    for sock in socks:
        sock.close()


PAIRS = [(name, call) for name, case in CASES.items() for call in case.calls]


@pytest.mark.parametrize(("name", "call"), PAIRS)
def test_on_the_wire(busy: House, request: pytest.FixtureRequest, name: str, call: str) -> None:
    case = CASES[name]
    if case.endpoint == "full":
        request.getfixturevalue("filled")
    answer = asked(busy, case, call)
    assert answer.status == case.status
    assert answer.headers.get("x-amzn-errortype", "") == case.type
    assert answer.headers["content-type"] == "application/json"
    assert re.fullmatch(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", answer.headers["x-amzn-requestid"])
    body = json.loads(answer.body)
    expected: dict[str, object] = {"Message": case.text}
    if case.code:
        expected["ErrorCode"] = case.code
    if case.model:
        status, original = case.model
        expected |= {"OriginalStatusCode": status, "OriginalMessage": original, "LogStreamArn": LOG}
    assert body == expected


@pytest.mark.parametrize(("name", "call"), [pair for pair in PAIRS if not CASES[pair[0]].headers])
def test_as_boto3_reads_it(busy: House, request: pytest.FixtureRequest, name: str, call: str) -> None:
    case = CASES[name]
    if case.endpoint == "full":
        request.getfixturevalue("filled")
    runtime = busy.client("sagemaker-runtime")
    invoke = runtime.invoke_endpoint if call == BOTH[0] else runtime.invoke_endpoint_with_response_stream
    with pytest.raises(ClientError) as caught:
        invoke(EndpointName=case.endpoint, Body=case.body)
    error = caught.value
    assert error.response["Error"] == {"Code": case.type or str(case.status), "Message": case.text}
    metadata = error.response["ResponseMetadata"]
    assert metadata["HTTPStatusCode"] == case.status
    assert metadata["RequestId"]
    if case.type in ("ValidationError", "ModelError", "ServiceUnavailable"):
        assert isinstance(error, getattr(runtime.exceptions, case.type))
    if case.model:
        told: Any = error.response
        assert (told["OriginalStatusCode"], told["OriginalMessage"]) == case.model
        assert told["LogStreamArn"] == LOG


def test_an_answer_over_the_limit_is_a_model_error(busy: House) -> None:
    async def large(request: Seen, wire: Wire) -> None:
        await wire.answer(b"y" * int(request.body))

    busy.serve(large, name="large")
    with connect(busy) as sock:
        for size, status in ((200_000, 200), (200_001, 424), (5_000_000, 424)):
            sock.sendall(signed(busy, "/endpoints/large/invocations", b"%d" % size))
            answer = read_answer(sock)
            assert answer.status == status
            if status == 424:
                told = json.loads(answer.body)
                assert "could not load the entire response body" in told["Message"]
                assert told["OriginalStatusCode"] == 500


def test_every_answer_has_a_request_id_and_no_two_the_same(busy: House) -> None:
    """Good ones, errors, errors of other protocols, and what is no HTTP; of the proxy too."""
    seen: list[str] = []
    requests = [
        signed(busy, "/endpoints/ep/invocations", b"hello"),
        signed(busy, "/endpoints/ep/nothing", b""),
        signed(busy, "/endpoints/ep/invocations", b"", method="PUT"),
        b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: x\r\nX-Amz-Target: SageMaker.ListModels\r\nContent-Length: 0\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: x\r\nContent-Type: application/x-www-form-urlencoded\r\nContent-Length: 0\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: x\r\nSmithy-Protocol: rpc-v2-cbor\r\nContent-Length: 0\r\n\r\n",
        b"BREW / HTTP/1.1\r\n\r\n",
        b"GET / HTTP/1.1\r\n\r\n",
        b"CONNECT a:443 HTTP/1.1\r\nHost: a\r\n\r\n",
    ]
    for request in requests:
        with connect(busy) as sock:
            sock.sendall(request)
            answer = read_answer(sock)
        seen.append(answer.headers.get("x-amzn-requestid") or answer.headers["x-amz-request-id"])
    refused = [
        b"CONNECT nonsense HTTP/1.1\r\nHost: x\r\n\r\n",
        b"CONNECT 127.0.0.1:1 HTTP/1.1\r\nHost: x\r\n\r\n",
        b"GET http://example.org/ HTTP/1.1\r\nHost: example.org\r\n\r\n",
        b"GET http://sts.amazonaws.com/ HTTP/1.1\r\nHost: sts.amazonaws.com\r\n\r\n",
    ]
    ports, busy.ports = busy.ports, busy.ports | {"http": busy.ports["proxy"]}
    try:
        for request in refused:
            with connect(busy) as sock:
                sock.sendall(request)
                answer = read_answer(sock)
            assert answer.status >= 400
            seen.append(answer.headers.get("x-amzn-requestid") or answer.headers["x-amz-request-id"])
    finally:
        busy.ports = ports
    assert len(set(seen)) == len(requests) + len(refused)


PASSED = {
    "Content-Type": ("content-type", "text/x", BOTH),
    "Accept": ("accept", "text/y", BOTH[:1]),
    "X-Amzn-SageMaker-Accept": ("accept", "text/z", BOTH[1:]),
    "X-Amzn-SageMaker-Custom-Attributes": ("x-amzn-sagemaker-custom-attributes", "a=b; c", BOTH),
    "X-Amzn-SageMaker-Target-Variant": ("x-amzn-sagemaker-target-variant", "AllTraffic", BOTH),
    "X-Amzn-SageMaker-Target-Container-Hostname": ("x-amzn-sagemaker-target-container-hostname", "primary", BOTH),
    "X-Amzn-SageMaker-Inference-Id": ("x-amzn-sagemaker-inference-id", "id-1", BOTH),
    "X-Amzn-SageMaker-Enable-Explanations": ("x-amzn-sagemaker-enable-explanations", "`true`", BOTH[:1]),
    "X-Amzn-SageMaker-Prefix-Aware-Id": ("x-amzn-sagemaker-prefix-aware-id", "p-1", BOTH),
}
STRIPPED = {
    "Cookie": "private",
    "X-Forwarded-For": "1.2.3.4",
    "Accept-Encoding": "gzip",
    "User-Agent": "somebody",
    "X-Mine": "mine",
    "Amz-Sdk-Invocation-Id": "1",
    "X-Amzn-Trace-Id": "Root=1",
    "X-Penstock-Account": "2",
    "Range": "bytes=0-1",
    "Te": "trailers",
}


@pytest.mark.parametrize("call", BOTH)
def test_headers_to_the_container(busy: House, call: str) -> None:
    """Those of the call's own list, under the container's names, and no other."""
    replica = busy.serve(echo, name="heads")
    headers = {name: value for name, (_, value, _) in PASSED.items()} | STRIPPED
    with connect(busy) as sock:
        sock.sendall(signed(busy, f"/endpoints/heads/{call}", b"body", headers=headers))
        assert sock.recv(65536).startswith(b"HTTP/1.1 200 ")
    [seen] = replica.requests
    expected = {name: value for name, value, calls in PASSED.values() if call in calls}
    expected |= {"host": f"127.0.0.1:{replica.replica.port}", "content-length": "4"}
    assert seen.headers == expected


@pytest.mark.parametrize("call", BOTH)
def test_headers_from_the_container(busy: House, call: str) -> None:
    """Those that the call's own answer has, and no other: of a closed session only InvokeEndpoint tells."""

    async def talk(request: Seen, wire: Wire) -> None:
        told = {
            "X-Amzn-SageMaker-Custom-Attributes": "from the container",
            "X-Amzn-SageMaker-Closed-Session-Id": "s-1",
            "X-Amzn-SageMaker-New-Session-Id": "unasked",
            "X-Amzn-SageMaker-Session-Id": "s-1",
            "X-Mine": "mine",
            "Set-Cookie": "a=b",
            "Server": "uvicorn",
            "Cache-Control": "no-store",
            "Trailer": "x",
        }
        await wire.answer(b"body", headers=told, type_="text/of-the-container")

    busy.serve(talk, name="talks")
    with connect(busy) as sock:
        sock.sendall(signed(busy, f"/endpoints/talks/{call}", b"body"))
        data = b""
        while not data.endswith((b"body", b"0\r\n\r\n")):
            data += sock.recv(65536)
    lines = [line.partition(": ") for line in data.partition(b"\r\n\r\n")[0].decode().split("\r\n")[1:]]
    headers = {name.lower(): value for name, _, value in lines}
    common = {
        "x-amzn-invoked-production-variant": "AllTraffic",
        "x-amzn-sagemaker-custom-attributes": "from the container",
    }
    own = (
        {
            "content-type": "text/of-the-container",
            "content-length": "4",
            "x-amzn-sagemaker-closed-session-id": "s-1",
        }
        if call == BOTH[0]
        else {
            "content-type": "application/vnd.amazon.eventstream",
            "x-amzn-sagemaker-content-type": "text/of-the-container",
            "transfer-encoding": "chunked",
        }
    )
    assert headers.pop("date")
    assert headers.pop("x-amzn-requestid")
    assert headers == common | own


def test_a_session_token_and_a_key_s_account_are_part_of_the_error(busy: House) -> None:
    """The account is the caller's, not the default one."""
    other = replace(
        KEY, id="AKIDOTHER", secret="other/secret", account="210987654321", session_token="a/token+of=theirs"
    )
    busy.keys = (KEY, other)
    busy.publish()
    runtime = busy.client("sagemaker-runtime", key=other)
    with pytest.raises(runtime.exceptions.ValidationError, match="Endpoint ep of account 210987654321 not found"):
        runtime.invoke_endpoint(EndpointName="ep", Body=b"x")
