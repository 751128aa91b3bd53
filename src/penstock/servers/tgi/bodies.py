"""Which kind of body each route takes, and bodies that are read apart.

Owns the way from a route's bytes to a checked request. It must never serve it.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from penstock.servers.apart import many
from penstock.servers.tgi.chat_schema import ChatRequest, CompletionRequest, chat_request, completion_request
from penstock.servers.tgi.errors import BadBody, BodyTooLong
from penstock.servers.tgi.fields import Fields, sequence
from penstock.servers.tgi.level import Level
from penstock.servers.tgi.schema import Parameters, Request, native, read_request
from penstock.servers.tgi.serde import Mismatch, load, read_as

APART = f"{__name__}:read_apart"
"""What reads a heavy body, for `Apart`."""


@dataclass(frozen=True, slots=True)
class VertexRequest:
    """Native requests and conversations."""

    instances: tuple[Request | ChatRequest, ...]


@dataclass(frozen=True, slots=True)
class Refusal:
    """A BadBody that travels between processes."""

    status: int
    text: str


Asked = Request | ChatRequest | CompletionRequest | VertexRequest


def read(path: str, body: bytes, level: Level, *, messages_api: bool) -> Asked:
    """What a body asks for, by the route that it came by. Raises BadBody."""
    match path:
        case "/v1/chat/completions" | "/chat_tokenize":
            return read_as(body, chat_request)
        case "/v1/completions":
            return read_as(body, completion_request)
        case "/vertex":
            return read_as(body, lambda document: _vertex(document, level))
        case "/invocations":
            return _invocation(body, level, messages_api=messages_api)
    return read_request(body, level, with_stream=path == "/")


def read_apart(path: str, body: bytes, level: Level, messages_api: bool) -> Asked | Refusal:
    """The same in a process of its own, from which only so much can be handed over."""
    try:
        asked = read(path, body, level, messages_api=messages_api)
        if many(asked):
            raise BodyTooLong
    except BadBody as error:
        return Refusal(error.status, error.text)
    return asked


def _invocation(body: bytes, level: Level, *, messages_api: bool) -> Request | ChatRequest | CompletionRequest:
    """SageMaker's one route takes what the other routes take. Raises BadBody."""
    if messages_api:
        return read_as(body, chat_request)
    if not level.invocations_take_any:
        return read_request(body, level, with_stream=True)
    document = load(body)
    readers: tuple[Callable[[Any], Request | ChatRequest | CompletionRequest], ...] = (
        lambda each: native(each, level, with_stream=True),
        chat_request,
        completion_request,
    )
    for reader in readers:
        with contextlib.suppress(Mismatch):
            return reader(document)
    raise BadBody(
        422,
        "Failed to deserialize the JSON body into the target type: "
        "data did not match any variant of untagged enum SagemakerRequest",
    )


def _vertex(document: Any, level: Level) -> VertexRequest:
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
