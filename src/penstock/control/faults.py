"""Our own small API for fault plans: GET, PUT and DELETE of `/_penstock/faults/{EndpointName}`, signed for `sagemaker`.

Owns which plan of an endpoint is in force and since when. It must never know what a plan does to a stream: that is the gateway's business.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Awaitable, Callable
from urllib.parse import unquote

import msgspec
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response

from penstock import faultplan
from penstock.control.sagemaker.names import ENDPOINT
from penstock.control.service import Allow, Caller, allow_all, caller_of, internal_failure, read_request, to_starlette
from penstock.control.store import Store, StoredPlan, Transaction
from penstock.errors import AccessDenied, AwsError, ValidationException
from penstock.wire import awsjson
from penstock.wire.messages import WireResponse
from penstock.wire.refusals import denied

log = logging.getLogger(__name__)
_PATH = re.compile(r"/_penstock/faults/([^/]+)\Z")


class FaultPlans:
    """The service behind `/_penstock/`. `told` returns when the gateways know what was written; `clock` is epoch seconds."""

    def __init__(
        self,
        store: Store,
        told: Callable[[], Awaitable[None]],
        clock: Callable[[], float],
        allow: Allow = allow_all,
    ) -> None:
        self._store, self._told, self._clock, self._allow = store, told, clock, allow

    async def handle(self, request: Request) -> Response:
        """Answers one request; every failure is an answer in AWS's JSON shape."""
        caller = caller_of(request)
        try:
            answer = await self._answer(caller, request)
        except AwsError as error:
            answer = awsjson.render_error(error, caller.request_id)
        except ClientDisconnect:
            return Response(status_code=400)
        except Exception:
            log.exception("fault plans: request %s failed", caller.request_id)
            answer = awsjson.render_error(internal_failure(), caller.request_id)
        return to_starlette(answer)

    async def _answer(self, caller: Caller, request: Request) -> WireResponse:
        wire = await read_request(request, 4 * faultplan.MAX_TEXT, "json")
        match = _PATH.match(wire.path)
        if match is None or request.method not in ("GET", "PUT", "DELETE"):
            raise AwsError("UnknownOperationException", f"There is no {request.method} {wire.path}.", status=404)
        if caller.service != "sagemaker":
            raise AwsError("SignatureDoesNotMatch", "Sign this request for the service sagemaker.", status=403)
        name = unquote(match[1])
        arn = ENDPOINT.arn(caller, name)
        try:
            self._allow(caller, [(f"penstock:{request.method.capitalize()}FaultPlan", arn)])
        except AccessDenied as error:
            raise denied("json", error.message) from None
        plan = None
        if request.method == "PUT":
            plan = StoredPlan(_checked(wire.body), self._clock())

        def work(t: Transaction) -> tuple[StoredPlan | None, str]:
            if t.endpoint(arn) is None:
                raise ENDPOINT.missing(arn)
            if request.method != "GET":
                t.write_fault_plan(arn, plan)
            return t.fault_plan(arn), t.tags(arn).get(faultplan.TAG, "")

        stored, tag = await self._store.run(work)
        if request.method != "GET":
            await self._tell()
        return _shown(name, stored, tag, caller.request_id)

    async def _tell(self) -> None:
        try:
            await self._told()
        except TimeoutError:
            log.warning("a fault plan is written, and the gateways hear of it later")


def _checked(body: bytes) -> str:
    """A plan as text, in its shortest spelling. Raises ValidationException."""
    try:
        return faultplan.render(faultplan.parse(body.decode()))
    except ValueError as error:  # UnicodeDecodeError is one
        raise ValidationException(f"This is not a fault plan: {error}") from None


def _shown(name: str, stored: StoredPlan | None, tag: str, request_id: str) -> WireResponse:
    text, source = (stored.text, "api") if stored else (tag, "tag" if tag else "none")
    try:
        plan = faultplan.render(faultplan.parse(text)) if text else "{}"
    except ValueError:  # of another version of Penstock: shown as it is, and in force nowhere
        plan = msgspec.json.encode({"unreadable": text}).decode()
    document = {"EndpointName": name, "Source": source, "Plan": msgspec.Raw(plan.encode())}
    headers = {"content-type": "application/json", "x-amzn-requestid": request_id}
    return WireResponse(200, headers, msgspec.json.encode(document))
