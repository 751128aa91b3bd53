"""The access keys that may sign: read from the credentials file of the home.

Owns the file's form, which is the one of AWS's CLI. It must never log a secret.
"""

from __future__ import annotations

import configparser
from pathlib import Path

from penstock.control.start import CannotStart
from penstock.routes import AccessKey


class BadCredentials(CannotStart):
    """The credentials file can't be used."""


def read_keys(path: Path, account: str, arn: str) -> tuple[AccessKey, ...]:
    """The keys of every profile in the file, all of `account` and acting as `arn`. Raises BadCredentials."""
    parser = configparser.RawConfigParser(default_section="")
    try:
        parser.read_string(path.read_text())
    except OSError as error:
        raise BadCredentials(f"{path}: {error.strerror}") from None
    except (configparser.Error, UnicodeDecodeError):
        raise BadCredentials(f"{path}: not a credentials file as AWS's CLI reads it") from None
    keys = []
    for name in parser.sections():
        profile = parser[name]
        key, secret = profile.get("aws_access_key_id", ""), profile.get("aws_secret_access_key", "")
        if not key or not secret:
            raise BadCredentials(f"{path}: [{name}] lacks aws_access_key_id or aws_secret_access_key")
        keys.append(AccessKey(key, secret, account, arn, profile.get("aws_session_token", "")))
    if not keys:
        raise BadCredentials(f"{path}: no profile")
    return tuple(keys)
