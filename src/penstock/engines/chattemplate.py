"""A model's chat template: messages to the text that the model was trained on.

Owns the Jinja sandbox in which a template from a stranger's repository runs. It must never let one read a file or call into Python.
"""

from __future__ import annotations

import datetime
import json
from collections.abc import Mapping, Sequence
from typing import Any, NoReturn

import jinja2
from jinja2 import meta
from jinja2.sandbox import ImmutableSandboxedEnvironment


class TemplateError(Exception):
    """The template refused the messages, or is broken. The message is the template's own."""


class MissingTemplateVariable(TemplateError):
    """The template uses something that was not given."""


class ChatTemplate:
    """A compiled template. Raises TemplateError when `source` can't be compiled."""

    def __init__(self, source: str, special_tokens: Mapping[str, str]) -> None:
        environment = ImmutableSandboxedEnvironment(
            trim_blocks=True, lstrip_blocks=True, extensions=["jinja2.ext.loopcontrols"]
        )
        environment.filters["tojson"] = _to_json
        environment.globals["raise_exception"] = _refuse
        environment.globals["strftime_now"] = _now
        self._special_tokens = dict(special_tokens)
        try:
            self._template = environment.from_string(source)
            self.uses_tools = "tools" in meta.find_undeclared_variables(environment.parse(source))
            """Whether the template says itself which tools there are."""
        except jinja2.TemplateError as error:
            raise TemplateError(str(error)) from error

    def render(
        self,
        messages: Sequence[Mapping[str, Any]],
        *,
        tools: Sequence[Mapping[str, Any]] | None = None,
        add_generation_prompt: bool = True,
        **more: Any,
    ) -> str:
        """The prompt. Raises TemplateError."""
        try:
            return self._template.render(
                **{**self._special_tokens, **more},
                messages=list(messages),
                tools=list(tools) if tools else None,
                add_generation_prompt=add_generation_prompt,
            )
        except jinja2.UndefinedError as error:
            raise MissingTemplateVariable(str(error)) from error
        except (jinja2.TemplateError, TypeError, ValueError, ArithmeticError, LookupError) as error:
            raise TemplateError(str(error)) from error


def _to_json(value: Any, indent: int | None = None) -> str:
    """Unlike Jinja's own, it does not escape for HTML: models were not trained on that."""
    return json.dumps(value, ensure_ascii=False, indent=indent)


def _refuse(message: str) -> NoReturn:
    raise jinja2.TemplateError(message)


def _now(form: str) -> str:
    return datetime.datetime.now(tz=datetime.UTC).strftime(form)
