"""Why the control process can't start or go on."""

from __future__ import annotations


class CannotStart(Exception):
    """What the person who started it must put right; the text is one plain line without secrets."""
