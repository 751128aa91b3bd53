"""`/vertex`: several instances in one request, an answer's text for each.

Owns its body, its parameters and its errors, which are the original's own kind. It must never generate by itself.
"""

from __future__ import annotations

import asyncio
import contextlib
from dataclasses import dataclass
from typing import Any

from penstock.servers.tgi.chat_schema import ChatRequest, chat_request, compact
from penstock.servers.tgi.errors import TgiError
from penstock.servers.tgi.fields import Fields, sequence
from penstock.servers.tgi.level import Level
from penstock.servers.tgi.openai import OpenAi
from penstock.servers.tgi.schema import Parameters, Request, native
from penstock.servers.tgi.serde import Mismatch
from penstock.servers.tgi.service import Answer, Service


@dataclass(frozen=True, slots=True)
class VertexRequest:
    """Native requests and conversations."""

    instances: tuple[Request | ChatRequest, ...]


def request(document: Any, level: Level) -> VertexRequest:
    """Raises Mismatch."""
    fields = Fields(document, (), "struct VertexRequest")
    return VertexRequest(fields.required("instances", sequence(lambda value: _instance(value, level))))


def _instance(value: Any, level: Level) -> Request | ChatRequest:
    with contextlib.suppress(Mismatch):
        given = native(value, level, with_stream=False)
        # As in the original: of the parameters only these two are read, and it always samples.
        kept = Parameters(
            do_sample=True, max_new_tokens=given.parameters.max_new_tokens, seed=given.parameters.seed, details=True
        )
        return Request(inputs=given.inputs, parameters=kept)
    with contextlib.suppress(Mismatch):
        return chat_request(value)
    raise Mismatch((), "data did not match any variant of untagged enum VertexInstance")


async def answer(asked: VertexRequest, service: Service, openai: OpenAi) -> Answer:
    """The texts, in the order of the instances. Raises TgiError."""
    if not asked.instances:
        raise service.refused(TgiError(422, "Input validation error", "Input validation error"))
    requests = [openai.turn(each).request if isinstance(each, ChatRequest) else each for each in asked.instances]
    try:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(service.whole(each)) for each in requests]
    except ExceptionGroup:
        raise TgiError(500, "Incomplete generation", "Incomplete generation") from None
    return Answer(compact({"predictions": [task.result().best.finish.generated_text for task in tasks]}), {})
