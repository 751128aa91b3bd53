"""Which formatter writes an answer: by the image's version, the model's settings and the request's `stream`.

Owns the choice alone; the bytes are the formatters' own.
"""

from __future__ import annotations

from penstock.servers.lmi.chatformatters import (
    Completion,
    EventsChat,
    EventsText,
    JsonChat,
    JsonLinesChat,
    JsonLinesText,
    JsonText,
)
from penstock.servers.lmi.formatters import (
    Events28,
    Json23,
    Json26,
    Json28,
    JsonLines23,
    JsonLines26,
    JsonLines28,
    Make,
    Plain,
)
from penstock.servers.lmi.laterformatters import (
    Events33,
    Json3p,
    Json33,
    JsonLines3p,
    JsonLines33,
    TgiEvents,
    TgiJson,
    TgiLines,
)

_0_23: dict[str, Make] = {"": Json23, "json": Json23, "jsonlines": JsonLines23, "none": Plain}
_0_26: dict[str, Make] = {"": Json26, "json": Json26, "jsonlines": JsonLines26, "none": Plain}
_LATER: dict[str, Make] = {"none": Plain, "3p": Json3p, "3p_stream": JsonLines3p}
_0_28: dict[str, Make] = {"json": Json28, "jsonlines": JsonLines28, "sse": Events28, **_LATER}
_0_33: dict[str, Make] = {"json": Json33, "jsonlines": JsonLines33, "sse": Events33, **_LATER}
_TGI: dict[str, Make] = {"json": TgiJson, "jsonlines": TgiLines, "sse": TgiEvents, **_LATER}


def choose(name: str, version: tuple[int, int], stream: bool, *, tgi: bool = False) -> Make:
    """The formatter of a model's `output_formatter` (empty is the default) and, from 0.28, the request's `stream`."""
    if version < (0, 26):
        return _0_23[name]
    if version < (0, 28):
        return _0_26[name]
    if tgi:
        return _TGI[name or ("sse" if stream else "json")]
    return (_0_28 if version < (0, 33) else _0_33)[name or ("jsonlines" if stream else "json")]


def chat(completion: Completion, *, stream: bool, events: bool) -> Make:
    """The formatter of a chat's answer; `output_formatter` only says whether a stream is one of events."""
    if not stream:
        return lambda asked: JsonChat(asked, completion)
    kind = EventsChat if events else JsonLinesChat
    return lambda asked: kind(asked, completion)


def text_completion(completion: Completion, *, stream: bool, events: bool) -> Make:
    """The formatter of an answer to a `prompt`."""
    if not stream:
        return lambda asked: JsonText(asked, completion)
    kind = EventsText if events else JsonLinesText
    return lambda asked: kind(asked, completion)
