"""What a handler returns."""

from __future__ import annotations

import io
import json
import logging
from collections.abc import Callable, Iterator
from typing import Any

from .np_util import to_nd_list
from .pair_list import PairList


class _Encoder(json.JSONEncoder):
    """JSON that takes numpy's numbers and arrays, and dates."""

    def default(self, value: Any) -> Any:
        if hasattr(value, "isoformat"):
            return str(value)
        if hasattr(value, "tolist"):
            return value.tolist()
        return super().default(value)


def json_bytes(value: Any) -> bytearray:
    """Pretty JSON in UTF-8: two spaces, no blank after a comma or a colon. Raises ValueError on NaN, TypeError on what is no JSON."""
    text = json.dumps(value, ensure_ascii=False, allow_nan=False, indent=2, cls=_Encoder, separators=(",", ":"))
    return bytearray(text.encode("utf-8", "backslashreplace"))  # Half a character becomes its JSON escape.


def line_of_outputs(item: Any) -> bytearray:
    """A streamed item as one line of JSON, in ASCII."""
    return bytearray(json.dumps({"outputs": item}).encode("utf-8") + b"\n")


class Output:
    """A response: a code, properties that become headers, and contents or a stream."""

    def __init__(self, code: int = 200, message: str = "OK") -> None:
        self.code = code
        self.message = message
        self.properties: dict[str, str] = {}
        self.content = PairList()
        self.stream_content: Iterator[Any] | None = None
        self.stream_output_formatter: Callable[[Any], Any] | None = None
        self.finalize_function: Callable[..., Any] | None = None
        self.finalize_args: tuple[Any, ...] = ()

    def __str__(self) -> str:
        kinds = {
            str(self.content.key_at(index)): f"type: {type(self.content.value_at(index))}"
            for index in range(self.content.size())
        }
        shown = {"code": self.code, "message": self.message, "properties": self.properties, "content": kinds}
        return json.dumps(shown, indent=2)

    def set_code(self, code: int) -> Output:
        self.code = code
        return self

    def set_message(self, message: str) -> Output:
        self.message = message
        return self

    def error(self, error: str, code: int = 424, message: str = "prediction failure") -> Output:
        """Make it an error: a JSON body of code, message and error."""
        self.code = code
        self.message = message
        self.add_property("content-type", "application/json")
        return self.add_as_json({"code": code, "message": message, "error": error})

    def add_property(self, key: str, val: str) -> Output:
        """A response header."""
        self.properties[key] = val
        return self

    def add(self, value: Any, key: Any = None, batch_index: int | None = None) -> Output:
        """Add a content: str and bytes as they are, anything else as JSON. `batch_index` says for which request of a batch."""
        if key is not None and not isinstance(key, str):
            logging.warning("Output key should be str type, got %s", type(key))
            key = str(key)
        if batch_index is not None:
            key = f"batch_{batch_index}.{key or ''}"
        if isinstance(value, str):
            value = value.encode("utf-8")
        self.content.add(key, bytearray(value) if isinstance(value, bytes | bytearray) else json_bytes(value))
        return self

    def add_as_json(self, val: Any, key: Any = None, batch_index: int | None = None) -> Output:
        return self.add(json_bytes(val), key=key, batch_index=batch_index)

    def add_as_numpy(self, np_list: Any, key: Any = None, batch_index: int | None = None) -> Output:
        """Arrays in DJL's own format."""
        return self.add(to_nd_list(np_list), key=key, batch_index=batch_index)

    def add_as_npz(self, np_list: Any, key: Any = None, batch_index: int | None = None) -> Output:
        """Arrays as an npz file."""
        import numpy

        file = io.BytesIO()
        numpy.savez(file, *np_list)
        return self.add(file.getvalue(), key=key, batch_index=batch_index)

    def add_stream_content(
        self, stream_content: Iterator[Any], output_formatter: Callable[[Any], Any] | None = line_of_outputs
    ) -> Output:
        """Stream what an iterator gives, each item through the formatter; without one str and bytes go as they are, else JSON."""
        self.stream_content = stream_content
        self.stream_output_formatter = output_formatter
        return self

    def finalize(self, finalize_function: Callable[..., Any], *args: Any) -> Output:
        """Call this once the response has been sent."""
        self.finalize_function = finalize_function
        self.finalize_args = args
        return self

    def execute_finalize(self) -> Any:
        return self.finalize_function(*self.finalize_args) if self.finalize_function else None

    def stream_piece(self, item: Any) -> bytes:
        """One item as it is sent."""
        if self.stream_output_formatter is not None:
            item = self.stream_output_formatter(item)
        if isinstance(item, str):
            return item.encode("utf-8")
        return bytes(item) if isinstance(item, bytes | bytearray) else bytes(json_bytes(item))
