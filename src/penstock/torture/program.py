"""Runs the user's program once, for so long, and keeps what it says.

Owns the process: its output is bounded, and nothing of its group outlives the run. It must never judge.
"""

from __future__ import annotations

import os
import selectors
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass

MOST_OUTPUT = 4 * 1024 * 1024
"""Bytes of both outputs together, after which the program is ended: it repeats itself."""
_AFTER_EXIT_S = 1.0
"""How long a child of the program's may still hold its pipes open."""


@dataclass(frozen=True, slots=True)
class Run:
    """One run. `code` is the exit code, negative for a signal; None where it was ended because of time or output."""

    stdout: str
    stderr: str
    code: int | None
    seconds: float
    endless: bool = False
    """It was ended because of its output."""


def run(command: Sequence[str], environment: Mapping[str, str], timeout_s: float) -> Run:
    """Run `command`. Raises OSError where it can't be started."""
    begin = time.monotonic()
    child = subprocess.Popen(
        command,
        env=dict(environment),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        start_new_session=True,
    )
    try:
        output, errors, endless = _listen(child, begin + timeout_s)
        code = None if endless else child.poll()
        return Run(_text(output), _text(errors), code, time.monotonic() - begin, endless)
    finally:
        _end(child)


def _listen(child: subprocess.Popen[bytes], deadline: float) -> tuple[bytearray, bytearray, bool]:
    """Both outputs until the program ends, and whether there was too much of them."""
    assert child.stdout is not None
    assert child.stderr is not None
    output, errors = bytearray(), bytearray()
    heard = {child.stdout.fileno(): output, child.stderr.fileno(): errors}
    with selectors.DefaultSelector() as selector:
        for descriptor in heard:
            selector.register(descriptor, selectors.EVENT_READ)
        while (now := time.monotonic()) < deadline and selector.get_map():
            for key, _ in selector.select(min(0.05, deadline - now)):
                if data := os.read(key.fd, 65536):
                    heard[key.fd] += data
                else:
                    selector.unregister(key.fd)
            if len(output) + len(errors) > MOST_OUTPUT:
                return output, errors, True
            if child.poll() is not None:
                deadline = min(deadline, now + _AFTER_EXIT_S)
    if child.poll() is None and time.monotonic() < deadline:  # it has closed both outputs and works on
        with suppress(subprocess.TimeoutExpired):
            child.wait(deadline - time.monotonic())
    return output, errors, False


def _end(child: subprocess.Popen[bytes]) -> None:
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(child.pid, signal.SIGKILL)
    child.wait()
    for pipe in (child.stdout, child.stderr):
        if pipe is not None:
            pipe.close()


def _text(output: bytearray) -> str:
    return output.decode("utf-8", "replace").replace("\r\n", "\n")
