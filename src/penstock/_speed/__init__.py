"""The compiled twin of the gateway's dearest functions, where there is one.

Owns the choice: `COMPILED` says whether `penstock._speed.native` may be used, and `WHY_NOT` why not. Each of its functions gives exactly
what its twin in Python gives, or says that the twin must be asked; so whoever uses one keeps both. It must never know what a request means.
"""

from __future__ import annotations

import importlib.util
import os


def asked_for() -> bool:
    """Whether Python's side is wanted, whatever there is."""
    return os.environ.get("PENSTOCK_PURE", "") not in ("", "0")


def _why_not() -> str:
    if asked_for():
        return "PENSTOCK_PURE is set"
    if importlib.util.find_spec("penstock._speed.native") is None:
        return "it was not built: there was no C compiler when Penstock was installed"
    return ""


WHY_NOT = _why_not()
COMPILED = not WHY_NOT
