"""What a multi-model container is told, over HTTP/1.1.

Owns those requests, each on a connection of its own, and the reading of their answers. It must never decide what is loaded.
AWS's page: "Custom Containers Contract for Multi-Model Endpoints".
"""

from __future__ import annotations

import asyncio
import json
from contextlib import suppress
from dataclasses import dataclass

import httptools

from penstock.routes import Replica

CONNECT_S = 2.0
ASK_S = 10.0
"""For the list, the description and the unloading of models; a load has a deadline of its own."""
BODY_BYTES = 64 * 1024
_READ_BYTES = 64 * 1024


@dataclass(frozen=True, slots=True)
class Said:
    """A container's answer. `text` is empty where it was longer than `BODY_BYTES`."""

    status: int
    text: str

    @property
    def well(self) -> bool:
        return 200 <= self.status < 300


async def load(replica: Replica, name: str, url: str, target_model: str) -> Said:
    """Have it load the model that lies at `url`. Takes as long as it takes. Raises OSError."""
    body = json.dumps({"model_name": name, "url": url}).encode()
    return await _call(replica, "POST", "/models", target_model, body)


async def has(replica: Replica, name: str) -> bool:
    """Whether it has the model. Raises OSError (TimeoutError is one)."""
    async with asyncio.timeout(ASK_S):
        return (await _call(replica, "GET", f"/models/{name}")).well


async def unload(replica: Replica, name: str) -> Said:
    """Raises OSError (TimeoutError is one)."""
    async with asyncio.timeout(ASK_S):
        return await _call(replica, "DELETE", f"/models/{name}")


async def names(replica: Replica) -> list[str]:
    """The models that it has, of the first page of its list. Raises OSError (TimeoutError is one)."""
    async with asyncio.timeout(ASK_S):
        said = await _call(replica, "GET", "/models")
    try:
        return [str(model["modelName"]) for model in json.loads(said.text)["models"]]
    except (ValueError, LookupError, TypeError):
        return []


class _Reading:
    """The parser's callbacks."""

    def __init__(self) -> None:
        self.body = bytearray()
        self.ended = False

    def on_body(self, body: bytes) -> None:
        self.body += body

    def on_message_complete(self) -> None:
        self.ended = True


async def _call(replica: Replica, method: str, path: str, target_model: str = "", body: bytes = b"") -> Said:
    async with asyncio.timeout(CONNECT_S):
        reader, writer = await asyncio.open_connection(replica.host, replica.port)
    try:
        head = f"{method} {path} HTTP/1.1\r\nHost: {replica.host}:{replica.port}\r\nAccept: application/json\r\n"
        if target_model:
            head += f"X-Amzn-SageMaker-Target-Model: {target_model}\r\n"
        if body:
            head += f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n"
        writer.write(f"{head}Connection: close\r\n\r\n".encode() + body)
        return await _read(reader)
    finally:
        writer.close()
        with suppress(OSError, TimeoutError):
            async with asyncio.timeout(1):
                await writer.wait_closed()


async def _read(reader: asyncio.StreamReader) -> Said:
    reading = _Reading()
    parser = httptools.HttpResponseParser(reading)
    try:
        while not reading.ended and (data := await reader.read(_READ_BYTES)):
            parser.feed_data(data)
            if len(reading.body) > BODY_BYTES:
                return Said(parser.get_status_code(), "")
    except httptools.HttpParserError as error:
        raise ConnectionError(f"the container's answer is no HTTP: {error}") from None
    if not reading.ended:
        raise ConnectionError("the container closed the connection before it had answered")
    return Said(parser.get_status_code(), reading.body.decode("utf-8", "replace"))
