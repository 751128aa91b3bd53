"""Access keys beside the root key: which were created, and what their policies are.

Owns `access-keys.json` in the home, 0600: written by `penstock keys`, followed by the control process. It must never judge a request
(`policies` does), nor log a secret.
"""

from __future__ import annotations

import base64
import fcntl
import os
import re
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec

from penstock.policies import read_policy
from penstock.policies.conditions import MalformedPolicy

_NAME = re.compile(r"[\w+=,.@-]{2,64}", re.ASCII)


class KeyFileError(ValueError):
    """A key that can't be kept, or a file that can't be read; the message is one line for people."""


class CreatedKey(msgspec.Struct, frozen=True, kw_only=True):
    """`policies` are IAM policy documents (JSON); without any the key may do everything. `created` is epoch seconds."""

    name: str
    id: str
    secret: str
    created: float
    policies: tuple[str, ...] = ()

    def __repr__(self) -> str:
        return f"CreatedKey({self.name!r}, {self.id!r})"


_decode = msgspec.json.Decoder(tuple[CreatedKey, ...]).decode


def read(path: Path) -> tuple[CreatedKey, ...]:
    """The keys, oldest first. `path` is `Paths.access_keys`. Raises KeyFileError when the file is damaged."""
    try:
        return _decode(path.read_bytes())
    except FileNotFoundError:
        return ()
    except (OSError, msgspec.MsgspecError) as error:
        raise KeyFileError(f"{path} can't be read ({error}); mend or delete it") from None


def create(path: Path, name: str, policies: tuple[str, ...], now: float) -> CreatedKey:
    """A new key, kept. Raises KeyFileError on a name that is taken or of the wrong form, and on a policy that can't be read."""
    if not _NAME.fullmatch(name):
        raise KeyFileError(f"{name!r} is no name of a key: 2 to 64 letters, digits and _+=,.@-")
    for policy in policies:
        try:
            read_policy(policy)
        except MalformedPolicy as error:
            raise KeyFileError(f"the policy can't be used: {error}") from None
    key = CreatedKey(
        name=name,
        id="AKIA" + base64.b32encode(secrets.token_bytes(10)).decode(),
        secret=secrets.token_urlsafe(30),
        created=round(now, 3),
        policies=policies,
    )
    with _locked(path):
        keys = read(path)
        if any(other.name == name for other in keys):
            raise KeyFileError(f"there is a key {name} already; see: penstock keys ls")
        _write(path, (*keys, key))
    return key


def remove(path: Path, name_or_id: str) -> CreatedKey | None:
    """Forgets a key and returns it; None where there is none of that name or id. Raises KeyFileError when the file is damaged."""
    with _locked(path):
        keys = read(path)
        found = next((key for key in keys if name_or_id in (key.name, key.id)), None)
        if found is not None:
            _write(path, tuple(key for key in keys if key is not found))
        return found


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    """One writer at a time, whichever process it is in."""
    descriptor = os.open(path.with_suffix(".lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def _write(path: Path, keys: tuple[CreatedKey, ...]) -> None:
    """Whole or not at all."""
    fresh = path.with_name(f"{path.name}.{secrets.token_hex(8)}")
    try:
        with open(os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
            file.write(msgspec.json.format(msgspec.json.encode(keys)))
            file.flush()
            os.fsync(file.fileno())
        fresh.replace(path)
    finally:
        fresh.unlink(missing_ok=True)
