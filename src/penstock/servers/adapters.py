"""LoRA adapters: from what a user calls them to directories.

Owns the meaning of TGI's list of adapters and of LMI's folder of them, and what a directory must hold to be one. It must never load an
adapter: whether it fits the model is seen by the engine.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from penstock.servers import models
from penstock.servers.unavailable import ModelUnavailable

CONFIG = "adapter_config.json"
_WEIGHTS = frozenset({"adapter_model.safetensors", "adapter_model.bin"})


@dataclass(frozen=True, slots=True)
class Adapter:
    """`source` is whatever names a model: a directory, an `s3://` prefix, a hub id or its alias."""

    name: str
    source: str
    revision: str = ""


def listed(text: str) -> tuple[Adapter, ...]:
    """TGI's list: `id`, `id@revision`, `name=path` or `name=path@revision`, with commas between. Raises ValueError, in one line."""
    found: dict[str, Adapter] = {}
    for item in (part.strip() for part in text.split(",")) if text.strip() else ():
        place, at, revision = item.partition("@")
        name, equals, source = place.partition("=")
        if not name or (at and not revision) or (equals and not source) or "@" in revision or "=" in source + revision:
            raise ValueError(f"Invalid LoRA adapter format: {item}")
        if name in found:
            raise ValueError(f"LORA_ADAPTERS names {name} twice")
        found[name] = Adapter(name, source or name, revision)
    return tuple(found.values())


def beside(directories: Iterable[Path], folder: str) -> tuple[Adapter, ...]:
    """LMI's: every folder in `folder` of one of the directories is an adapter of that name. Raises ModelUnavailable."""
    found: dict[str, Adapter] = {}
    for parent in dict.fromkeys(directory / folder for directory in directories):
        for path in sorted(parent.iterdir()) if parent.is_dir() else ():
            if not path.is_dir() or path.name.startswith("."):
                continue
            if path.name in found:
                raise ModelUnavailable(
                    f"there are two adapters named {path.name}: {found[path.name].source} and {path}"
                )
            if (path / "model.py").exists():
                raise ModelUnavailable(
                    f"adapter {path.name} has a model.py, and an adapter's own code is not supported: use the model's"
                )
            found[path.name] = Adapter(path.name, str(path.absolute()))
    return tuple(found.values())


def locate(adapters: Iterable[Adapter], environ: Mapping[str, str]) -> dict[str, str]:
    """The adapters' directories by name, which may mean to download them. Blocking. Raises ModelUnavailable."""
    return {adapter.name: str(_located(adapter, environ)) for adapter in adapters}


def _located(adapter: Adapter, environ: Mapping[str, str]) -> Path:
    try:
        directory = models.fetch(adapter.source, adapter.revision, environ, proof=CONFIG)
    except ModelUnavailable as error:
        raise ModelUnavailable(f"adapter {adapter.name}: {error}") from error
    names = {entry.name for entry in directory.iterdir()}
    missing = [] if CONFIG in names else [CONFIG]
    missing += [] if names & _WEIGHTS else ["adapter_model.safetensors"]
    if missing:
        raise ModelUnavailable(
            f"adapter {adapter.name}: {directory} lacks {' and '.join(missing)}: save it with PEFT's save_pretrained"
        )
    return directory
