"""JSON schemas that make a model call a function.

Owns their form, and moving definitions to where references find them. It must never generate.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

_PLACES = ("$defs", "definitions")


class TwoDefinitions(Exception):
    """Two functions give one name to different definitions."""


def with_definitions(schema: dict[str, Any], parameters: Sequence[Any]) -> dict[str, Any]:
    """`schema` with the definitions of every function's parameters at its own root, where their references begin. Raises TwoDefinitions."""
    for each in parameters:
        for place in _PLACES:
            for name, definition in mapping(mapping(each).get(place)).items():
                if schema.setdefault(place, {}).setdefault(name, definition) != definition:
                    raise TwoDefinitions(f"two tools define {name} differently in their {place}")
    return schema


def any_calls(functions: Mapping[str, Any]) -> dict[str, Any]:
    """A list of at least one call, `{"name", "parameters"}`, of any of `functions`: names with the schemas of their parameters."""
    calls = [
        {
            "type": "object",
            "properties": {"name": {"type": "string", "enum": [name]}, "parameters": bare(parameters)},
            "required": ["name", "parameters"],
            "additionalProperties": False,
        }
        for name, parameters in functions.items()
    ]
    return with_definitions({"type": "array", "minItems": 1, "items": {"anyOf": calls}}, list(functions.values()))


def bare(parameters: Any) -> dict[str, Any]:
    """A function's parameters as a schema within another; a function without any takes an empty object."""
    given = mapping(parameters)
    kept = {key: value for key, value in given.items() if key not in _PLACES}
    return kept or {"type": "object", "properties": {}}


def mapping(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}
