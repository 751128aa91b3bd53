"""`/api-doc/openapi.json` and `/docs`: what can be asked here, for programs and for people.

Owns the description of routes and of the native request. Which routes there are is `app.py`'s to say.
"""

from __future__ import annotations

import html
from collections.abc import Iterable
from typing import Any

from penstock.servers.tgi.chat_schema import compact
from penstock.servers.tgi.level import Level

_TITLE = "Text Generation Inference"
_ABOUT = {
    "/": 'Generate text, streamed where the body says "stream": true',
    "/invocations": "The same for SageMaker",
    "/generate": "Generate text",
    "/generate_stream": "Generate text as server-sent events",
    "/v1/chat/completions": "Answer a conversation, in OpenAI's form",
    "/v1/completions": "Go on with prompts, in OpenAI's form",
    "/tokenize": "The tokens of a text",
    "/chat_tokenize": "The tokens of a conversation",
    "/vertex": "Generate text for several instances",
    "/health": "Whether the server can answer",
    "/ping": "Whether the server can answer",
    "/info": "The model and the limits",
    "/metrics": "Metrics in Prometheus' text form",
    "/v1/models": "The model, in OpenAI's form",
}
_BODIES = {
    "/": "CompatGenerateRequest",
    "/invocations": "CompatGenerateRequest",
    "/generate": "GenerateRequest",
    "/generate_stream": "GenerateRequest",
    "/tokenize": "GenerateRequest",
    "/vertex": "VertexRequest",
}
_FAILURES = {
    "422": "Input validation error",
    "424": "Generation error",
    "429": "Model is overloaded",
    "500": "Incomplete generation",
}


def document(level: Level, gets: Iterable[str], posts: Iterable[str]) -> str:
    """The OpenAPI document of a level's routes."""
    paths: dict[str, dict[str, Any]] = {}
    for path in sorted(path for path in gets if path in _ABOUT or path == "/"):
        about = "Whether the server can answer" if path == "/" else _ABOUT[path]
        paths.setdefault(path, {})["get"] = {"summary": about, "responses": {"200": {"description": about}}}
    for path in sorted(posts):
        responses = {"200": {"description": "The answer"}} | {
            status: {"description": text, "content": _json({"$ref": "#/components/schemas/ErrorResponse"})}
            for status, text in _FAILURES.items()
        }
        schema = {"$ref": f"#/components/schemas/{_BODIES[path]}"} if path in _BODIES else {"type": "object"}
        body = {"required": True, "content": _json(schema)}
        paths.setdefault(path, {})["post"] = {"summary": _ABOUT[path], "requestBody": body, "responses": responses}
    return compact({
        "openapi": "3.0.3",
        "info": {"title": _TITLE, "description": f"{_TITLE} Webserver, as Penstock speaks it", "version": str(level)},
        "paths": paths,
        "components": {"schemas": _schemas(level)},
    })  # fmt: skip


def page(gets: Iterable[str], posts: Iterable[str]) -> str:
    """A page for people, which loads nothing."""
    routes = [("GET", path) for path in sorted(gets)] + [("POST", path) for path in sorted(posts)]
    items = "".join(
        f"<li><code>{method} {html.escape(path)}</code> {html.escape(_ABOUT.get(path, ''))}</li>"
        for method, path in routes
    )
    return (
        f"<!doctype html><title>{_TITLE}</title><h1>{_TITLE}</h1><ul>{items}</ul>"
        '<p>For programs: <a href="/api-doc/openapi.json">/api-doc/openapi.json</a>'
    )


def _json(schema: dict[str, Any]) -> dict[str, Any]:
    return {"application/json": {"schema": schema}}


def _schemas(level: Level) -> dict[str, Any]:
    parameters = {"$ref": "#/components/schemas/GenerateParameters"}
    native = {"inputs": {"type": "string"}, "parameters": parameters}
    return {
        "GenerateRequest": _object(native, "inputs"),
        "CompatGenerateRequest": _object({**native, "stream": {"type": "boolean", "default": False}}, "inputs"),
        "VertexRequest": _object({"instances": {"type": "array", "items": {"type": "object"}}}, "instances"),
        "GenerateParameters": _object(_parameters(level)),
        "ErrorResponse": _object(
            {"error": {"type": "string"}, "error_type": {"type": "string"}}, "error", "error_type"
        ),
    }


def _object(properties: dict[str, Any], *required: str) -> dict[str, Any]:
    return {"type": "object", "properties": properties, **({"required": list(required)} if required else {})}


def _parameters(level: Level) -> dict[str, Any]:
    positive = {"type": "number", "format": "float", "nullable": True, "minimum": 0, "exclusiveMinimum": True}
    share = {**positive, "maximum": 1, "exclusiveMaximum": True}
    switch = {"type": "boolean", "default": False}
    count = {"type": "integer", "nullable": True, "minimum": 0}
    found: dict[str, Any] = {
        "best_of": {**count, "exclusiveMinimum": True},
        "temperature": positive,
        "repetition_penalty": positive,
        "frequency_penalty": {"type": "number", "format": "float", "nullable": True, "minimum": -2, "maximum": 2},
        "top_k": {**count, "exclusiveMinimum": True},
        "top_p": share,
        "typical_p": share,
        "do_sample": switch,
        "max_new_tokens": {**count, "default": level.default_max_new_tokens},
        "return_full_text": {"type": "boolean", "nullable": True},
        "stop": {"type": "array", "items": {"type": "string"}},
        "truncate": count,
        "watermark": switch,
        "details": switch,
        "decoder_input_details": switch,
        "seed": {**count, "format": "int64"},
        "top_n_tokens": count,
        "grammar": {"type": "object", "nullable": True},
        "adapter_id": {"type": "string", "nullable": True},
    }
    missing = {
        "frequency_penalty": level.frequency_penalty,
        "top_n_tokens": level.top_tokens,
        "grammar": level.grammars,
        "adapter_id": level.adapters,
    }
    return {name: schema for name, schema in found.items() if missing.get(name, True)}
