"""Filter patterns of CloudWatch Logs over unstructured messages.

Owns terms: `a b` all of them, `"a phrase"`, `-not`, `?either ?or`. Pure.
AWS: "Filter pattern syntax for metric filters, subscription filters, filter log events, and Live Tail".
"""

from __future__ import annotations

import re
from collections.abc import Callable

from penstock.errors import AwsError

_TERM = re.compile(r'([-?]?)("(?:[^"\\]|\\.)*"|[^\s"]+)(?=\s|$)')


def read_filter(pattern: str) -> Callable[[str], bool]:
    """Whether a message matches. Raises AwsError InvalidParameterException on a pattern that cannot be read, or is not served."""
    pattern = pattern.strip()
    if pattern.startswith(("{", "[", "%")):
        raise _invalid("patterns of JSON fields, of columns and of regular expressions are not served by Penstock")
    terms: dict[str, list[str]] = {"": [], "-": [], "?": []}
    at = 0
    while at < len(pattern):
        match = _TERM.match(pattern, at)
        if match is None:
            raise _invalid(f"cannot read it from character {at + 1} on")
        text = match[2]
        terms[match[1]].append(re.sub(r"\\(.)", r"\1", text[1:-1]) if text.startswith('"') else text)
        at = match.end()
        at += len(pattern[at:]) - len(pattern[at:].lstrip())
    every, none = tuple(terms[""]), tuple(terms["-"])
    # Beside terms that must or must not be there, optional ones decide nothing.
    some = () if every or none else tuple(terms["?"])

    def matches(message: str) -> bool:
        return (
            all(term in message for term in every)
            and not any(term in message for term in none)
            and (not some or any(term in message for term in some))
        )

    return matches


def _invalid(why: str) -> AwsError:
    return AwsError("InvalidParameterException", f"Invalid filter pattern: {why}")
