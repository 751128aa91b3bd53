"""AWS's three ways to write a moment: epoch seconds, ISO 8601, and the date of HTTP.

Owns their text. It must never read the clock. Moments are aware datetimes in UTC, to the millisecond as AWS writes them.
"""

from __future__ import annotations

import calendar
import datetime as dt
from email.utils import format_datetime, parsedate_to_datetime


def to_epoch(moment: dt.datetime) -> float:
    """Seconds with milliseconds."""
    return round(moment.timestamp(), 3)


def to_iso(moment: dt.datetime) -> str:
    """`2026-01-31T12:00:00.000Z`."""
    return moment.astimezone(dt.UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def to_http(moment: dt.datetime) -> str:
    """`Sat, 31 Jan 2026 12:00:00 GMT`."""
    return format_datetime(moment.astimezone(dt.UTC), usegmt=True)


def from_number(value: float) -> dt.datetime:
    """Raises ValueError beyond the years 1 to 9999."""
    try:
        return dt.datetime.fromtimestamp(value, dt.UTC)
    except (OverflowError, OSError) as error:
        raise ValueError(f"{value} is not a moment") from error


def from_text(text: str) -> dt.datetime:
    """Any of the three ways. Raises ValueError."""
    text = text.strip()
    try:
        return from_number(float(text))
    except ValueError:
        pass
    try:
        moment = dt.datetime.fromisoformat(text)
    except ValueError:
        moment = parsedate_to_datetime(text)
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=dt.UTC)
    try:
        moment = moment.astimezone(dt.UTC)
    except OverflowError as error:
        raise ValueError(f"{text} is not a moment") from error
    calendar.timegm(moment.utctimetuple())
    return moment
