"""How weights are kept: the words that users have for it, and what they mean on the OpenVINO engine.

Owns the table of words, and reading from a model's files in which form its weights are. It must never change a weight: the converter does.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Literal

WeightFormat = Literal["int8_asym", "int8_sym", "int4_asym", "int4_sym"]
"""Bits, and whether zero is in the middle of their range. In 8 bits each row has a scale, in 4 bits each group of a row."""

WORDS: dict[str, WeightFormat] = {
    "int8": "int8_sym",
    "int8_asym": "int8_asym",
    "int8_sym": "int8_sym",
    "bitsandbytes": "int8_sym",
    "bitsandbytes8": "int8_sym",
    "eetq": "int8_sym",
    "int4": "int4_asym",
    "int4_asym": "int4_asym",
    "int4_sym": "int4_sym",
    "bitsandbytes4": "int4_asym",
    "bitsandbytes-nf4": "int4_asym",
    "bitsandbytes-fp4": "int4_asym",
}
_CONSTANT = re.compile(r'<data element_type="([ui][48])"[^>]* size="(\d+)"')
_WEIGHTS_BYTES = 1024
"""A constant of 8 bits and fewer bytes is no weight matrix. Nothing but weights and their zero points has 4 bits."""


class UnknownFormat(Exception):
    """Weights can't be kept so; the message is one line."""


def weight_format(word: str) -> WeightFormat | None:
    """What TGI's or LMI's `quantize` means here; None when it is empty. Raises UnknownFormat."""
    if not word or word.lower() == "none":
        return None
    if (found := WORDS.get(word.lower())) is None:
        raise UnknownFormat(
            f"quantize={word} is not for the OpenVINO engine: use int8 or int4, which are made from a model's original weights"
        )
    return found


def quantized_checkpoint(model: Path) -> str:
    """How the weights of a Hugging Face directory were quantised before they were saved (`gptq`, `awq`, `fp8` …), or nothing."""
    try:
        config = json.loads((model / "config.json").read_text(encoding="utf-8"))
        found = config.get("quantization_config") or {}
        return str(found.get("quant_method", "")) or ("bitsandbytes" if found else "")
    except (OSError, ValueError, AttributeError):
        return ""  # what is wrong with it is said by whoever loads it


def bits_of(model: Path) -> int:
    """4, 8, or 16 for anything wider: the narrowest weights of the IR in `model`. Raises OSError."""
    narrow = {
        int(kind[1])
        for kind, size in _CONSTANT.findall((model / "openvino_model.xml").read_text(encoding="utf-8"))
        if kind[1] == "4" or int(size) >= _WEIGHTS_BYTES
    }
    return min(narrow, default=16)
