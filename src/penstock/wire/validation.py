"""A model's constraints, checked in AWS's order and wording.

Owns which constraints there are and how a broken one reads. It must never know a protocol: it takes parameters as Python values, and
raises one AwsError that lists every violation, as AWS does.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from penstock.errors import AwsError
from penstock.wire.patterns import matches
from penstock.wire.shapes import Shape

_MOST = 10
"""Violations listed at most, so that an answer stays small."""


def validate(shape: Shape, params: Mapping[str, Any], code: str) -> None:
    """Raises AwsError(`code`, "2 validation errors detected: Value …; Value …")."""
    found: list[str] = []
    for violation in _structure(shape, params, ""):
        found.append(violation)
        if len(found) == _MOST:
            break
    if found:
        noun = "error" if len(found) == 1 else "errors"
        raise AwsError(code, f"{len(found)} validation {noun} detected: {'; '.join(found)}")


def _structure(shape: Shape, params: Mapping[str, Any], path: str) -> Iterator[str]:
    for name, member in shape.members.items():
        below = f"{path}.{_lower(name)}" if path else _lower(name)
        value = params.get(name)
        if value is None:
            if name in shape.required:
                yield _violation(None, below, "Member must not be null")
        else:
            yield from _value(member, value, below)


def _value(shape: Shape, value: Any, path: str) -> Iterator[str]:
    match shape.type:
        case "structure":
            if not shape.is_document:
                yield from _structure(shape, value, path)
        case "list":
            yield from _bounds(shape, value, len(value), "length", path)
            for i, element in enumerate(value, start=1):
                yield from _value(shape.element, element, f"{path}.{i}.member")
        case "map":
            yield from _bounds(shape, value, len(value), "length", path)
            for key, element in value.items():
                yield from _value(shape.key, key, f"{path}.{key}.key")
                yield from _value(shape.value, element, f"{path}.{key}.member")
        case "string" | "character":
            yield from _string(shape, value, path)
        case "blob":
            yield from _bounds(shape, value, len(value), "length", path)
        case "integer" | "long" | "float" | "double":
            yield from _bounds(shape, value, value, "value", path)
        case _:
            pass


def _string(shape: Shape, value: str, path: str) -> Iterator[str]:
    if shape.enum and value not in shape.enum:
        yield _violation(_shown(shape, value), path, f"Member must satisfy enum value set: [{', '.join(shape.enum)}]")
    broken = list(_bounds(shape, value, len(value), "length", path))
    yield from broken
    # A pattern is matched only against what is of the right length, so that no expression meets a text it was not meant for.
    if shape.pattern and not broken and not matches(shape.pattern, value):
        yield _violation(_shown(shape, value), path, f"Member must satisfy regular expression pattern: {shape.pattern}")


def _bounds(shape: Shape, value: Any, size: float, what: str, path: str) -> Iterator[str]:
    if shape.min is not None and size < shape.min:
        yield _violation(_shown(shape, value), path, f"Member must have {what} greater than or equal to {shape.min}")
    if shape.max is not None and size > shape.max:
        yield _violation(_shown(shape, value), path, f"Member must have {what} less than or equal to {shape.max}")


def _shown(shape: Shape, value: Any) -> str:
    if shape.sensitive:
        return "***Sensitive Data Redacted***"
    if isinstance(value, list):
        value = f"[{', '.join(map(str, value))}]"
    text = str(value)
    return text if len(text) <= 1024 else text[:1021] + "..."


def _violation(value: str | None, path: str, rule: str) -> str:
    shown = "null" if value is None else f"'{value}'"
    return f"Value {shown} at '{path}' failed to satisfy constraint: {rule}"


def _lower(name: str) -> str:
    return name[:1].lower() + name[1:]
