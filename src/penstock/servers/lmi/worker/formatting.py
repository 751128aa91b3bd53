"""Formatters of a model.py, in the process that runs them: requests read and tokens written, for many requests in turn.

Owns what is kept of each request between its tokens, and which of the forms a formatter has that came with the versions. It must never
touch the socket.
"""

from __future__ import annotations

import importlib
import inspect
import json
import logging
from collections.abc import Callable
from types import ModuleType
from typing import Any

from penstock.servers.lmi.worker.frames import Frame, encode

_OBJECTS = ("Input", "RequestInput", "RequestOutput", "TextGenerationOutput")


class Formatters:
    """A script's formatters. `describe` tells the server which there are, and what they want to be called with."""

    def __init__(self, module: ModuleType, version: tuple[int, int]) -> None:
        loader = importlib.import_module("djl_python.service_loader")
        self._io: Any = importlib.import_module("djl_python.request_io")
        self._io.Sequence.tells_index = version >= (0, 32)
        self._read: Callable[..., Any] | None = loader.find_decorated_function(module, "is_input_formatter")
        self._write: Callable[..., Any] | None = loader.find_decorated_function(module, "is_output_formatter")
        self._version = version
        self._properties: dict[str, str] = {}
        self._given: dict[int, Any] = {}
        self._outputs: dict[int, Any] = {}

    def begin(self, properties: dict[str, str]) -> bytes:
        """The first call: the model's options."""
        self._properties = properties
        kinds = {"input": self._input_kind(), "output": self._output_kind()}
        return encode({"kind": "reply", "code": 200, "message": "OK", **kinds})

    def answer(self, frame: Frame) -> bytes:
        """The reply to a frame: `input`, `step`, `document` or `forget`."""
        number = int(frame.header.get("id", 0))
        try:
            match frame.kind:
                case "input":
                    return _reply(self._input(number, frame))
                case "step":
                    return _reply(self._step(number, frame.header))
                case "document":
                    assert self._write is not None
                    return _reply(_text(self._write(json.loads(frame.blobs[0]))))
                case "forget":
                    self._given.pop(number, None)
                    self._outputs.pop(number, None)
                    return _reply(b"")
            raise ValueError(f"unknown {frame.kind}")
        except Exception as error:
            logging.exception("The formatter failed")
            return encode({"kind": "reply", "code": 424, "message": _said(error)})

    def _input_kind(self) -> str:
        if self._read is None:
            return ""
        return self._kind(self._read)

    def _output_kind(self) -> str:
        if self._write is None:
            return ""
        if self._version < (0, 28) or (_most(self._write) > 1 and self._version < (0, 33)):
            return "legacy"
        return self._kind(self._write)

    def _kind(self, function: Callable[..., Any]) -> str:
        """An annotation decides, else the version: documents from 0.33 on, objects before."""
        first = next(iter(inspect.signature(function).parameters.values()), None)
        name = _name(first.annotation) if first is not None else ""
        if name in _OBJECTS or _name(inspect.signature(function).return_annotation) in _OBJECTS:
            return "object"
        return "document" if name == "dict" or self._version >= (0, 33) else "object"

    def _input(self, number: int, frame: Frame) -> bytes:
        assert self._read is not None
        api = importlib.import_module("djl_python")
        inputs = api.Input()
        inputs.properties = dict(frame.header["properties"])
        for key, value in zip(frame.header["keys"], frame.blobs, strict=True):
            inputs.content.add(key, bytearray(value))
        tokenizer = LazyTokenizer(self._properties.get("model_id") or self._properties.get("model_dir", "."))
        more = {"tokenizer": tokenizer, "configs": self._properties}
        if self._input_kind() == "document":
            decode = importlib.import_module("djl_python.encode_decode").decode
            payload = decode(inputs, inputs.get_property("Content-Type"))
            body = _call(self._read, payload, more)
        else:
            found = _call(self._read, inputs, more)
            if not hasattr(found, "parameters"):
                raise TypeError(f"an input formatter gives a RequestInput, not {type(found).__name__}")
            found.request_id, found.tokenizer = number, tokenizer
            self._given[number] = found
            parameters = {key: value for key, value in found.parameters.items() if key != "stream"}
            body = {
                "inputs": found.input_text,
                "parameters": parameters,
                "stream": bool(found.parameters.get("stream")),
            }
        return json.dumps(body).encode()

    def _step(self, number: int, header: Any) -> bytes:
        """One token more of an answer; what the formatter makes of it."""
        assert self._write is not None
        output = self._outputs.get(number)
        if output is None:
            if not header["first"]:
                raise RuntimeError("the formatter's process was started anew in the middle of the answer")
            output = self._outputs[number] = self._begin_output(number, header)
        token = self._io.Token(header["token"], header["text"], header["logprob"], header["special"] or None)
        token.request_id = number
        finish = header["finish"] or None
        output.set_next_token(token, is_last_token=finish is not None, finish_reason=finish)
        output.finished = finish is not None
        if self._output_kind() == "legacy":
            return _text(self._legacy(output, token, header))
        return _text(self._write(output))

    def _begin_output(self, number: int, header: Any) -> Any:
        given = self._given.pop(number, None)
        if given is None:
            given = self._io.TextInput(input_text=header["inputs"], parameters=dict(header["parameters"]))
        given.request_id = number
        output = self._io.TextGenerationOutput(request_id=number, input=given)
        output.prompt_tokens_details = [self._io.Token(*each) for each in header["prompt"]]
        return output

    def _legacy(self, output: Any, token: Any, header: Any) -> Any:
        """The form before 0.28: token, first, last, details, text so far, id; a function may take fewer."""
        assert self._write is not None
        sequence = output.sequences[0]
        last = bool(header["finish"])
        text = "".join(each.text for each in sequence.tokens) if last else ""
        details = {}
        if header["parameters"].get("details"):
            details = {
                "finish_reason": sequence.finish_reason,
                "tokens": [each.as_dict() for each in sequence.tokens],
                "generated_tokens": len(sequence.tokens),
                "inputs": output.input.input_text,
            }
        arguments = (token, len(sequence.tokens) == 1, last, details, text, output.request_id)
        return self._write(*arguments[: _most(self._write)])


class LazyTokenizer:
    """The model's tokenizer, read when it is first used: transformers' own where that is installed."""

    def __init__(self, directory: str) -> None:
        self._directory = directory
        self._loaded: Any = None

    def encode(self, text: str, **more: Any) -> Any:
        found = self._load().encode(text, **more)
        return getattr(found, "ids", found)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._load(), name)

    def _load(self) -> Any:
        if self._loaded is None:
            try:
                self._loaded = importlib.import_module("transformers").AutoTokenizer.from_pretrained(self._directory)
            except ModuleNotFoundError:
                tokenizers = importlib.import_module("tokenizers")
                self._loaded = tokenizers.Tokenizer.from_file(f"{self._directory}/tokenizer.json")
        return self._loaded


def _call(function: Callable[..., Any], first: Any, more: dict[str, Any]) -> Any:
    """With as many of the keyword arguments as it takes."""
    parameters = inspect.signature(function).parameters.values()
    if any(each.kind is each.VAR_KEYWORD for each in parameters):
        return function(first, **more)
    return function(first, **{key: value for key, value in more.items() if key in {each.name for each in parameters}})


def _most(function: Callable[..., Any]) -> int:
    """How many positional arguments it takes."""
    parameters = list(inspect.signature(function).parameters.values())
    if any(each.kind is each.VAR_POSITIONAL for each in parameters):
        return 6
    return sum(each.kind in (each.POSITIONAL_ONLY, each.POSITIONAL_OR_KEYWORD) for each in parameters)


def _name(annotation: Any) -> str:
    text = annotation if isinstance(annotation, str) else getattr(annotation, "__name__", "")
    return text.rpartition(".")[2].partition("[")[0]


def _text(value: Any) -> bytes:
    if value is None:
        return b""
    if isinstance(value, bytes | bytearray):
        return bytes(value)
    return (value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)).encode(
        "utf-8", "backslashreplace"
    )


def _said(error: Exception) -> str:
    try:
        return str(error) or type(error).__name__
    except Exception:
        return type(error).__name__


def _reply(body: bytes) -> bytes:
    return encode({"kind": "reply", "code": 200, "message": "OK"}, [body])
