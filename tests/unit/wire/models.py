"""Service models for the tests of protocols: ours and botocore's from one document, and values that fit a shape."""

from __future__ import annotations

import datetime as dt
import gzip
import json
from pathlib import Path
from typing import Any

import botocore
import botocore.model
from hypothesis import strategies as st

from penstock.wire.shapes import ServiceModel, Shape, read_model

DATA = Path(botocore.__file__).parent / "data"
CONSTRAINTS = ("enum", "pattern", "min", "max")


def document(service: str) -> dict[str, Any]:
    path = max(DATA.joinpath(service).glob("*/service-2.json.gz"))
    loaded: dict[str, Any] = json.loads(gzip.decompress(path.read_bytes()))
    return loaded


def unconstrained(service: str) -> dict[str, Any]:
    """The service's document in which any value of the right type is valid."""
    loaded = document(service)
    inputs = {operation["input"]["shape"] for operation in loaded["operations"].values() if "input" in operation}
    for name, shape in loaded["shapes"].items():
        for constraint in CONSTRAINTS:
            shape.pop(constraint, None)
        if name not in inputs:
            shape.pop("required", None)
    return loaded


def ours(name: str, loaded: dict[str, Any], *served: str) -> ServiceModel:
    return read_model(name, json.dumps(loaded).encode(), served)


def theirs(name: str, loaded: dict[str, Any]) -> Any:
    return botocore.model.ServiceModel(loaded, name)


MOMENTS = st.datetimes(dt.datetime(1971, 1, 1), dt.datetime(2090, 1, 1), timezones=st.just(dt.UTC)).map(
    lambda m: m.replace(microsecond=m.microsecond // 1000 * 1000)
)
XML_TEXT = st.text(st.characters(exclude_categories=["Cs", "Cc"], exclude_characters="\ufffe\uffff"), max_size=20)


def values(
    shape: Shape, text: st.SearchStrategy[str], *, whole_seconds: bool = False, depth: int = 3
) -> st.SearchStrategy[Any]:
    """Any value of `shape`'s type, constraints aside; empty below `depth` levels, since shapes may hold themselves."""
    again: Any = lambda s: values(s, text, whole_seconds=whole_seconds, depth=depth - 1)  # noqa: E731
    match shape.type:
        case "structure":
            members = {n: again(m) for n, m in shape.members.items()} if depth > 0 else {}
            required = {n: s for n, s in members.items() if n in shape.required}
            return st.fixed_dictionaries(required, optional={n: s for n, s in members.items() if n not in required})
        case "list":
            return st.lists(again(shape.element), max_size=3) if depth > 0 else st.just([])
        case "map":
            return st.dictionaries(text.filter(bool), again(shape.value), max_size=3) if depth > 0 else st.just({})
        case "boolean":
            return st.booleans()
        case "integer":
            return st.integers(-(2**31), 2**31 - 1)
        case "long":
            return st.integers(-(2**63), 2**63 - 1)
        case "float" | "double":
            return st.floats(allow_nan=False, allow_infinity=False)
        case "timestamp":
            return MOMENTS.map(lambda m: m.replace(microsecond=0)) if whole_seconds else MOMENTS
        case "blob":
            return st.binary(max_size=20)
        case _:
            return text
