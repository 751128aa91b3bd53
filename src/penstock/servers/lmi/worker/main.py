"""The handler process from start to end.

Owns the loop: load, then one request at a time. It ends when the server closes the socket, and dies with the server.
"""

from __future__ import annotations

import argparse
import contextlib
import logging
import os
import select
import socket
import sys
import traceback
from collections.abc import Callable, Generator
from types import ModuleType

from penstock.servers.lifeline import die_with_parent
from penstock.servers.lmi.worker import formatting, frames, handler


def main() -> None:
    """Run until the server closes its end. Exit status 1 when the handler can't be loaded."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--fd", type=int, required=True)
    parser.add_argument("--parent", type=int, required=True)
    parser.add_argument("--model-dir", required=True)
    parser.add_argument("--entry-point", required=True)
    parser.add_argument("--handler", required=True)
    parser.add_argument("--formats", default="", help="the image's version, where the script has formatters alone")
    options = parser.parse_args()
    die_with_parent(options.parent)
    os.setpgid(0, 0)  # So that the server can end what the handler starts along with it.
    _be_the_first_to_go()
    os.set_inheritable(options.fd, False)
    channel = Channel(socket.socket(fileno=options.fd))
    logging.basicConfig(stream=sys.stdout, format="%(message)s", level=logging.INFO)
    os.chdir(options.model_dir)
    sys.path.insert(0, options.model_dir)
    sys.meta_path.insert(0, handler.DjlPython())
    sys.meta_path.append(handler.NotPart())
    try:
        module = handler.load_module(options.model_dir, options.entry_point)
        serve = _formats(module, options.formats) if options.formats else _handles(module, options)
    except BaseException as error:
        traceback.print_exc()
        channel.send(frames.encode({"kind": "failed", "reason": f"{type(error).__name__}: {error}"}))
        sys.exit(1)
    channel.send(frames.encode({"kind": "ready", "adapts": callable(getattr(module, "register_adapter", None))}))
    while (request := channel.receive()) is not None:
        serve(channel, request)


Serve = Callable[["Channel", frames.Frame], None]


def _handles(module: ModuleType, options: argparse.Namespace) -> Serve:
    function = handler.function_of(module, options.entry_point, options.handler)

    def serve(channel: Channel, request: frames.Frame) -> None:
        if request.kind != "request":
            return  # a stop that came after the end
        name = str(request.header.get("function") or options.handler)
        called = function if name == options.handler else handler.named(module, name)
        outputs = handler.call(called, handler.request_input(request, name))
        channel.send_all(handler.frames(outputs))
        try:
            outputs.execute_finalize()
        except Exception:
            logging.exception("The finalize function failed")

    return serve


def _formats(module: ModuleType, version: str) -> Serve:
    major, _, minor = version.partition(".")
    formatters = formatting.Formatters(module, (int(major), int(minor)))

    def serve(channel: Channel, request: frames.Frame) -> None:
        if request.kind == "request":  # the first of all
            channel.send(formatters.begin(dict(request.header["properties"])))
        else:
            channel.send(formatters.answer(request))

    return serve


def _be_the_first_to_go() -> None:
    """When the machine's memory runs out, the kernel is to end the handler that ate it and not the server."""
    with contextlib.suppress(OSError), open("/proc/self/oom_score_adj", "w") as file:
        file.write("500")


class Channel:
    """The socket, blocking."""

    def __init__(self, sock: socket.socket) -> None:
        self._socket = sock
        self._owner = os.getpid()
        self._file = sock.makefile("rb")

    def receive(self) -> frames.Frame | None:
        return frames.read(self._file.read)

    def send(self, data: bytes) -> None:
        if os.getpid() != self._owner:
            # A child that the handler forked has come back from it: its answer would be taken for the next request's.
            os._exit(1)
        self._socket.sendall(data)

    def send_all(self, pieces: Generator[tuple[bytes, bool], None, None]) -> None:
        """Send frame by frame. While more is to come, a `stop` from the server ends it early; the end is still sent."""
        for piece, more in pieces:
            self.send(piece)
            if more and select.select([self._socket], [], [], 0)[0]:
                self.receive()  # Nothing but a stop, or the server's end, can come before the answer is complete.
                pieces.close()
                self.send(frames.encode({"kind": "end"}, [b""]))
                return
