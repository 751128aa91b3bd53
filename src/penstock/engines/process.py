"""The engine process: schedule and step, nothing else.

Owns the loop between the front's socket and a stepper. The socket is read between steps, so a cancel takes at most one step; when
nothing runs, the process sleeps in the socket. It must never see text or HTTP, and never outlives its front: it ends when the
socket closes, and the kernel ends it when the parent dies in the middle of a step.
"""

from __future__ import annotations

import ctypes
import os
import select
import signal
import socket
import time
from collections.abc import Callable, Iterable
from typing import Protocol, runtime_checkable

from penstock.engines.base import (
    AdapterChanged,
    AddAdapter,
    Cancel,
    EngineInfo,
    Finish,
    PromptLogprobs,
    RemoveAdapter,
    Submit,
    Token,
)
from penstock.engines.messages import Failed, Frames, Message, Took, encode

SIGN_OF_LIFE_S = 1.0
"""How often a busy engine says at least an empty frame."""
_PR_SET_PDEATHSIG = 1


class LoadError(Exception):
    """The model can't be loaded, and the message says why and what to do, in one line."""


class Stepper(Protocol):
    """What an engine is inside its process. Nothing in it blocks but `step`."""

    @property
    def info(self) -> EngineInfo: ...

    @property
    def busy(self) -> bool:
        """Whether `step` has anything to do."""
        ...

    def submit(self, request: Submit) -> Finish | None:
        """Take a request, or refuse it with its `Finish`."""
        ...

    def cancel(self, request_id: int) -> Finish | None:
        """End a request before the next step; None when it is not there any more."""
        ...

    def step(self) -> Iterable[Token | Finish | PromptLogprobs]:
        """One step of all that run. An exception means that nothing in the engine can be trusted any more."""
        ...

    @property
    def forward_s(self) -> float:
        """Seconds that the model itself took in the last step."""
        ...


@runtime_checkable
class Adaptable(Protocol):
    """A stepper that takes adapters while it runs. Between steps, so that those that run wait for it."""

    def change_adapter(self, change: AddAdapter | RemoveAdapter) -> str:
        """Do it, or say in one line why it can't be."""
        ...


def die_with_parent() -> None:
    """Ask the kernel to kill this process when its parent ends (prctl(2), PR_SET_PDEATHSIG)."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, int(signal.SIGKILL), 0, 0, 0)


def run(sock: socket.socket, load: Callable[[], Stepper], *, clock: Callable[[], float] = time.monotonic) -> int:
    """Load, say so, and serve until the front goes. Returns the process's exit status."""
    try:
        stepper = load()
    except LoadError as error:
        _send(sock, [Failed(str(error))])
        return 1
    except (
        Exception,
        SystemExit,
    ) as error:  # a library, or code that comes with a model, has its own idea of what is wrong
        _send(sock, [Failed(f"the engine can't load the model: {type(error).__name__}: {last_line(error)}")])
        raise
    if not _send(sock, [stepper.info]):
        return 0
    return _serve(sock, stepper, clock)


def _serve(sock: socket.socket, stepper: Stepper, clock: Callable[[], float]) -> int:
    frames = Frames()
    open_requests: set[int] = set()
    spoke = clock()
    forward = whole = 0.0  # since a step gave something: what parts of a long prompt took is its first token's
    while True:
        out: list[Message] = []
        while select.select([sock], [], [], 0 if stepper.busy or out else None)[0]:
            data = _receive(sock)
            if not data:
                return 0
            out += _apply(stepper, frames.feed(data), open_requests)
        if stepper.busy:
            began = clock()
            try:
                given = list(stepper.step())
            except Exception as error:
                reason = f"the engine failed in a step: {last_line(error)}"
                _send(sock, [Failed(reason), *(Finish(request, "error", reason) for request in sorted(open_requests))])
                raise
            forward, whole = forward + stepper.forward_s, whole + clock() - began
            if given:
                out += given
                out.append(Took(forward, whole - forward))
                forward = whole = 0.0
        open_requests.difference_update(message.id for message in out if isinstance(message, Finish))
        now = clock()
        if out or now - spoke > SIGN_OF_LIFE_S:
            spoke = now
            if not _send(sock, out):
                return 0


def _apply(stepper: Stepper, messages: list[Message], open_requests: set[int]) -> list[Message]:
    answers: list[Message] = []
    for message in messages:
        answer: Finish | AdapterChanged | None = None
        if isinstance(message, Submit):
            open_requests.add(message.id)
            answer = stepper.submit(message)
        elif isinstance(message, Cancel):
            answer = stepper.cancel(message.id)
        elif isinstance(message, AddAdapter | RemoveAdapter):
            reason = f"the {stepper.info.name} engine takes no adapters"
            if isinstance(stepper, Adaptable):
                reason = stepper.change_adapter(message)
            answer = AdapterChanged(message.id, reason)
        if answer is not None:
            answers.append(answer)
    return answers


def _receive(sock: socket.socket) -> bytes:
    """Nothing when the front is gone, also when it left in the middle of a message."""
    try:
        return sock.recv(1 << 20)
    except ConnectionError:
        return b""


def _send(sock: socket.socket, messages: list[Message]) -> bool:
    """Blocks while the front reads nothing, so that the engine makes no tokens that nobody takes. False when the front is gone."""
    try:
        sock.sendall(encode(messages))
    except OSError:
        return False
    return True


def last_line(error: BaseException) -> str:
    """What an exception of a C++ library means to say: the lines before are checks and paths of its sources."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1] if lines else repr(error)


def inherited_socket(descriptor: int, parent: int) -> socket.socket | None:
    """The front's socket, or None when the front had died before the kernel was asked to watch it."""
    die_with_parent()
    if os.getppid() != parent:
        return None
    return socket.socket(fileno=descriptor)
