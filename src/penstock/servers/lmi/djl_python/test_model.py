"""Requests to try a handler with, without a server."""

from __future__ import annotations

import io
import os
from collections.abc import Iterable
from typing import Any

from .inputs import Input
from .np_util import to_nd_list
from .outputs import Output

_BY_ENDING = {
    ".json": "application/json", ".txt": "text/plain", ".gif": "image/gif", ".png": "image/png",
    ".jpeg": "image/jpeg", ".jpg": "image/jpeg", ".ndlist": "tensor/ndlist", ".npz": "tensor/npz",
}  # fmt: skip


def create_request(
    input_files: Iterable[str], parameters: Iterable[str] | None = None, properties: Iterable[str] | None = None
) -> Input:
    """`[key=]file` or `[key=]text` each, and properties as `name=value`. Raises ValueError on a property that is none."""
    request = Input()
    request.properties["device_id"] = "-1"
    for item in [*(parameters or ()), *(properties or ())]:
        name, separator, value = item.partition("=")
        if not separator:
            raise ValueError(f"Invalid model parameter: {item}")
        request.properties[name] = value
    for item in input_files:
        key, separator, value = item.partition("=")
        if not separator or item.lstrip().startswith(("{", "[")):
            key, value = "", item
        _add(request, key or None, value)
    return request


def _add(request: Input, key: str | None, value: str) -> None:
    if not os.path.exists(value):
        request.content.add(key=key, value=value.encode("utf-8"))
        is_json = value.startswith("{") and value.endswith("}")
        request.properties["content-type"] = "application/json" if is_json else "text/plain"
        return
    with open(value, "rb") as file:
        request.content.add(key=key, value=file.read())
    if kind := _BY_ENDING.get(os.path.splitext(value)[1].lower()):
        request.properties["content-type"] = kind


def create_text_request(text: str, key: str | None = None) -> Input:
    return _request("text/plain", text.encode("utf-8"), key)


def create_numpy_request(list: Any, key: str | None = None) -> Input:
    return _request("tensor/ndlist", to_nd_list(list), key)


def create_npz_request(list: Any, key: str | None = None) -> Input:
    import numpy

    file = io.BytesIO()
    numpy.savez(file, *list)
    return _request("tensor/npz", file.getvalue(), key)


def _request(content_type: str, value: bytes | bytearray, key: str | None) -> Input:
    request = Input()
    request.properties |= {"device_id": "-1", "content-type": content_type}
    request.content.add(key=key, value=value)
    return request


def extract_output_as_input(outputs: Output) -> Input:
    """An answer as the next request, to read it by."""
    inputs = Input()
    inputs.properties = outputs.properties
    inputs.content = outputs.content
    return inputs


def extract_output_as_bytes(outputs: Output, key: str | None = None) -> Any:
    return extract_output_as_input(outputs).get_as_bytes(key)


def extract_output_as_numpy(outputs: Output, key: str | None = None) -> list[Any]:
    return extract_output_as_input(outputs).get_as_numpy(key)


def extract_output_as_npz(outputs: Output, key: str | None = None) -> list[Any]:
    return extract_output_as_input(outputs).get_as_npz(key)


def extract_output_as_string(outputs: Output, key: str | None = None) -> str:
    return extract_output_as_input(outputs).get_as_string(key)
