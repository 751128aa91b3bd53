"""The internal call by which a gateway worker has a model loaded (`modelcalls.py`).

Owns its HTTP. It must never answer a client: the header that it asks for is one that the gateway takes out of whatever clients send.
"""

from __future__ import annotations

import logging

import msgspec
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response

from penstock import modelcalls
from penstock.control.multimodel.models import Models
from penstock.routes import HEADER_INTERNAL

log = logging.getLogger(__name__)
BODY_BYTES = 8 * 1024 * 1024


class ModelCalls:
    """The service behind `HEADER_INTERNAL`."""

    def __init__(self, models: Models) -> None:
        self._models = models

    async def handle(self, request: Request) -> Response:
        if request.headers.get(HEADER_INTERNAL) != "1" or request.url.path != modelcalls.PATH:
            return Response(status_code=404)
        body = bytearray()
        try:
            async for chunk in request.stream():
                body += chunk
                if len(body) > BODY_BYTES:
                    return Response(status_code=413)
            wanted = modelcalls.decode_wanted(bytes(body))
        except ClientDisconnect:
            return Response(status_code=400)
        except msgspec.MsgspecError as error:
            log.error("a gateway's call about a model makes no sense: %s", error)
            return Response(status_code=400)
        answer = await self._models.want(wanted)
        return Response(modelcalls.encode(answer), headers={"content-type": "application/json"})
