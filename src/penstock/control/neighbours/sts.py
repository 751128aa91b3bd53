"""AWS STS: who the caller is.

Owns GetCallerIdentity, whose answer the SageMaker SDK takes its role, its account and its default bucket's name from.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Mapping
from typing import Any

from penstock.control.service import Caller, Operation


async def get_caller_identity(caller: Caller, params: dict[str, Any]) -> dict[str, Any]:
    return {"UserId": user_id(caller.arn), "Account": caller.account, "Arn": caller.arn}


def user_id(arn: str) -> str:
    """AWS's look of a principal's id: `AROA…:SESSION` of an assumed role, `AIDA…` of a user, the account of its root."""
    kind, _, name = arn.rpartition(":")[2].partition("/")
    if kind == "assumed-role":
        role, _, session = name.partition("/")
        return f"{unique_id('AROA', arn.split(':')[4], role)}:{session}"
    return unique_id("AIDA", arn.split(":")[4], name) if kind == "user" else arn.split(":")[4]


def unique_id(prefix: str, account: str, name: str) -> str:
    """21 characters that are always the same for the same name: `prefix` (AROA, AIDA) and base 32."""
    digest = hashlib.sha256(f"{prefix}/{account}/{name}".encode()).digest()
    return prefix + base64.b32encode(digest).decode("ascii")[:17]


OPERATIONS: Mapping[str, Operation] = {"GetCallerIdentity": get_caller_identity}
