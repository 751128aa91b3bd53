"""List operations: filters, order, pages. Pure.

Owns what the List operations have in common. A page's token names the last item that was shown, so that nothing is skipped or shown twice
when others come and go between two pages.
"""

from __future__ import annotations

import base64
import binascii
import datetime as dt
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import msgspec

from penstock.errors import ValidationException

T = TypeVar("T")
DEFAULT_RESULTS = 10
SortKey = tuple[float | str, str]


@dataclass(frozen=True, slots=True)
class Listed(Generic[T]):
    """One thing that can be listed. Times are epoch seconds."""

    item: T
    name: str
    created_at: float
    modified_at: float = 0.0
    status: str = ""


def page(params: Mapping[str, Any], found: Iterable[Listed[T]]) -> tuple[list[T], str | None]:
    """The items of the page that `params` asks for, and the token of the next. Raises ValidationException on a token that is not ours."""
    by, descending = params.get("SortBy", "CreationTime"), _descending(params)
    keyed = sorted(
        ((_key(by, x), x) for x in found if _wanted(params, x)), key=lambda pair: pair[0], reverse=descending
    )
    if (token := params.get("NextToken")) is not None:
        last = _decode(token, str if by != "CreationTime" else float)
        keyed = [pair for pair in keyed if (pair[0] < last if descending else pair[0] > last)]
    limit = params.get("MaxResults", DEFAULT_RESULTS)
    shown = keyed[:limit]
    following = _encode(shown[-1][0]) if len(keyed) > limit else None
    return [x.item for _, x in shown], following


def slice_of(
    params: Mapping[str, Any], items: list[T], key: Callable[[T], str], *, most: int
) -> tuple[list[T], str | None]:
    """Like `page`, for items in an order of their own."""
    start = 0
    if (token := params.get("NextToken")) is not None:
        _, last = _decode(token, str)
        names = [key(item) for item in items]
        start = names.index(last) + 1 if last in names else len(items)
    limit = params.get("MaxResults", most)
    shown = items[start : start + limit]
    following = _encode(("", key(shown[-1]))) if start + limit < len(items) else None
    return shown, following


def _descending(params: Mapping[str, Any]) -> bool:
    # AWS's defaults: the newest first; by name or status, A first.
    default = "Descending" if params.get("SortBy", "CreationTime") == "CreationTime" else "Ascending"
    order: str = params.get("SortOrder", default)
    return order == "Descending"


def _key(by: str, x: Listed[Any]) -> SortKey:
    match by:
        case "Name":
            return x.name, ""
        case "Status":
            return x.status, x.name
    return x.created_at, x.name


def _wanted(params: Mapping[str, Any], x: Listed[Any]) -> bool:
    def moment(name: str) -> float | None:
        value: dt.datetime | None = params.get(name)
        return None if value is None else value.timestamp()

    if (part := params.get("NameContains")) is not None and part.lower() not in x.name.lower():
        return False
    if (status := params.get("StatusEquals")) is not None and status != x.status:
        return False
    for prefix, at in (("CreationTime", x.created_at), ("LastModifiedTime", x.modified_at)):
        before, after = moment(f"{prefix}Before"), moment(f"{prefix}After")
        if (before is not None and at >= before) or (after is not None and at <= after):
            return False
    return True


def _encode(key: SortKey) -> str:
    return base64.urlsafe_b64encode(msgspec.json.encode(key)).decode()


def _decode(token: str, kind: type[float] | type[str]) -> SortKey:
    try:
        return msgspec.json.decode(base64.b64decode(token, altchars=b"-_", validate=True), type=tuple[kind, str])  # type: ignore[valid-type]
    except (binascii.Error, ValueError):
        raise ValidationException("Invalid pagination token.") from None
