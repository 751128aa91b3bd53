"""What a model sees of an HTTP request: properties and content.

Owns the mapping: headers and custom attributes are properties, the query and a form's fields are content, and so is the body, as
`data`. It must never judge what the body says.
"""

from __future__ import annotations

import email.parser
import email.policy
import json
from collections.abc import Iterable
from dataclasses import dataclass, field
from email.message import EmailMessage
from typing import Any
from urllib.parse import parse_qsl

from penstock.servers.apart import many
from penstock.servers.lmi.errors import BadRequest, TooLarge

CUSTOM_ATTRIBUTES = "x-amzn-sagemaker-custom-attributes"
MOST_FIELDS = 1024
"""Of a form."""
LONG_FORM = 256 * 1024
"""Bytes."""
_FORMS = ("multipart/", "application/x-www-form-urlencoded")


@dataclass(frozen=True, slots=True)
class Document:
    """A body as JSON, or what is wrong with it."""

    value: Any = None
    error: Exception | None = None


@dataclass(frozen=True, slots=True)
class Invocation:
    """One request. Property names keep the client's case; several contents may share a key."""

    properties: tuple[tuple[str, str], ...]
    content: tuple[tuple[str, bytes], ...]
    openai: bool = False
    """Whether it came by OpenAI's own route, whose clients know a stream only as server-sent events."""
    _read: list[Document] = field(default_factory=list, init=False, repr=False, compare=False)
    """The body as JSON, once it was read."""

    def attribute(self, name: str) -> str | None:
        """The last value of a property, whatever the case of its name."""
        found = [value for key, value in self.properties if key.lower() == name.lower()]
        return found[-1] if found else None

    def text(self, key: str) -> str | None:
        """A content's text; None where there is none of that key."""
        for name, value in self.content:
            if name == key:
                return value.decode("utf-8", "replace")
        return None

    @property
    def data(self) -> bytes:
        """The body, as handlers find it: the entry `data`, else the first."""
        for key, value in self.content:
            if key == "data":
                return value
        return self.content[0][1] if self.content else b""

    def document(self) -> Any:
        """The body as JSON, read once. Raises ValueError and RecursionError; TooLarge where it holds too many values."""
        if not self._read:
            self._read.append(document(self.data))
        (read,) = self._read
        if read.error is not None:
            raise read.error.with_traceback(None)
        return read.value

    def told(self, read: Document) -> None:
        """What somebody else has read."""
        self._read[:] = [read]


def document(data: bytes) -> Document:
    """A body in UTF-8, which is all that the original takes."""
    try:
        return Document(json.loads(data.decode("utf-8")))
    except (ValueError, RecursionError) as error:
        return Document(error=error)


APART = f"{__name__}:document_apart"
"""What reads a heavy body, for `Apart`."""


def document_apart(data: bytes) -> Document:
    """The same in a process of its own, from which only so much can be handed over."""
    read = document(data)
    if read.error is not None:
        # Its text alone: a decoder's error holds the whole body, and not each kind can be sent.
        kind = RecursionError if isinstance(read.error, RecursionError) else ValueError
        return Document(error=kind(str(read.error)))
    return Document(error=TooLarge("The body has too many values.")) if many(read.value) else read


def invocation(headers: Iterable[tuple[str, str]], query: str, body: bytes, *, openai: bool = False) -> Invocation:
    """The request as the model sees it. Raises BadRequest on a broken form."""
    properties: list[tuple[str, str]] = []
    for name, value in headers:
        if name.lower() == CUSTOM_ATTRIBUTES:
            pairs = (item.partition("=") for item in value.split(";"))
            properties += [(key.strip(), item.strip()) for key, separator, item in pairs if separator]
        else:
            properties.append((name, value))
    content = [(key, value.encode()) for key, value in parse_qsl(query, keep_blank_values=True)]
    media_type = {key.lower(): value for key, value in properties}.get("content-type", "")
    media = media_type.partition(";")[0].strip().lower()
    # `curl -d` calls everything a form; what begins like JSON is JSON.
    if media == "application/x-www-form-urlencoded" and not body.lstrip().startswith((b"{", b"[")):
        content += _fields(body)
    elif media.startswith("multipart/"):
        content += _multipart(media_type, body)
    else:
        content.append(("data", body))
    return Invocation(tuple(properties), tuple(content), openai)


def takes_long(headers: Iterable[tuple[str, str]], body: bytes) -> bool:
    """Whether other requests must not wait until a body is taken apart."""
    return len(body) > LONG_FORM and any(
        name.lower() == "content-type" and value.lower().lstrip().startswith(_FORMS) for name, value in headers
    )


def _fields(body: bytes) -> list[tuple[str, bytes]]:
    try:
        pairs = parse_qsl(body.decode("utf-8", "replace"), keep_blank_values=True, max_num_fields=MOST_FIELDS)
    except ValueError as error:
        raise BadRequest(f"The form has more than {MOST_FIELDS} fields.") from error
    return [(key, value.encode()) for key, value in pairs]


def _multipart(media_type: str, body: bytes) -> list[tuple[str, bytes]]:
    """Cut at the boundary, byte for byte (RFC 7578); only the parts' heads are read as text."""
    boundary = _head(f"Content-Type: {media_type}".encode("latin-1", "replace")).get_boundary("")
    _before, *parts = (b"\r\n" + body).split(b"\r\n--" + boundary.encode("latin-1", "replace"), MOST_FIELDS + 1)
    if not boundary or not parts or not parts[-1].startswith(b"--"):
        raise BadRequest("The multipart body is broken, or has too many parts.")
    fields = []
    for part in parts[:-1]:
        blanks, _, rest = part.partition(b"\r\n")
        head, found, payload = (b"\r\n" + rest).partition(b"\r\n\r\n")
        if blanks.strip(b" \t") or not found:
            raise BadRequest("The multipart body is broken.")
        name = _head(head[2:]).get_param("name", header="content-disposition")
        if not isinstance(name, str):
            raise BadRequest("The multipart body has a part without a name.")
        fields.append((name, payload))
    return fields


def _head(lines: bytes) -> EmailMessage:
    return email.parser.BytesHeaderParser(policy=email.policy.HTTP).parsebytes(lines + b"\r\n\r\n")
