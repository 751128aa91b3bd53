"""Input formatters of your own, and handlers by decorator."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from .encode_decode import decode
from .inputs import Input
from .request_io import RequestInput, TextInput

__all__ = ["RequestInput", "TextInput", "format_input", "init_handler", "input_formatter", "prediction_handler"]

Function = TypeVar("Function", bound=Callable[..., Any])


def input_formatter(function: Function) -> Function:
    """Marks the function of a model.py that reads the requests of the server's own text generation."""
    function.is_input_formatter = True  # type: ignore[attr-defined]
    return function


def prediction_handler(function: Function) -> Function:
    """Marks the function of a model.py that is called with each request's data and the model."""
    function.is_prediction_handler = True  # type: ignore[attr-defined]
    return function


def init_handler(function: Function) -> Function:
    """Marks the function of a model.py that is called with the model's directory and gives the model."""
    function.is_init_handler = True  # type: ignore[attr-defined]
    return function


def format_input(input_item: Input, **kwargs: Any) -> TextInput:
    """A request as it is read where there is no formatter. Raises ValueError on a body without inputs."""
    body = decode(input_item, input_item.get_property("Content-Type"))
    if not isinstance(body, dict) or "inputs" not in body:
        raise ValueError(
            "Invalid request payload. Request payload should be a json object specifying the 'inputs' field."
        )
    parameters = body.get("parameters") or {}
    if not isinstance(parameters, dict):
        raise ValueError("Invalid request payload. 'parameters' must be provided as an object of key-value pairs.")
    return TextInput(input_text=body["inputs"], parameters={**parameters, "stream": bool(body.get("stream", False))})
