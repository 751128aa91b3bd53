"""XML in, XML out, as much of it as AWS's protocols use.

Owns a reader that refuses document types (and so entities) and bounds depth, and the writing of a shape's value as elements.
It must never do I/O or know a protocol's envelope.
"""

from __future__ import annotations

import base64
import datetime as dt
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any
from xml.parsers import expat
from xml.sax.saxutils import escape, quoteattr

from penstock.wire.shapes import Shape
from penstock.wire.timestamps import to_epoch, to_http, to_iso

_DEPTH = 64


@dataclass(slots=True)
class Element:
    """An element without its namespaces: `tag` is the local name."""

    tag: str
    attributes: Mapping[str, str]
    children: list[Element] = field(default_factory=list)
    text: str = ""

    def all(self, tag: str) -> list[Element]:
        return [child for child in self.children if child.tag == tag]

    def first(self, tag: str) -> Element | None:
        return next((child for child in self.children if child.tag == tag), None)


def read(text: bytes) -> Element:
    """The root element. Raises ValueError on what is no well-formed XML, has a document type, or is nested too deep."""
    parser = expat.ParserCreate(namespace_separator="\x1f")
    parser.buffer_text = True
    root = Element("", {})
    stack = [root]

    def start(name: str, attributes: dict[str, str]) -> None:
        if len(stack) > _DEPTH:
            raise ValueError("the XML is nested too deep")
        local = {k.rpartition("\x1f")[2]: v for k, v in attributes.items()}
        element = Element(name.rpartition("\x1f")[2], local)
        stack[-1].children.append(element)
        stack.append(element)

    def end(_: str) -> None:
        stack.pop()

    def characters(data: str) -> None:
        stack[-1].text += data

    def doctype(*_: object) -> None:
        raise ValueError("a document type is not allowed")

    parser.StartElementHandler = start
    parser.EndElementHandler = end
    parser.CharacterDataHandler = characters
    parser.StartDoctypeDeclHandler = doctype
    try:
        parser.Parse(text, True)
    except expat.ExpatError as error:
        raise ValueError(str(error)) from None
    return root.children[0]


def element(tag: str, body: str, attributes: Mapping[str, str] | None = None) -> str:
    """`<tag a="b">body</tag>`; `body` is already XML."""
    head = "".join(f" {k}={quoteattr(v)}" for k, v in (attributes or {}).items())
    return f"<{tag}{head}>{body}</{tag}>"


def text(value: object) -> str:
    """Character data. What XML 1.0 cannot hold at all becomes a question mark; a carriage return is written so that it survives."""
    kept = "".join(
        c if c in "\t\n\r" or (c >= " " and c not in "\ufffe\uffff" and not "\ud800" <= c <= "\udfff") else "?"
        for c in str(value)
    )
    return escape(kept, {"\r": "&#13;"})


def write_members(shape: Shape, value: Mapping[str, Any]) -> str:
    """A structure's members as elements, those with a place elsewhere (headers) left out, None and absent ones too."""
    return "".join(
        write(member, member.wire_name or name, value[name])
        for name, member in shape.members.items()
        if value.get(name) is not None and not member.location and not member.xml_attribute
    )


def write(shape: Shape, tag: str, value: Any) -> str:
    """A value as the element `tag`; a flattened list or map as several of them."""
    match shape.type:
        case "structure":
            attributes = {
                m.wire_name or n: str(value[n]) for n, m in shape.members.items() if m.xml_attribute and n in value
            }
            if shape.xml_prefix:
                attributes = {f"xmlns:{shape.xml_prefix}": shape.xml_namespace, **attributes}
            return element(tag, write_members(shape, value), attributes)
        case "list":
            inner = tag if shape.flattened else (shape.element.wire_name or "member")
            if shape.flattened and shape.element.wire_name:
                inner = shape.element.wire_name
            items = "".join(write(shape.element, inner, v) for v in value)
            return items if shape.flattened else element(tag, items)
        case "map":
            key, worth = shape.key.wire_name or "key", shape.value.wire_name or "value"
            entry = tag if shape.flattened else "entry"
            items = "".join(
                element(entry, element(key, text(k)) + write(shape.value, worth, v)) for k, v in value.items()
            )
            return items if shape.flattened else element(tag, items)
        case _:
            return element(tag, text(scalar(shape, value, "iso8601")))


def scalar(shape: Shape, value: Any, timestamp_format: str) -> str:
    """A scalar's text, in XML and in headers; `timestamp_format` where the shape has none."""
    match shape.type:
        case "boolean":
            return "true" if value else "false"
        case "timestamp" if isinstance(value, dt.datetime):
            kind = shape.timestamp_format or timestamp_format
            if kind == "unixTimestamp":
                return str(to_epoch(value))
            return to_http(value) if kind == "rfc822" else to_iso(value)
        case "blob":
            return base64.b64encode(value).decode("ascii")
        case _:
            return str(value)
