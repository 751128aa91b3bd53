"""A JSON schema as a regular expression, as the original compiles it: properties in their order, at most one space between things.

Owns the schemas that have such a form. What has none (objects without properties, recursion, formats, bounds) is left to the engine's own
reading of JSON schemas, which lets a model put any white space anywhere.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

from penstock.engines.base import Grammar

LONGEST_REGEX = 4096
"""Characters. Compiling a longer one takes the engine many times what the same schema takes it, and holds up other requests."""
_SPACE = "[ ]?"
_LETTER = r'([^"\\\x00-\x1F\x7F]|\\["\\/bfnrt])'
_INTEGER = "-?(0|[1-9][0-9]*)"
_TYPES = {
    "integer": _INTEGER,
    "number": _INTEGER + r"(\.[0-9]+)?([eE][+-]?[0-9]+)?",
    "boolean": "(true|false)",
    "null": "null",
}
_SPECIAL = re.compile(r"[.^$*+?()\[\]{}|\\/-]")
_MAX_DEPTH = 32


class NoRegex(Exception):
    """The schema has no such form; the message says which part."""


def as_grammar(schema: Mapping[str, Any], otherwise: Mapping[str, Any]) -> Grammar:
    """What holds an answer to `schema`: its regular expression, else the engine's own reading of `otherwise`. Raises RecursionError."""
    try:
        if len(regex := to_regex(schema)) <= LONGEST_REGEX:
            return Grammar("regex", regex)
    except (NoRegex, TypeError, ValueError):
        pass  # the engine says what is wrong with it, if anything is
    return Grammar("json_schema", json.dumps(otherwise, ensure_ascii=False))


def to_regex(schema: Mapping[str, Any]) -> str:
    """Raises NoRegex."""
    return _value(schema, schema, 0)


def _value(schema: Any, root: Mapping[str, Any], depth: int) -> str:
    if not isinstance(schema, Mapping) or depth > _MAX_DEPTH:
        raise NoRegex("a schema that is no object, or refers to itself")
    match schema:
        case {"properties": Mapping() as properties}:
            return _object(properties, schema.get("required") or (), root, depth)
        case {"anyOf": [*options]} | {"oneOf": [*options]} if options:
            return _any(_value(option, root, depth + 1) for option in options)
        case {"enum": [*options]} if options:
            return _any(map(_literal, options))
        case {"const": value}:
            return _literal(value)
        case {"$ref": str(reference)}:
            return _value(_resolved(reference, root), root, depth + 1)
        case {"type": [*types]} if types:
            return _any(_value({**schema, "type": each}, root, depth + 1) for each in types)
        case {"type": "string"}:
            return _string(schema)
        case {"type": "array", "items": items}:
            return _array(_value(items, root, depth + 1), schema)
        case {"type": str(name)} if name in _TYPES and not schema.keys() & {"minimum", "maximum", "multipleOf"}:
            return _TYPES[name]
    raise NoRegex(f"a schema with {', '.join(map(str, schema)) or 'nothing'}")


def _object(properties: Mapping[str, Any], required: Any, root: Mapping[str, Any], depth: int) -> str:
    members = [
        (f"{_SPACE}{_literal(name)}{_SPACE}:{_SPACE}{_value(schema, root, depth + 1)}", name in required)
        for name, schema in properties.items()
    ]
    if not members:
        return rf"\{{{_SPACE}\}}"
    anchor = max((at for at, (_, needed) in enumerate(members) if needed), default=None)
    if anchor is not None:
        return rf"\{{{_members(members, anchor)}{_SPACE}\}}"
    # One of the optional ones has to stand without a comma: any of them may be the last that is there.
    options = "|".join(_members(members[: at + 1], at) for at in range(len(members)))
    return rf"\{{({options})?{_SPACE}\}}"


def _members(members: list[tuple[str, bool]], anchor: int) -> str:
    """The members in a row; the one at `anchor` is always there, so that all others know where their comma is."""
    parts = []
    for at, (member, needed) in enumerate(members):
        if at == anchor:
            parts.append(member)
            continue
        with_comma = f"{member}{_SPACE}," if at < anchor else f"{_SPACE},{member}"
        parts.append(with_comma if needed else f"({with_comma})?")
    return "".join(parts)


def _string(schema: Mapping[str, Any]) -> str:
    if "format" in schema:
        raise NoRegex("a format")
    if isinstance(pattern := schema.get("pattern"), str):
        return f'"({pattern.removeprefix("^").removesuffix("$")})"'
    least, most = schema.get("minLength"), schema.get("maxLength")
    return f'"{_LETTER}{_times(least, most)}"'


def _array(item: str, schema: Mapping[str, Any]) -> str:
    least, most = schema.get("minItems") or 0, schema.get("maxItems")
    if most == 0:
        return rf"\[{_SPACE}\]"
    more = _times(max(least - 1, 0), None if most is None else most - 1)
    items = f"{item}({_SPACE},{_SPACE}{item}){more}"
    return rf"\[{_SPACE}{items if least else f'({items})?'}{_SPACE}\]"


def _times(least: int | None, most: int | None) -> str:
    if not least and most is None:
        return "*"
    return f"{{{least or 0},{'' if most is None else most}}}"


def _any(options: Any) -> str:
    return f"({'|'.join(options)})"


def _literal(value: Any) -> str:
    return _SPECIAL.sub(lambda found: "\\" + found[0], json.dumps(value, ensure_ascii=False))


def _resolved(reference: str, root: Mapping[str, Any]) -> Any:
    found: Any = root
    for part in reference.removeprefix("#").strip("/").split("/"):
        found = found.get(part.replace("~1", "/").replace("~0", "~")) if isinstance(found, Mapping) else None
    if found is None or not reference.startswith("#/"):
        raise NoRegex(f"the reference {reference}")
    return found
