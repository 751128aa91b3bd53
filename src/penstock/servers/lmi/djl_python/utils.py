"""Small questions that scripts ask."""

from __future__ import annotations

import glob
import os
from collections.abc import Sequence
from typing import Any


class IdCounter:
    """Numbers that begin again after a million."""

    MAX_ID = 999999

    def __init__(self) -> None:
        self.id = 0

    def get_id(self) -> int:
        return self.id

    def next_id(self) -> int:
        current, self.id = self.id, (self.id + 1) % self.MAX_ID
        return current

    def reset(self) -> None:
        self.id = 0


def is_best_of(parameters: dict[str, Any]) -> bool:
    return (parameters.get("best_of") or 1) > 1


def is_beam_search(parameters: dict[str, Any]) -> bool:
    return (parameters.get("num_beams") or 1) > 1


def is_multiple_sequences(parameters: dict[str, Any]) -> bool:
    return (parameters.get("n") or 1) > 1


def is_streaming(parameters: dict[str, Any]) -> bool:
    return bool(parameters.get("stream"))


def wait_till_generation_finished(parameters: dict[str, Any]) -> bool:
    return is_best_of(parameters) or is_multiple_sequences(parameters) or is_beam_search(parameters)


def find_model_file(model_dir: str, extensions: Sequence[str]) -> str | None:
    """The one file with one of these endings (without the dot). Raises ValueError on several."""
    found = sorted({file for end in extensions for file in glob.glob(os.path.join(glob.escape(model_dir), f"*.{end}"))})
    if len(found) > 1:
        raise ValueError(f"Multiple model files found in {model_dir}: {found}. Only one model file is supported.")
    return found[0] if found else None
