"""What AWS offers and Penstock does not: refused at the door, so that nobody thinks it was done.

Members that describe AWS's own hardware or account (instance types, VPCs, KMS keys, disk sizes) are accepted and shown again; they have
nothing to act on here. Members that would change what a client or a container sees are refused.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from penstock.errors import ValidationException


def refuse(params: Mapping[str, Any], members: Mapping[str, str]) -> None:
    """Raises ValidationException for the first of `members` (name to what it is called) that `params` has."""
    for name, what in members.items():
        if params.get(name):
            raise ValidationException(f"{name}: Penstock does not support {what}.")
