"""The regular expressions of AWS's models, which are Java's, in Python.

Owns the translation. Java's `\\w` and `\\d` are ASCII; `\\p{L}` and its like have no counterpart in `re`, so a character beyond ASCII is
replaced by a stand-in for its category before it is matched, and `\\p{L}` becomes the ASCII letters and the stand-ins of that category.
"""

from __future__ import annotations

import functools
import re
import unicodedata

_CATEGORIES = (
    "Lu Ll Lt Lm Lo Mn Mc Me Nd Nl No Pc Pd Ps Pe Pi Pf Po Sm Sc Sk So Zs Zl Zp Cc Cf Cs Co Cn".split()  # noqa: SIM905
)
_STAND_IN = {category: chr(0xE000 + i) for i, category in enumerate(_CATEGORIES)}
_POSIX = {"Alnum": "a-zA-Z0-9", "Alpha": "a-zA-Z", "Digit": "0-9", "Print": " -~", "Graph": "!-~", "Space": r"\s"}
_PROPERTY = re.compile(r"\\p\{(\w+)\}")
_SURROGATES = r"\uD800\uDC00-\uDBFF\uDFFF"


def _class_of(name: str) -> str:
    if name in _POSIX:
        return _POSIX[name]
    ascii_members = "".join(re.escape(chr(c)) for c in range(128) if unicodedata.category(chr(c)).startswith(name))
    return ascii_members + "".join(_STAND_IN[c] for c in _CATEGORIES if c.startswith(name))


@functools.lru_cache(maxsize=512)
def _compile(pattern: str) -> tuple[re.Pattern[str] | None, bool]:
    """The compiled expression (None where Python cannot read it: then nothing is demanded), and whether it needs stand-ins."""
    text = pattern.replace(_SURROGATES, "\U00010000-\U0010ffff").replace(r"[\w-_]", r"[\w\-_]")
    bare = bool(_PROPERTY.search(text))
    # A property outside a character class becomes one of its own.
    text = re.sub(r"(?<!\[)(?<![}\]\w.:/=+\-@])(\\p\{\w+\})(?=[+*?{]|$)", r"[\1]", text)
    text = _PROPERTY.sub(lambda match: _class_of(match[1]), text)
    try:
        return re.compile(text, re.ASCII), bare
    except re.error:
        return None, False


def matches(pattern: str, value: str) -> bool:
    """Whether the whole of `value` matches a model's `pattern`."""
    compiled, stand_ins = _compile(pattern)
    if compiled is None:
        return True
    if stand_ins and not value.isascii():
        value = "".join(c if c.isascii() else _STAND_IN[unicodedata.category(c)] for c in value)
    return compiled.fullmatch(value) is not None
