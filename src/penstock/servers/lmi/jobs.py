"""Asynchronous requests: `x-synchronous: false` answers with a token at once, and the token fetches what there is of the answer.

Owns the answers that are kept, and how many and how large they may be: the oldest that is complete goes first. It must never know how an
answer is made.
"""

from __future__ import annotations

import asyncio
import logging
import uuid
from collections.abc import Awaitable, Callable
from contextlib import aclosing
from dataclasses import dataclass, field

from penstock.servers.lmi.errors import BadRequest, LmiError, StreamBroken
from penstock.servers.lmi.replies import Reply, error_reply
from penstock.servers.lmi.requests import Invocation

log = logging.getLogger(__name__)

SYNCHRONOUS, STARTING_TOKEN, NEXT_TOKEN, MAX_ITEMS = "x-synchronous", "x-starting-token", "x-next-token", "x-max-items"
CUSTOM_ATTRIBUTES = "X-Amzn-SageMaker-Custom-Attributes"
MOST_BYTES = 256 * 1024 * 1024
"""Of all answers together."""
_ID = 36


class _TooLarge(Exception):
    """An answer that has no room even when all finished ones are gone."""


@dataclass(eq=False, slots=True)
class _Job:
    """One answer. `head` is None until the model has begun; `error` is told when all pieces are fetched."""

    task: asyncio.Task[None] | None = None
    head: Reply | None = None
    pieces: list[bytes] = field(default_factory=list)
    over: bool = False
    error: Reply | None = None

    @property
    def size(self) -> int:
        return sum(map(len, self.pieces))


class Jobs:
    """A server's asynchronous requests. `capacity` is how many answers are kept."""

    def __init__(self, capacity: int, *, most_bytes: int = MOST_BYTES) -> None:
        self._capacity = capacity
        self._most_bytes = most_bytes
        self._bytes = 0
        self._jobs: dict[str, _Job] = {}

    def start(self, work: Callable[[], Awaitable[Reply]]) -> Reply:
        """Begin and answer with the token. Raises BadRequest when as many as may be kept are still running."""
        self._make_room()
        token, job = str(uuid.uuid4()), _Job()
        self._jobs[token] = job
        job.task = asyncio.create_task(self._run(job, work), name=f"asynchronous request {token}")
        return Reply(200, _next(token))

    def fetch(self, request: Invocation, starting: str) -> Reply:
        """What there is of an answer, from a token on; 202 while there is nothing. Raises BadRequest on a token that is none."""
        token, position = starting[:_ID], starting[_ID:] or "0"
        job = self._jobs.get(token)
        if job is None or not position.isdecimal() or int(position) > len(job.pieces):
            raise BadRequest(f"Invalid {STARTING_TOKEN}: {starting}")
        if job.head is None:
            return job.error or Reply(202, _next(token))
        start, limit = int(position), _limit(request.attribute(MAX_ITEMS))
        end = len(job.pieces) if limit is None else min(start + limit, len(job.pieces))
        if start == end == len(job.pieces) and job.error is not None:
            return job.error
        more = not job.over or end < len(job.pieces) or job.error is not None
        headers = {**(job.head.headers if start == 0 else {}), **(_next(f"{token}{end}") if more else {})}
        return Reply(job.head.status if start == 0 else 200, headers, b"".join(job.pieces[start:end]))

    async def close(self) -> None:
        """End what still runs."""
        tasks = [job.task for job in self._jobs.values() if job.task is not None and not job.task.done()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _run(self, job: _Job, work: Callable[[], Awaitable[Reply]]) -> None:
        try:
            reply = await work()
            job.head = Reply(reply.status, reply.headers)
            if isinstance(reply.body, bytes):
                self._keep(job, reply.body)
            else:
                async with aclosing(reply.body) as pieces:
                    async for piece in pieces:
                        if piece:
                            self._keep(job, piece)
        except LmiError as error:
            job.error = error_reply(error)
        except (StreamBroken, _TooLarge) as error:
            job.error = error_reply(LmiError(str(error)))
        except Exception as error:
            log.exception("an asynchronous request failed")
            job.error = error_reply(LmiError(str(error)))
        finally:
            job.over = True

    def _keep(self, job: _Job, piece: bytes) -> None:
        while self._bytes + len(piece) > self._most_bytes:
            if not self._forget_one():
                raise _TooLarge(f"the answers of asynchronous requests have more than {self._most_bytes} bytes")
        self._bytes += len(piece)
        job.pieces.append(piece)

    def _make_room(self) -> None:
        while len(self._jobs) >= self._capacity:
            if not self._forget_one():
                raise BadRequest(f"{self._capacity} asynchronous requests are running: try again later.")

    def _forget_one(self) -> bool:
        for token, job in self._jobs.items():
            if job.over:
                self._bytes -= job.size
                del self._jobs[token]
                return True
        return False


def wanted(request: Invocation) -> bool:
    """Whether a request is to be answered later."""
    return (request.attribute(SYNCHRONOUS) or "true").lower() != "true"


def _next(token: str) -> dict[str, str]:
    """SageMaker hands no header of a container's own to a client, so the token is also among the custom attributes."""
    return {NEXT_TOKEN: token, CUSTOM_ATTRIBUTES: f"{NEXT_TOKEN}={token}"}


def _limit(text: str | None) -> int | None:
    """A negative number is no limit, as none is."""
    if text is None:
        return None
    try:
        value = int(text)
    except ValueError:
        raise BadRequest(f"{MAX_ITEMS} must be a whole number, not {text!r}") from None
    return value if value >= 0 else None
