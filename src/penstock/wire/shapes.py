"""AWS's service models as typed values: operations and the shapes of their input and output.

Owns the reading of a `service-2.json` document (botocore ships them as data) into `ServiceModel`, `OperationModel` and `Shape`. It must
never open a file, and it does not import botocore: that package's own model classes cost 22 MB and 0.2 s, for an HTTP client that a
server never uses. `tests/unit/wire/test_shapes.py` holds these classes against botocore's, for every operation.

Shapes are made on first use, so that a model of 400 operations costs little until one is called.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Literal, cast

import msgspec

from penstock.errors import AwsError

ShapeType = Literal[
    "structure",
    "list",
    "map",
    "string",
    "integer",
    "long",
    "float",
    "double",
    "boolean",
    "timestamp",
    "blob",
    "character",
]
Location = Literal["", "header", "headers", "uri", "querystring", "statusCode"]
Document = dict[str, Any]


class Shape:
    """A shape with the traits of the place where it is used, as in botocore: one class for types and for members."""

    def __init__(self, document: Document, name: str, traits: Mapping[str, Any]) -> None:
        self._document = document
        self._traits: dict[str, Any] = {**document["shapes"][name], **traits}
        self.name = name
        self.type: ShapeType = self._traits["type"]
        self.wire_name: str = self._traits.get("locationName", "")
        """The name on the wire where it differs from the member's, else empty."""
        self.location: Location = self._traits.get("location", "")
        self.required: tuple[str, ...] = tuple(self._traits.get("required", ()))
        self.enum: tuple[str, ...] = tuple(self._traits.get("enum", ()))
        self.pattern: str = self._traits.get("pattern", "")
        self.min: float | None = self._traits.get("min")
        self.max: float | None = self._traits.get("max")
        self.flattened: bool = self._traits.get("flattened", False)
        self.timestamp_format: str = self._traits.get("timestampFormat", "")
        self.payload: str = self._traits.get("payload", "")
        """The member that is the body, else empty: then the body holds every member without a location."""
        self.streaming: bool = self._traits.get("streaming", False)
        self.sensitive: bool = self._traits.get("sensitive", False)
        self.xml_attribute: bool = self._traits.get("xmlAttribute", False)
        self.xml_namespace: str = self._traits.get("xmlNamespace", {}).get("uri", "")
        self.xml_prefix: str = self._traits.get("xmlNamespace", {}).get("prefix", "")
        self.is_document: bool = self._traits.get("document", False)

    def __repr__(self) -> str:
        return f"Shape({self.name!r}, {self.type!r})"

    def _refer(self, reference: Mapping[str, Any]) -> Shape:
        return Shape(self._document, reference["shape"], {k: v for k, v in reference.items() if k != "shape"})

    @cached_property
    def members(self) -> dict[str, Shape]:
        """Of a structure, in the model's order."""
        return {name: self._refer(reference) for name, reference in self._traits.get("members", {}).items()}

    @cached_property
    def element(self) -> Shape:
        """Of a list."""
        return self._refer(self._traits["member"])

    @cached_property
    def key(self) -> Shape:
        """Of a map."""
        return self._refer(self._traits["key"])

    @cached_property
    def value(self) -> Shape:
        """Of a map."""
        return self._refer(self._traits["value"])


class OperationModel:
    """One operation: its place in HTTP, its input, its output."""

    def __init__(self, service: ServiceModel, name: str, document: Document) -> None:
        self.service = service
        self.name = name
        operation = document["operations"][name]
        self._document = document
        self._operation = operation
        self.method: str = operation["http"]["method"]
        self.uri: str = operation["http"]["requestUri"]
        self.status: int = operation["http"].get("responseCode", 200)
        self.result_wrapper: str = operation.get("output", {}).get("resultWrapper", "")

    def __repr__(self) -> str:
        return f"OperationModel({self.name!r})"

    @cached_property
    def input(self) -> Shape | None:
        return self._shape(self._operation.get("input"))

    @cached_property
    def output(self) -> Shape | None:
        return self._shape(self._operation.get("output"))

    def _shape(self, reference: Mapping[str, Any] | None) -> Shape | None:
        if reference is None:
            return None
        return Shape(self._document, reference["shape"], {k: v for k, v in reference.items() if k != "shape"})


@dataclass(frozen=True, slots=True)
class Route:
    """What tells one REST operation from its neighbours: read for every operation, served or not."""

    name: str
    method: str
    uri: str
    required_query: frozenset[str] = frozenset()
    required_headers: frozenset[str] = frozenset()


@dataclass(slots=True)
class ServiceModel:
    """A service: its operations, of which only the `served` ones keep their shapes."""

    name: str
    namespace: str
    """The XML namespace of query and rest-xml answers."""
    api_version: str
    target_prefix: str
    json_version: str
    protocols: tuple[str, ...]
    routes: tuple[Route, ...]
    document: Document = field(repr=False)
    _operations: dict[str, OperationModel] = field(default_factory=dict, repr=False)

    @property
    def served(self) -> frozenset[str]:
        return frozenset(self.document["operations"])

    @property
    def validation_code(self) -> str:
        """The error code of a broken constraint: CloudWatch Logs has a name of its own for it."""
        if "query" in self.protocols:
            return "ValidationError"
        return "InvalidParameterException" if self.name == "logs" else "ValidationException"

    def operation(self, name: str) -> OperationModel:
        """Raises AwsError: 501 for an operation that AWS has and this server has not; KeyError for one that AWS lacks too."""
        found = self._operations.get(name)
        if found is None:
            if name not in self.document["operations"]:
                if not any(route.name == name for route in self.routes):
                    raise KeyError(name)
                raise not_served(self.name, name)
            found = self._operations[name] = OperationModel(self, name, self.document)
        return found


def not_served(service: str, operation: str) -> AwsError:
    """What an operation answers that exists at AWS and not here. 501: clients do not retry it."""
    return AwsError("NotImplemented", f"Penstock does not serve the operation {operation} of {service}.", status=501)


def read_model(name: str, text: bytes, served: Collection[str]) -> ServiceModel:
    """A service model from the JSON of a `service-2.json`, cut down to the operations in `served`; an empty one keeps them all.

    Raises ValueError where `served` names an operation that the model lacks.
    """
    whole = cast("Document", msgspec.json.decode(text))
    if missing := set(served) - set(whole["operations"]):
        raise ValueError(f"{name} has no operation {', '.join(sorted(missing))}")
    metadata = whole["metadata"]
    return ServiceModel(
        name=name,
        namespace=metadata.get("xmlNamespace") or ("http://s3.amazonaws.com/doc/2006-03-01/" if name == "s3" else ""),
        api_version=metadata["apiVersion"],
        target_prefix=metadata.get("targetPrefix", ""),
        json_version=metadata.get("jsonVersion", "1.1"),
        protocols=tuple(metadata.get("protocols", [metadata["protocol"]])),
        routes=tuple(_route(whole, name) for name in whole["operations"]),
        document=_cut(whole, frozenset(served) or frozenset(whole["operations"])),
    )


def _route(whole: Document, name: str) -> Route:
    operation = whole["operations"][name]
    shape = whole["shapes"].get(operation.get("input", {}).get("shape"), {})
    required: dict[str, set[str]] = {"querystring": set(), "header": set()}
    for member in shape.get("required", ()):
        reference = shape["members"][member]
        if (location := reference.get("location")) in required:
            required[location].add(reference["locationName"])
    return Route(
        name=name,
        method=operation["http"]["method"],
        uri=operation["http"]["requestUri"],
        required_query=frozenset(required["querystring"]),
        required_headers=frozenset(h.lower() for h in required["header"]),
    )


def _cut(whole: Document, served: frozenset[str]) -> Document:
    """The document with just `served`, the shapes that they reach, and no documentation (two thirds of the text)."""
    operations = {
        name: {k: operation[k] for k in ("http", "input", "output") if k in operation}
        for name, operation in whole["operations"].items()
        if name in served
    }
    shapes: dict[str, Any] = {}
    todo = [o[side]["shape"] for o in operations.values() for side in ("input", "output") if side in o]
    while todo:
        name = todo.pop()
        if name not in shapes:
            shapes[name] = shape = _undocumented(whole["shapes"][name])
            if "members" in shape:
                shape["members"] = {member: _undocumented(r) for member, r in shape["members"].items()}
            references = [
                *shape.get("members", {}).values(),
                *(shape[k] for k in ("member", "key", "value") if k in shape),
            ]
            todo.extend(reference["shape"] for reference in references)
    return {"operations": operations, "shapes": shapes}


def _undocumented(traits: Document) -> Document:
    return {k: v for k, v in traits.items() if k != "documentation"}
