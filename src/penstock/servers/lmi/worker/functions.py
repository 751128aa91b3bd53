"""A script of SageMaker's functions as a handler: `model_fn`, `input_fn`, `predict_fn`, `output_fn`; or of functions with DJL's decorators.

Owns what stands in for a function that a script leaves out. It must never know how a handler is called (`handler.py`).
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from types import ModuleType
from typing import Any

NAMES = ("model_fn", "input_fn", "predict_fn", "output_fn")
JSON = "application/json"


def of(module: ModuleType) -> Callable[[Any], Any] | None:
    """The script as a handler; None where it has none of the functions. Raises ValueError where a call could lead nowhere."""
    if decorated := _decorated(module):
        return _Script(decorated, takes_input=True)
    found = {name: function for name in NAMES if callable(function := getattr(module, name, None))}
    if not found:
        return None
    if "model_fn" not in found and "predict_fn" not in found:
        raise ValueError(f"{module.__name__} has {', '.join(found)}, but neither a model_fn nor a predict_fn")
    return _Script(found)


def _decorated(module: ModuleType) -> dict[str, Callable[..., Any]]:
    """`@init_handler` and its like by the names of SageMaker's; nothing without one that answers."""
    from penstock.servers.lmi.worker.api import find_decorated

    marks = ("is_init_handler", "is_input_formatter", "is_prediction_handler", "is_output_formatter")
    found = {
        name: function for name, mark in zip(NAMES, marks, strict=True) if (function := find_decorated(module, mark))
    }
    return found if {"model_fn", "predict_fn"} & found.keys() else {}


class _Script:
    """The functions, and the model that the first of them gave.

    `takes_input`: those of the decorators, which are given the Input itself, and no Accept.
    """

    def __init__(self, functions: dict[str, Callable[..., Any]], *, takes_input: bool = False) -> None:
        self._functions = functions
        self._takes_input = takes_input
        self._model: Any = None
        self._accept = JSON
        self._loaded = False

    def __call__(self, inputs: Any) -> Any:
        if inputs.is_empty():
            self._accept = inputs.get_property("default_accept") or self._accept
            load = self._functions.get("model_fn")
            if load and not self._loaded:  # A request without any content looks like the first call too.
                self._model = _call(load, inputs.get_property("model_dir"), None)
            self._loaded = True
            return None
        return self._batch(inputs) if inputs.is_batch() else self._one(inputs)

    def _batch(self, inputs: Any) -> Any:
        """The functions know no batches, so it is one request after the other; an answer of several has one code and one set of headers."""
        from penstock.servers.lmi.worker.api import Output

        whole = Output()
        for index, item in enumerate(inputs.get_batches()):
            one = self._one(item)
            if one.stream_content is not None or one.code != 200:
                raise ValueError("a stream, or a code of its own, can't be batched: leave batch_size at 1")
            whole.properties.update(one.properties)
            whole.add(one.content.value_at(0), batch_index=index)
        return whole

    def _one(self, inputs: Any) -> Any:
        content_type = inputs.get_property("content-type") or JSON
        accept = inputs.get_property("accept") or "*/*"
        data = self._read(inputs, content_type)
        predict = self._functions.get("predict_fn")
        prediction = _call(predict, data, self._model, None) if predict else self._model(data)
        return self._write(prediction, self._accept if accept == "*/*" else accept)

    def _read(self, inputs: Any, content_type: str) -> Any:
        read = self._functions.get("input_fn")
        if read and self._takes_input:
            takes = inspect.signature(read).parameters
            named = "content_type" in takes or any(each.kind is each.VAR_KEYWORD for each in takes.values())
            return read(inputs, content_type=content_type) if named else read(inputs)
        if read:
            media = content_type.partition(";")[0].strip().lower()
            body = bytes(inputs.get_as_bytes())
            text = media.startswith("text/") or media == JSON
            return _call(read, body.decode("utf-8") if text else body, content_type, None)
        from penstock.servers.lmi.worker.api import decode

        return decode(inputs, content_type)

    def _write(self, prediction: Any, accept: str) -> Any:
        """An Output as it is; else bytes, str or an iterator of such, alone or with their content type; else what `accept` says."""
        from penstock.servers.lmi.worker.api import Output, encode

        given = prediction
        if write := self._functions.get("output_fn"):
            given = write(prediction) if self._takes_input else _call(write, prediction, accept, None)
        if isinstance(given, tuple) and len(given) == 2 and isinstance(given[1], str):
            given, accept = given
        if isinstance(given, Output):
            return given
        output = Output()
        if isinstance(given, str | bytes | bytearray):
            return output.add_property("Content-Type", accept).add(given)
        if isinstance(given, Iterator):
            return output.add_property("Content-Type", accept).add_stream_content(given, output_formatter=None)
        encode(output, given, accept)
        return output


def _call(function: Callable[..., Any], *arguments: Any) -> Any:
    """Call it with the arguments; the last one, SageMaker's context, only where the function takes so many. There is no context here."""
    try:
        inspect.signature(function).bind(*arguments)
    except TypeError:
        arguments = arguments[:-1]
    return function(*arguments)
