"""The user's handler: found, called, and its answer put into frames.

Owns what counts as an answer, and which code an exception becomes. It must never touch the socket itself.
"""

from __future__ import annotations

import importlib
import importlib.util
import logging
import os
import sys
from collections.abc import Callable, Generator
from importlib.machinery import ModuleSpec, PathFinder
from pathlib import Path
from types import ModuleType
from typing import Any

from penstock.servers.lmi.worker import coroutines, functions
from penstock.servers.lmi.worker.frames import Frame, encode


class DjlPython:
    """Lets `import djl_python` find our package, whose directory holds other things that must not become importable."""

    def find_spec(self, name: str, path: Any = None, target: ModuleType | None = None) -> ModuleSpec | None:
        if name != "djl_python":
            return None
        return PathFinder.find_spec(name, [str(Path(__file__).parents[1])])


class NotPart:
    """The last to be asked for a module: says that one of `djl_python` is not there."""

    def find_spec(self, name: str, path: Any = None, target: ModuleType | None = None) -> ModuleSpec | None:
        if name.startswith("djl_python."):
            raise ModuleNotFoundError(
                f"{name} is not part of Penstock's djl_python: see docs/lmi.md for the modules that are", name=name
            )
        return None


def load_module(model_dir: str, entry_point: str) -> ModuleType:
    """The script: a file of the model, or a module. Raises whatever importing it raises, ValueError where there is no such file."""
    if not entry_point.endswith(".py"):
        return importlib.import_module(entry_point)
    file = os.path.join(model_dir, entry_point)
    if not os.path.exists(file):
        raise ValueError(f"entry-point file not found {file}.")
    name = Path(file).stem
    spec = importlib.util.spec_from_file_location(name, file)
    assert spec is not None
    assert spec.loader is not None
    module = sys.modules[name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def function_of(module: ModuleType, entry_point: str, handler: str) -> Callable[[Any], Any]:
    """The handler's function; without one named `handle`, a script of SageMaker's functions will do, or one of decorators.

    Raises ValueError when there is nothing to call.
    """
    function = getattr(module, handler, None)
    if not callable(function) and handler == "handle":
        function = functions.of(module)
    if not callable(function):
        raise ValueError(f"{entry_point} has no function {handler}")
    return function  # type: ignore[no-any-return]


def named(module: ModuleType, name: str) -> Callable[[Any], Any]:
    """Another of the script's functions; without it, one that says so."""

    def missing(inputs: Any) -> Any:
        raise ValueError(f"{module.__name__}.py has no function {name}")

    return getattr(module, name, missing)


def request_input(frame: Frame, handler: str) -> Any:
    """The Input that a frame holds."""
    from penstock.servers.lmi.worker.api import Input

    inputs = Input()
    inputs.function_name = handler
    inputs.properties = dict(frame.header["properties"])
    for key, value in zip(frame.header["keys"], frame.blobs, strict=True):
        inputs.content.add(key, bytearray(value))
    return inputs


def call(function: Callable[[Any], Any], inputs: Any) -> Any:
    """The handler's Output; None is 204, an exception 424, memory that has run out 507."""
    from penstock.servers.lmi.worker.api import Output

    try:
        outputs = coroutines.result(function(inputs))
    except Exception as error:
        logging.exception("The handler failed")
        if type(error).__name__ in ("OutOfMemoryError", "MemoryError"):
            return Output(code=507, message=_text(error) or type(error).__name__)
        return Output().error(_text(error))
    if outputs is None:
        return Output(code=204, message="No content")
    if not isinstance(outputs, Output):
        return Output().error(f"Invalid output type: {type(outputs)}")
    return outputs


def frames(outputs: Any) -> Generator[tuple[bytes, bool], None, None]:
    """An Output as frames, each with whether more will follow: one, or a head, a piece for each item of its stream, and an end.

    An Output that can't be sent is 424, as if the handler had raised. Closing it early closes the stream.
    """
    from penstock.servers.lmi.worker.api import Output

    try:
        first = _first(outputs)
    except Exception as error:
        logging.exception("The handler's Output can't be sent")
        _close(outputs.stream_content)
        outputs = Output().error(f"Invalid output: {_text(error)}")
        first = _first(outputs)
    stream = outputs.stream_content
    if stream is None:
        yield first, False
        return
    last = b""
    try:
        yield first, True
        while True:
            yield encode({"kind": "piece"}, [outputs.stream_piece(next(stream))]), True
    except StopIteration:
        pass
    except Exception as error:
        logging.exception("The stream failed")
        last = _text(error).encode("utf-8", "backslashreplace")
    finally:
        _close(stream)
    yield encode({"kind": "end"}, [last]), False


def _first(outputs: Any) -> bytes:
    code = int(outputs.code)
    if not 200 <= code <= 599:
        raise ValueError(f"{code} is no status of an answer")
    stream = outputs.stream_content is not None
    head = {
        "kind": "reply",
        "code": code,
        "message": str(outputs.message),
        "properties": {str(key): str(value) for key, value in outputs.properties.items()},
        "stream": stream,
    }
    if stream:
        return encode({**head, "keys": []})
    return encode(
        {**head, "keys": outputs.content.get_keys()}, [bytes(value) for value in outputs.content.get_values()]
    )


def _close(stream: Any) -> None:
    try:
        if callable(close := getattr(stream, "close", None)):
            close()
    except Exception:
        logging.exception("The stream could not be closed")


def _text(error: Exception) -> str:
    """What an exception says; some can't even say that."""
    try:
        return str(error)
    except Exception:
        return type(error).__name__
