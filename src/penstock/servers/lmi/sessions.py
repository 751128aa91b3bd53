"""Stateful sessions of a text model, as LMI has them from 0.34 on: opened and closed by a `requestType`, named in a header.

Owns those requests and their answers, and the check of every other request's session. Text generation itself keeps nothing in a session:
what a client gains is that its requests reach the same replica, whose cache of prompts knows the conversation. It must never generate.
"""

from __future__ import annotations

import asyncio
import json
from datetime import UTC, datetime
from typing import Any

from penstock.servers.lmi.djl_python.session_manager import SessionManager
from penstock.servers.lmi.parameters import BadInput, Stated
from penstock.servers.lmi.replies import Reply
from penstock.servers.lmi.requests import Invocation

SESSION = "X-Amzn-SageMaker-Session-Id"
CLOSED_SESSION = "X-Amzn-SageMaker-Closed-Session-Id"
TYPES = ("NEW_SESSION", "CLOSE")


async def serve(request: Invocation, sessions: SessionManager | None) -> Reply | None:
    """The answer to a request that opens or closes a session; None for any other, whose session is a good one.

    `sessions` is None where they are switched off. Raises BadInput.
    """
    session_id = request.attribute(SESSION)
    kind = _request_type(request)
    if session_id is None and kind is None:
        return None
    if sessions is None:
        what = f"{SESSION} header" if kind is None else str(kind)
        raise BadInput(f"invalid payload. stateful sessions not enabled, {what} not supported")
    match kind:
        case None:
            await _check(session_id, sessions)
            return None
        case "NEW_SESSION":
            return await _open(sessions)
        case "CLOSE":
            return await _close(session_id, sessions)
        case _:
            raise BadInput(f"invalid payload. request type must be one of {', '.join(TYPES)}")


async def _open(sessions: SessionManager) -> Reply:
    try:
        session = await asyncio.to_thread(sessions.create_session)
    except OSError as error:
        raise Stated(f"Failed to create session: {error}") from error
    expires = datetime.fromtimestamp(session.expiration_ts, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    return _reply(f"Session {session.session_id} created", SESSION, f"{session.session_id}; Expires={expires}")


async def _close(session_id: str | None, sessions: SessionManager) -> Reply:
    try:
        await asyncio.to_thread(sessions.close_session, session_id)
    except ValueError as error:
        raise Stated(f"Failed to close session: {error}") from error
    return _reply(f"Session {session_id} closed", CLOSED_SESSION, str(session_id))


async def _check(session_id: str | None, sessions: SessionManager) -> None:
    try:
        session = await asyncio.to_thread(sessions.get_session, session_id)
    except ValueError as error:
        raise BadInput(str(error)) from error
    if session is None and session_id != "NEW_SESSION":
        raise BadInput(f"session expired: {session_id}")


def _request_type(request: Invocation) -> Any:
    """The body's `requestType`, where it asks for nothing else."""
    if b'"requestType"' not in request.data:
        return None
    try:
        body = request.document()
    except (ValueError, RecursionError):
        return None  # whoever reads it next says what is wrong
    if not isinstance(body, dict) or not {"inputs", "prompt", "messages"}.isdisjoint(body):
        return None
    return body.get("requestType")


def _reply(result: str, name: str, value: str) -> Reply:
    body = json.dumps({"result": result}).encode() + b"\n"
    return Reply(200, {"Content-Type": "application/json", name: value}, body)
