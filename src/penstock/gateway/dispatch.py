"""Which exchange answers a head.

Owns the dispatch by path and signature. It must never parse or relay a byte.
"""

from __future__ import annotations

import re
from functools import lru_cache
from urllib.parse import unquote

from penstock.errors import AwsError
from penstock.gateway import failures, metricspage
from penstock.gateway.authenticate import Admission, admit, admit_bearer
from penstock.gateway.exchange import Client, Exchange
from penstock.gateway.head import Head
from penstock.gateway.headers import INFERENCE_COMPONENT, TARGET_MODEL
from penstock.gateway.hostile.inforce import HEADER as FAULTS
from penstock.gateway.hostile_invocations import HostileStreamed, HostileUnary
from penstock.gateway.invocation import Invocation
from penstock.gateway.multimodel import HostileModel, ModelInvocation
from penstock.gateway.openai import OpenAIInvocation
from penstock.gateway.relay import Relay
from penstock.gateway.streamed import StreamedInvocation
from penstock.gateway.unary import UnaryInvocation

_INVOKE = re.compile(r"/endpoints/([^/]*)/(invocations|invocations-response-stream)\Z")
_OPENAI = re.compile(r"/endpoints/([^/]+)/(?:inference-components/([^/]+)/)?openai/v1/chat/completions\Z")
_OPERATIONS: dict[str, type[Invocation]] = {
    "invocations": UnaryInvocation,
    "invocations-response-stream": StreamedInvocation,
}
_NAMES = {
    "invocations": "InvokeEndpoint",
    "invocations-response-stream": "InvokeEndpointWithResponseStream",
}
_NO_OPERATION = "This path has no operation."
_HOSTILE: dict[str, type[Invocation]] = {
    "invocations": HostileUnary,
    "invocations-response-stream": HostileStreamed,
}


def open_exchange(client: Client, head: Head, request_id: str) -> Exchange:
    """The exchange that answers `head`. Raises AwsError where the head alone is reason to refuse."""
    door = client.door
    if door.stopping:
        raise failures.unavailable("The server is shutting down. Send the request again.")
    invoked = _invoked(head.path)
    if invoked is not None:  # most requests
        admission = admit(head, door.routes.secret, door.clock(), door.limits.clock_skew_s)
        client.trace.key, client.trace.region = admission.claim.access_key, admission.claim.region
        if admission.claim.service == "sagemaker":
            return _invocation(client, head, request_id, admission, *invoked)
        return _relay(client, head, request_id, admission)
    if head.path == "/metrics" and metricspage.is_asked(client, head):
        return metricspage.MetricsPage(client, head, request_id)
    openai = _OPENAI.match(head.path) if head.path.endswith("/completions") else None
    bearer = (
        openai and head.headers.get("authorization", "")[:7].lower() == "bearer "
    )  # schemes have no case (RFC 9110 §11.1)
    authenticate = admit_bearer if bearer else admit
    admission = authenticate(head, door.routes.secret, door.clock(), door.limits.clock_skew_s)
    client.trace.key = admission.claim.access_key
    client.trace.region = admission.claim.region
    if openai and head.method == "POST" and admission.claim.service == "sagemaker":
        if openai[2]:
            head.headers[INFERENCE_COMPONENT] = unquote(openai[2])
        client.trace.operation = "ChatCompletions"
        return OpenAIInvocation(client, head, request_id, admission, unquote(openai[1]))
    if head.path.endswith("/async-invocations") and head.method == "POST" and admission.claim.service == "sagemaker":
        client.trace.operation = "InvokeEndpointAsync"
        return Relay(client, head, request_id, admission)  # control has its queue
    if head.path.startswith("/endpoints/") and admission.claim.service == "sagemaker":
        bidirectional = head.path.endswith("/invocations-bidirectional-stream")
        text = "InvokeEndpointWithBidirectionalStream takes HTTP/2 over TLS." if bidirectional else _NO_OPERATION
        raise AwsError("UnknownOperationException", text, status=404)
    return _relay(client, head, request_id, admission)


def _relay(client: Client, head: Head, request_id: str, admission: Admission) -> Exchange:
    if target := head.headers.get("x-amz-target"):
        client.trace.operation = target
    return Relay(client, head, request_id, admission)


def _read_invoked(path: str) -> tuple[str, str] | None:
    match = _INVOKE.match(path)
    return (unquote(match[1]), match[2]) if match is not None else None


_SHORT = 256
"""Characters of a path that is worth remembering."""
_invoked_before = lru_cache(maxsize=4096)(_read_invoked)


def _invoked(path: str) -> tuple[str, str] | None:
    """The endpoint's name and the last step of an invocation's path."""
    return _invoked_before(path) if len(path) <= _SHORT else _read_invoked(path)


def _invocation(client: Client, head: Head, request_id: str, admission: Admission, name: str, step: str) -> Exchange:
    if head.method != "POST":
        raise AwsError("UnknownOperationException", f"This path has no operation {head.method}.", status=405)
    client.trace.operation = _NAMES[step]
    hostile = name in client.door.routes.planned or FAULTS in head.headers
    if TARGET_MODEL in head.headers and step == "invocations":  # the streamed call has no such member
        return (HostileModel if hostile else ModelInvocation)(client, head, request_id, admission, name)
    return (_HOSTILE if hostile else _OPERATIONS)[step](client, head, request_id, admission, name)
