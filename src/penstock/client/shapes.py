"""What the model servers' JSON objects say.

Owns the shapes: LMI's `outputs` and `token` lines, TGI's events, OpenAI's chunks, whole answers, and each one's errors. It
must never know how the objects came (lines, events, one text).
Formats: https://docs.djl.ai/master/docs/serving/serving/docs/lmi/user_guides/lmi_input_output_schema.html,
https://huggingface.co/docs/text-generation-inference/main/en/reference/api_reference
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

from penstock.client.errors import StreamError


@dataclass(frozen=True, slots=True)
class Token:
    """One step of the generation.

    `text`: what it adds to the answer ("" for special tokens, which are no part of it). Formats that do not show tokens
    (LMI's `json`, whole answers, plain text) give the text in the pieces in which it came, with `id` None.
    `sequence`: which answer, where a request has several. `finish_reason`: on the last one, where the server says it.
    """

    text: str
    id: int | None = None
    special: bool = False
    finish_reason: str | None = None
    sequence: int = 0


class Shapes:
    """Objects in, tokens out; remembers whether the stream has said that it is complete.

    Raises StreamError with origin "container" for an error that the model server wrote into the stream, `UnknownFormat`
    where the first object is of no known shape (later ones are skipped: servers mix in usage figures), and, from
    `finish`, `Truncated` where a format that marks its end (TGI, OpenAI, LMI since 0.28) was left without the mark.
    """

    def __init__(self) -> None:
        self._known = False
        self._tokens = False
        self._open = False

    def read(self, value: Any) -> Iterator[Token]:
        """The tokens in one JSON value. The last line of an answer may repeat the whole text; that is not yielded again."""
        if isinstance(value, list):
            for sequence, item in enumerate(value):
                for one in self.read(item):
                    yield replace(one, sequence=sequence)
            return
        if not isinstance(value, dict):
            raise StreamError("UnknownFormat", f"not a model server's answer: {str(value)[:200]!r}", origin="container")
        if (error := error_in(value)) is not None:
            raise error
        if isinstance(token := value.get("token"), dict):
            yield self._token(value, token)
        elif isinstance(outputs := value.get("outputs"), list):
            for sequence, piece in enumerate(outputs):
                yield Token(str(piece), sequence=sequence)
        elif isinstance(choices := value.get("choices"), list):
            yield from self._choices(choices)
        elif "generated_text" in value:
            yield from self._whole(value)
        elif not self._known:
            raise StreamError("UnknownFormat", f"not a model server's answer: {str(value)[:200]}", origin="container")
        self._known = True

    def _token(self, value: dict[str, Any], token: dict[str, Any]) -> Token:
        self._tokens = True
        if "generated_text" in value:  # TGI and newer LMI: null until the last token
            self._open = value["generated_text"] is None
        number = token.get("id")
        if isinstance(number, list):  # LMI 0.26 and 0.27 write a list of one
            number = number[0] if number else None
        special = bool(token.get("special", token.get("special_token", False)))
        text = "" if special else str(token.get("text") or "")
        return Token(text, number if isinstance(number, int) else None, special, _finish_reason(value))

    def _choices(self, choices: list[Any]) -> Iterator[Token]:
        for position, choice in enumerate(choices):
            if not isinstance(choice, dict):
                continue
            message = choice.get("delta") or choice.get("message") or {}
            text = message.get("content") if isinstance(message, dict) else None
            if text is None:
                text = choice.get("text")
            reason = choice.get("finish_reason")
            index = choice.get("index", position)
            self._open = reason is None
            if text or reason is not None:
                yield Token(
                    str(text or ""), finish_reason=reason, sequence=index if isinstance(index, int) else position
                )

    def _whole(self, value: dict[str, Any]) -> Iterator[Token]:
        self._open = False
        text, reason = value["generated_text"], _finish_reason(value)
        if isinstance(text, str) and not self._tokens:
            yield Token(text, finish_reason=reason)
        elif reason is not None:
            yield Token("", finish_reason=reason)

    def end(self) -> None:
        """The stream has marked its end (`[DONE]`)."""
        self._open = False

    def finish(self) -> None:
        """Raises StreamError `Truncated` where the mark is missing."""
        if self._open:
            raise StreamError("Truncated", "the stream ended before the model server marked the end of the answer")


def _finish_reason(value: Mapping[str, Any]) -> str | None:
    details = value.get("details")
    reason = details.get("finish_reason") if isinstance(details, dict) else None
    return str(reason) if reason is not None else None


def error_in(value: Mapping[str, Any]) -> StreamError | None:
    """The error that a model server's object reports, if it reports one."""
    error = value.get("error")
    if isinstance(error, dict):  # OpenAI, and TGI's chat route
        code = error.get("type") or error.get("code") or error.get("http_status_code") or "ModelError"
        return _container_error(code, error.get("message") or error)
    if error:  # TGI: error_type; LMI: code
        return _container_error(value.get("error_type") or value.get("code") or "ModelError", error)
    code = value.get("code")
    if isinstance(code, int) and code >= 400 and "message" in value:  # DJL Serving's front end
        return _container_error(value.get("type") or code, value["message"])
    if value.get("object") == "error":  # vLLM
        return _container_error(value.get("type") or "ModelError", value.get("message", ""))
    token = value.get("token")
    if isinstance(token, dict) and token.get("error_msg"):  # LMI 0.28 and later
        return _container_error("ModelError", token["error_msg"])
    if _finish_reason(value) == "error":
        return _container_error("ModelError", "the model server ended the answer with finish_reason error")
    return None


def _container_error(code: object, message: object) -> StreamError:
    return StreamError(str(code), str(message), origin="container")
