"""TGI's errors: `{"error": …, "error_type": …}` with a status, or as one event in a stream.

Owns the texts that don't depend on a parameter. Rendering is in `shapes.py`.
"""

from __future__ import annotations


class TgiError(Exception):
    """An error in TGI's words."""

    def __init__(self, status: int, text: str, kind: str) -> None:
        super().__init__(text)
        self.status = status
        self.text = text
        self.kind = kind


class ValidationError(TgiError):
    """422: `text` comes without the prefix."""

    def __init__(self, text: str) -> None:
        super().__init__(422, f"Input validation error: {text}", "validation")


class Overloaded(TgiError):
    def __init__(self) -> None:
        super().__init__(429, "Model is overloaded", "overloaded")


class GenerationError(TgiError):
    def __init__(self, cause: str) -> None:
        super().__init__(424, f"Request failed during generation: {cause}", "generation")


class Incomplete(TgiError):
    """The engine's stream ended with no end."""

    def __init__(self) -> None:
        super().__init__(500, "Incomplete generation", "incomplete_generation")


class IncompleteStream(TgiError):
    """The same while it was streamed, as 3.0.0 words it."""

    def __init__(self) -> None:
        super().__init__(500, "Incomplete generation stream", "incomplete_generation_stream")


class TemplateFailed(TgiError):
    """The chat template refused the messages, or there is none."""

    def __init__(self, text: str) -> None:
        super().__init__(422, f"Template error: {text}", "template_error")


class MissingVariable(TgiError):
    """The chat template uses something that was not given. The text is the original's, with its typing error."""

    def __init__(self, text: str) -> None:
        super().__init__(422, f"Missing template vatiable: {text}", "missing_template_variable")


class ToolError(TgiError):
    def __init__(self, text: str) -> None:
        super().__init__(422, f"Tool error: {text}", "tool_error")


class BadBody(Exception):
    """What the original's web framework answers itself, as plain text."""

    def __init__(self, status: int, text: str) -> None:
        super().__init__(text)
        self.status = status
        self.text = text


class BodyTooLong(BadBody):
    """More bytes than PAYLOAD_LIMIT, or more values than can be taken up."""

    def __init__(self) -> None:
        super().__init__(413, "Failed to buffer the request body: length limit exceeded")
