"""Which models a replica serves: what lies in `/opt/ml/model`, else what the environment names.

Owns the rule from directories to names. It must never read a model's properties.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path


class NothingToServe(Exception):
    """Neither files nor the environment name a model; the message is for a FailureReason."""


@dataclass(frozen=True, slots=True)
class Found:
    """A model to load. `directory` may be empty of files when the model is named by HF_MODEL_ID alone."""

    name: str
    directory: Path
    version: str = ""


def discover(model_dir: Path, environ: Mapping[str, str]) -> tuple[Found, ...]:
    """The models, in order of their names. Raises NothingToServe.

    Files in `model_dir` make it the one model, `model`. A single directory in it, as a tar.gz with one top folder gives, is the one
    model and lends its name; several are a model each. `SERVING_LOAD_MODELS` (`name=path`, `name:version:Engine=path`, comma-separated)
    overrides all that.
    """
    if (given := environ.get("SERVING_LOAD_MODELS", "ALL").strip()).upper() not in ("", "ALL"):
        return tuple(_named(item, model_dir) for item in re.split(r"[, ]+", given) if item)
    entries = sorted(entry for entry in _entries(model_dir) if not entry.name.startswith("."))
    directories = [entry for entry in entries if entry.is_dir()]
    if len(directories) < len(entries):
        return (Found("model", model_dir),)
    if directories:
        found = [
            Found(model_name(directory), nested(directory)) for directory in directories if any(_entries(directory))
        ]
        if found:
            return tuple(found)
    if environ.get("HF_MODEL_ID") or environ.get("OPTION_MODEL_ID"):
        return (Found("model", model_dir),)
    raise NothingToServe(
        "There is no model: /opt/ml/model is empty and HF_MODEL_ID is not set. Give the model a ModelDataUrl, or set HF_MODEL_ID."
    )


def nested(directory: Path) -> Path:
    """The directory inside, while there is nothing else but one."""
    while (
        len(entries := [entry for entry in _entries(directory) if not entry.name.startswith(".")]) == 1
        and entries[0].is_dir()
    ):
        directory = entries[0]
    return directory


def model_name(directory: Path) -> str:
    """A directory's name as a model's name: everything but letters, digits and underscores becomes an underscore."""
    return re.sub(r"\W", "_", directory.name, flags=re.ASCII)


def _named(item: str, model_dir: Path) -> Found:
    head, separator, path = item.rpartition("=")
    directory = Path(path.removeprefix("file://"))
    if directory == Path("/opt/ml/model") or Path("/opt/ml/model") in directory.parents:
        directory = model_dir / directory.relative_to("/opt/ml/model")
    directory = nested(model_dir / directory)
    if not directory.is_dir():
        raise NothingToServe(f"SERVING_LOAD_MODELS names {path}, which is not a directory.")
    name, version = (*head.strip("[]").split(":"), "")[:2] if separator else ("", "")
    return Found(name or model_name(directory), directory, version)


def _entries(directory: Path) -> list[Path]:
    return list(directory.iterdir()) if directory.is_dir() else []
