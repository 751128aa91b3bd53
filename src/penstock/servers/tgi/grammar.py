"""`grammar` and `response_format`: what an answer's text must keep to.

Owns their shape and the original's checks. Whether the engine can keep to one is the engine's to say.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from penstock.engines.base import Grammar
from penstock.servers.chat.schema_regex import as_grammar
from penstock.servers.tgi.errors import BadBody, ValidationError
from penstock.servers.tgi.fields import Fields, string
from penstock.servers.tgi.serde import Mismatch, load

_KINDS = {"json": "json", "json_object": "json", "regex": "regex", "json_schema": "json_schema"}


@dataclass(frozen=True, slots=True)
class GrammarType:
    """A grammar as given."""

    kind: Literal["json", "regex"]
    value: Any


def read_grammar(value: Any) -> GrammarType:
    """Raises Mismatch."""
    fields = Fields(value, (), "adjacently tagged enum GrammarType")
    name = fields.required("type", string)
    if name not in _KINDS:
        known = ", ".join(f"`{kind}`" for kind in _KINDS)
        raise Mismatch(("type",), f"unknown variant `{name}`, expected one of {known}")
    match _KINDS[name]:
        case "regex":
            return GrammarType("regex", fields.required("value", string))
        case "json_schema":
            return GrammarType("json", fields.required("value", _schema))
    return GrammarType("json", fields.required("value", lambda schema: schema))


def _schema(value: Any) -> Any:
    config = Fields(value, (), "struct JsonSchemaConfig")
    config.optional("name", string)
    return config.required("schema", lambda schema: schema)


def checked(grammar: GrammarType, *, disabled: bool) -> Grammar:
    """The engine's form. Raises ValidationError."""
    if disabled:
        raise ValidationError("grammar is not supported")
    if grammar.kind == "regex":
        return Grammar("regex", grammar.value)
    schema = grammar.value
    if isinstance(schema, str):
        try:
            schema = load(schema.encode())
        except BadBody as error:
            raise ValidationError(f"grammar is not valid: {error.text.partition(': ')[2]}") from None
    if not isinstance(schema, dict):
        raise ValidationError("grammar is not supported")
    if "properties" not in schema:
        raise ValidationError("grammar is not valid: Grammar must have a 'properties' field")
    # The original makes an object of every schema with properties; others leave the type open where it is not said.
    try:
        return as_grammar(schema, {"type": "object", **schema})
    except RecursionError:
        raise ValidationError("grammar is not valid: it is nested too deeply") from None
