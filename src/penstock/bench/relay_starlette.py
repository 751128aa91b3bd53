"""The peer that most Python gateways are: Starlette on uvicorn, httpx towards the container.

`python -m penstock.bench.relay_starlette PORT UPSTREAM` serves on one port, relays to the other.
Owns a plain pass-through, written as the two libraries' pages show it, without signatures, frames or tables.
"""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import httpx
import uvicorn
from starlette.applications import Starlette
from starlette.background import BackgroundTask
from starlette.requests import Request
from starlette.responses import StreamingResponse
from starlette.routing import Route


def application(upstream: int) -> Starlette:
    """POST to any path goes to `/invocations` of the port `upstream`; the answer streams back."""
    limits = httpx.Limits(max_connections=None, max_keepalive_connections=512)
    client = httpx.AsyncClient(base_url=f"http://127.0.0.1:{upstream}", timeout=None, limits=limits)  # noqa: S113

    async def relay(request: Request) -> StreamingResponse:
        body = await request.body()
        sent = client.build_request("POST", "/invocations", content=body, headers={"content-type": "application/json"})
        answer = await client.send(sent, stream=True)
        return StreamingResponse(
            answer.aiter_raw(),
            status_code=answer.status_code,
            headers={"content-type": answer.headers["content-type"]},
            background=BackgroundTask(answer.aclose),
        )

    @asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncIterator[None]:
        async with client:
            yield

    return Starlette(routes=[Route("/{path:path}", relay, methods=["POST"])], lifespan=lifespan)


if __name__ == "__main__":
    uvicorn.run(application(int(sys.argv[2])), host="127.0.0.1", port=int(sys.argv[1]), log_level="warning")
