"""Names: which buckets there may be, and which file holds a key.

Owns the encoding of any key (UTF-8, 1 to 1,024 bytes) as a relative path, and back. Every byte but ASCII letters, digits, `-` and `_` is
written `%XX`, so a path has no part that the system understands; a long one is cut into directories that end in `+`, the last part ends
in `.object`. So no key is another's directory, and none leaves its bucket. It must never do I/O.
"""

from __future__ import annotations

import re
from pathlib import PurePosixPath
from urllib.parse import quote_from_bytes, unquote

from penstock.control.neighbours.s3 import errors

KEY_BYTES = 1024
SUFFIX = ".object"
_PART = 200
_BUCKET = re.compile(r"[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]")
_ADDRESS = re.compile(r"\d+\.\d+\.\d+\.\d+")
_DOTTED = str.maketrans({".": "%2E", "~": "%7E"})


def check_bucket(name: str) -> None:
    """Raises AwsError InvalidBucketName (AWS: "General purpose bucket naming rules")."""
    wrong = (
        ".." in name or _ADDRESS.fullmatch(name) or name.startswith("xn--") or name.endswith(("-s3alias", "--ol-s3"))
    )
    if not _BUCKET.fullmatch(name) or wrong:
        raise errors.invalid_bucket_name(name)


def key_path(key: str) -> PurePosixPath:
    """Where a key's file lies, relative to its bucket's objects. Raises AwsError KeyTooLongError."""
    encoded = key.encode("utf-8")
    if not 0 < len(encoded) <= KEY_BYTES:
        raise errors.key_too_long(len(encoded), KEY_BYTES)
    text = quote_from_bytes(encoded, safe="").translate(_DOTTED)
    parts = [text[i : i + _PART] for i in range(0, len(text), _PART)]
    return PurePosixPath(*(part + "+" for part in parts[:-1]), parts[-1] + SUFFIX)


def path_key(path: str) -> str | None:
    """The key of a file's relative path; None for a file that `key_path` did not name."""
    if not path.endswith(SUFFIX):
        return None
    text = path[: -len(SUFFIX)].replace("+/", "")
    try:
        key = unquote(text, errors="strict")
        return key if key and str(key_path(key)) == path else None
    except (UnicodeDecodeError, UnicodeEncodeError):
        return None
