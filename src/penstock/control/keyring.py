"""The access keys in force: the root keys, and those that `penstock keys` created.

Owns following the created keys' file while the server runs, and the question whether a caller may do what it asks. It must never log a
secret. A file that is damaged while we run leaves the last keys in force: nobody is let in by it, and nobody is locked out.
"""

from __future__ import annotations

import asyncio
import logging
import os
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from penstock import accesskeys
from penstock.control.actions import Asked
from penstock.control.service import Caller
from penstock.control.start import CannotStart
from penstock.errors import AccessDenied
from penstock.policies import Question, authorize
from penstock.policies.context import of_request
from penstock.routes import AccessKey

log = logging.getLogger(__name__)
LOOK_S = 0.2
"""How often the file is looked at: one `stat`."""


class Keyring:
    """`root` are the keys of the credentials file; `role_session` is the ARN of our role's sessions, without their name."""

    def __init__(self, root: Sequence[AccessKey], path: Path, account: str, role_session: str) -> None:
        self._root, self._path, self._account, self._role_session = tuple(root), path, account, role_session
        self._seen = self._mark()
        try:
            self._created = self._read()
        except accesskeys.KeyFileError as error:
            raise CannotStart(str(error)) from None
        self._index()

    @property
    def keys(self) -> tuple[AccessKey, ...]:
        return (*self._root, *self._created)

    @property
    def first(self) -> AccessKey:
        """The root key: what our own replicas sign with."""
        return self._root[0]

    def secret(self, access_key: str) -> str | None:
        found = self._by_id.get(access_key)
        return found.secret if found else None

    def allow(self, caller: Caller, asked: Iterable[Asked]) -> None:
        """Raises AccessDenied where the caller's policies do not allow every action that is asked for."""
        key = self._by_id.get(caller.access_key)
        if key is None:
            raise AccessDenied(f"The access key {caller.access_key} has been taken away.")
        if not key.policies:
            return
        context = of_request(
            key.arn,
            caller.account,
            caller.region,
            now=time.time(),
            source_ip=caller.source_ip,
            secure=caller.secure,
        )
        for action, resource in asked:
            authorize(key.policies, Question(action, resource, context), key.arn)

    async def follow(self, changed: Callable[[tuple[AccessKey, ...]], None]) -> None:
        """Calls `changed` with all keys each time the file has changed, until cancelled."""
        while True:
            await asyncio.sleep(LOOK_S)
            mark = self._mark()
            if mark == self._seen:
                continue
            self._seen = mark
            try:
                self._created = self._read()
            except accesskeys.KeyFileError as error:
                log.error("the access keys stay as they were: %s", error)
                continue
            self._index()
            changed(self.keys)

    def _index(self) -> None:
        self._by_id = {key.id: key for key in self.keys}

    def _mark(self) -> tuple[int, int, int] | None:
        try:
            seen = os.stat(self._path)
        except OSError:
            return None
        return seen.st_ino, seen.st_mtime_ns, seen.st_size

    def _read(self) -> tuple[AccessKey, ...]:
        return tuple(
            AccessKey(key.id, key.secret, self._account, f"{self._role_session}/{key.name}", policies=key.policies)
            for key in accesskeys.read(self._path)
        )
