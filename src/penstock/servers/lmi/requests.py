"""What a model sees of an HTTP request: properties and content.

Owns the mapping: headers and custom attributes are properties, the query and a form's fields are content, and so is the body, as
`data`. It must never judge what the body says.
"""

from __future__ import annotations

import email.parser
import email.policy
from collections.abc import Iterable
from dataclasses import dataclass
from urllib.parse import parse_qsl

from penstock.servers.lmi.errors import BadRequest

CUSTOM_ATTRIBUTES = "x-amzn-sagemaker-custom-attributes"


@dataclass(frozen=True, slots=True)
class Invocation:
    """One request. Property names keep the client's case; several contents may share a key."""

    properties: tuple[tuple[str, str], ...]
    content: tuple[tuple[str, bytes], ...]
    openai: bool = False
    """Whether it came by OpenAI's own route, whose clients know a stream only as server-sent events."""

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
        content += [
            (key, value.encode()) for key, value in parse_qsl(body.decode("utf-8", "replace"), keep_blank_values=True)
        ]
    elif media.startswith("multipart/"):
        content += _multipart(media_type, body)
    else:
        content.append(("data", body))
    return Invocation(tuple(properties), tuple(content), openai)


def _multipart(media_type: str, body: bytes) -> list[tuple[str, bytes]]:
    head = f"Content-Type: {media_type}\r\n\r\n".encode("latin-1", "replace")
    message = email.parser.BytesParser(policy=email.policy.HTTP).parsebytes(head + body)
    if not message.is_multipart() or message.defects:
        raise BadRequest("The multipart body is broken.")
    fields = []
    for part in message.iter_parts():
        name = part.get_param("name", header="content-disposition")
        payload = part.get_payload(decode=True)
        if not isinstance(name, str) or not isinstance(payload, bytes):
            raise BadRequest("The multipart body has a part without a name.")
        fields.append((name, payload))
    return fields
