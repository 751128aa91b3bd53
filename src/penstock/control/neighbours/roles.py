"""Where roles are kept: one JSON file, replaced whole.

Owns the file's form. It must never know a wire protocol. Blocking; made for the tens of roles that a person creates.
"""

from __future__ import annotations

import os
import secrets
import threading
from pathlib import Path

import msgspec

TRUST_SAGEMAKER = (
    '{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Principal":{"Service":"sagemaker.amazonaws.com"},'
    '"Action":"sts:AssumeRole"}]}'
)


class Role(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """`created` is seconds since 1970, `trust` the policy document of who may assume the role, `attached` are policies' ARNs."""

    account: str
    name: str
    created: float
    trust: str = TRUST_SAGEMAKER
    path: str = "/"
    description: str = ""
    session_s: int = 3600
    boundary: str = ""
    tags: dict[str, str] = {}
    attached: tuple[str, ...] = ()

    @property
    def arn(self) -> str:
        return f"arn:aws:iam::{self.account}:role{self.path}{self.name}"


_decode = msgspec.json.Decoder(list[Role]).decode


class RoleStore:
    """The roles in `path`, and `always`, which need no file."""

    def __init__(self, path: Path, always: tuple[Role, ...] = ()) -> None:
        self._path = path
        self._always = {(role.account, role.name): role for role in always}
        self._lock = threading.Lock()

    def get(self, account: str, name: str) -> Role | None:
        return self._read().get((account, name))

    def all(self, account: str) -> list[Role]:
        """By name."""
        return sorted((r for r in self._read().values() if r.account == account), key=lambda role: role.name)

    def add(self, role: Role) -> bool:
        """False where there is one of that name."""
        with self._lock:
            roles = self._read()
            if (role.account, role.name) in roles:
                return False
            self._write({**roles, (role.account, role.name): role})
            return True

    def replace(self, role: Role) -> None:
        with self._lock:
            self._write({**self._read(), (role.account, role.name): role})

    def remove(self, role: Role) -> None:
        with self._lock:
            self._write({key: kept for key, kept in self._read().items() if key != (role.account, role.name)})

    def _read(self) -> dict[tuple[str, str], Role]:
        try:
            kept = _decode(self._path.read_bytes())
        except FileNotFoundError:
            kept = []
        return self._always | {(role.account, role.name): role for role in kept}

    def _write(self, roles: dict[tuple[str, str], Role]) -> None:
        fresh = self._path.with_name(f"{self._path.name}.{secrets.token_hex(8)}")
        kept = [role for key, role in roles.items() if role != self._always.get(key)]
        try:
            with open(os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
                file.write(msgspec.json.format(msgspec.json.encode(kept)))
                file.flush()
                os.fsync(file.fileno())
            fresh.replace(self._path)
        finally:
            fresh.unlink(missing_ok=True)
