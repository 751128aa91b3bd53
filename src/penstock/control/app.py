"""THE LIST: what happens to a request that reaches the control process, in order.

Owns that order. It must never be reachable but through the gateway: it believes what the identity headers say, and its socket is 0600.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping
from dataclasses import replace
from typing import Protocol

from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send

from penstock import routes
from penstock.control.service import Caller, caller_of, head_of, to_starlette
from penstock.errors import AwsError
from penstock.wire import awsjson, awsquery
from penstock.wire.messages import WireRequest

log = logging.getLogger(__name__)


class Service(Protocol):
    """One AWS service: answers every request, errors in its protocol's shape included."""

    async def handle(self, request: Request) -> Response: ...


class Dispatch:
    """The list, as the one endpoint of the app."""

    def __init__(self, services: Mapping[str, Service]) -> None:
        self._services = services

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        began = time.perf_counter()
        request = Request(scope, receive)
        # 1. The identity: the gateway has verified the signature, and put who signed into the headers.
        caller = caller_of(request)
        # 2. The service: the gateway's own calls, ours by its path, else the one that the signature was made for.
        internal = routes.HEADER_INTERNAL in request.headers
        service = self._services.get("models" if internal else _service_of(request.scope["path"], caller.service))
        # 3. Parse, call the operation, render: the service's own, in its own protocol.
        response = await service.handle(request) if service else _unknown(caller, head_of(request))
        # 4. Answer.
        await response(scope, receive, send)
        # 5. One line in the log: who, what, how it went. Never a body, never a secret.
        what = request.headers.get("x-amz-target") or f"{request.method} {request.url.path}"
        fields = {
            "service": caller.service,
            "operation": what,
            "status": response.status_code,
            "seconds": round(time.perf_counter() - began, 4),
            "account": caller.account,
            "region": caller.region,
            "access_key": caller.access_key,
            "request_id": caller.request_id,
        }
        log.info("%s %d", what, response.status_code, extra={"fields": fields})


def make_app(services: Mapping[str, Service]) -> ASGIApp:
    """The app. `services` by the service of the signature's scope (`sagemaker`, `s3` …).

    No router stands before it: paths are S3 keys, and Starlette's patterns do not match one with a line break.
    """
    return Dispatch(services)


def _service_of(path: str, signed_for: str) -> str:
    if path.startswith("/_penstock/"):
        return "penstock"
    return "runtime" if signed_for == "sagemaker" and path.startswith("/endpoints/") else signed_for


def _unknown(caller: Caller, head: WireRequest) -> Response:
    """A service that is not served says so in its protocol, as far as the request shows it."""
    service, request_id = caller.service, caller.request_id
    if not service:
        error = AwsError("MissingAuthenticationToken", f"The request has no {routes.HEADER_SERVICE}.", status=403)
    else:
        error = AwsError("UnknownOperationException", f"Penstock does not serve the service {service}.", status=404)
    form = head.headers.get("content-type", "").startswith("application/x-www-form-urlencoded")
    if form or "Action=" in head.query:
        return to_starlette(awsquery.render_error(error, request_id))
    answer = awsjson.render_error(error, request_id)
    if "x-amz-target" not in head.headers:  # a REST service tells the error's type in a header
        answer = replace(answer, headers={**answer.headers, "x-amzn-errortype": error.code})
    return to_starlette(answer)
