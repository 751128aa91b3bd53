"""`/vertex`: several instances in one request, an answer's text for each.

Owns its answer and its errors, which are the original's own kind. It must never generate by itself.
"""

from __future__ import annotations

import asyncio

from penstock.servers.tgi.bodies import VertexRequest
from penstock.servers.tgi.chat_schema import ChatRequest, compact
from penstock.servers.tgi.errors import TgiError
from penstock.servers.tgi.openai import OpenAi
from penstock.servers.tgi.service import Answer, Service


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
