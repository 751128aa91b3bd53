"""Where a script lies: in the environment, or in a model's directory."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from penstock.servers.scripted.script import DEFAULT, Script, parse_script


def find_script(environ: Mapping[str, str], model_dir: Path) -> Script:
    """From `PENSTOCK_SCRIPT`, else `script.json` in the model's directory or its only subdirectory, else the default.

    Raises ValueError on a script that is none, OSError on a file that can't be read.
    """
    if text := environ.get("PENSTOCK_SCRIPT"):
        return parse_script(text)
    return in_directory(model_dir) or DEFAULT


def in_directory(model_dir: Path) -> Script | None:
    """The script of a model's directory, None where it has none. Raises as `find_script` does."""
    if not model_dir.is_dir():
        return None
    entries = list(model_dir.iterdir())
    nested = entries[0] if len(entries) == 1 and entries[0].is_dir() else model_dir
    for place in (model_dir, nested):
        if (path := place / "script.json").is_file():
            return parse_script(path.read_bytes())
    return None
