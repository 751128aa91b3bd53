"""Output formatters of your own: the decorator, and the shapes that they are called with."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from .request_io import RequestOutput, Sequence, TextGenerationOutput, Token

__all__ = ["RequestOutput", "Sequence", "TextGenerationOutput", "Token", "get_generated_text", "output_formatter"]

Function = TypeVar("Function", bound=Callable[..., Any])


def output_formatter(function: Function) -> Function:
    """Marks the function of a model.py that writes the answers of the server's own text generation."""
    function.is_output_formatter = True  # type: ignore[attr-defined]
    return function


def get_generated_text(sequence: Sequence, request_output: TextGenerationOutput) -> str:
    """The text so far, after the prompt where the request wants it."""
    parameters = request_output.input.parameters
    before = getattr(request_output.input, "input_text", "") if parameters.get("return_full_text") else ""
    return str(before) + "".join(token.text for token in sequence.tokens)
