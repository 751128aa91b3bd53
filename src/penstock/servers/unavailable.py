"""The one error of finding a model. Owns its type only."""

from __future__ import annotations


class ModelUnavailable(Exception):
    """A model can't be had; the message is one line that says what to do, fit for a FailureReason."""
