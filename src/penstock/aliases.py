"""Aliases of models: which directory stands for a Hugging Face hub id on this machine.

Owns `aliases.json` in the models directory: read by the model servers, written by `penstock models alias`. It must never fetch a
model, nor judge whether a directory holds one: that is `servers/models.py`'s business.
"""

from __future__ import annotations

import fcntl
import json
import os
import re
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

BUILT_IN: Mapping[str, Path] = {"penstock/falcon-demo": Path(__file__).parent / "models" / "falcon-demo"}
"""Aliases that exist without being written. A file's entry of the same name wins."""

_HUB_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*(?:/[A-Za-z0-9][A-Za-z0-9._-]*)?")


class AliasError(ValueError):
    """An alias that can't be kept, or a file that can't be read; the message is one line for people."""


def is_hub_id(text: str) -> bool:
    """Whether `text` has the form of a hub id: `name` or `organisation/name`."""
    return _HUB_ID.fullmatch(text) is not None and ".." not in text


def read(models: Path) -> dict[str, Path]:
    """Hub id -> directory, the built-in ones included. `models` is `Paths.models`. Raises AliasError when the file is damaged."""
    written = _load(models / "aliases.json")
    return {**BUILT_IN, **{hub_id: _target(target, written) for hub_id, target in written.items()}}


def write(models: Path, hub_id: str, target: str | Path) -> None:
    """Make `hub_id` stand for `target`: a directory, or another alias (`penstock/falcon-demo`). Replaces an earlier entry.

    Atomic, and safe against a second process that writes another alias at the same time. Raises AliasError.
    """
    if not is_hub_id(hub_id):
        raise AliasError(f"{hub_id!r} is not a hub id: it must look like organisation/name")
    with _locked(models):
        written = _load(models / "aliases.json")
        known = {**BUILT_IN, **written}
        if str(target) in known and str(target) != hub_id:
            value = str(target)
        else:
            directory = Path(target).expanduser().absolute()
            if not directory.is_dir():
                raise AliasError(f"{target} is neither a directory nor an alias")
            value = str(directory)
        _store(models / "aliases.json", {**written, hub_id: value})


def remove(models: Path, hub_id: str) -> bool:
    """Forget `hub_id`; False when the file does not hold it. A built-in alias can't be removed, only what replaced it."""
    with _locked(models):
        written = _load(models / "aliases.json")
        found = written.pop(hub_id, None) is not None
        if found:
            _store(models / "aliases.json", written)
        return found


def _target(target: str, written: Mapping[str, str]) -> Path:
    """Follow an alias of an alias; a chain longer than the file is a ring and ends where it began."""
    for _ in range(len(written) + 1):
        if target in written:
            target = written[target]
        elif target in BUILT_IN:
            return BUILT_IN[target]
        else:
            break
    return Path(target)


def _load(file: Path) -> dict[str, str]:
    try:
        value = json.loads(file.read_bytes())
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        raise AliasError(f"{file} can't be read ({error}); mend or delete it") from error
    if not isinstance(value, dict) or not all(isinstance(item, str) for item in value.values()):
        raise AliasError(f"{file} must hold one JSON object of hub ids and directories; mend or delete it")
    return value


def _store(file: Path, aliases: Mapping[str, str]) -> None:
    handle, name = tempfile.mkstemp(prefix=".aliases-", dir=file.parent)
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as out:
            json.dump(dict(sorted(aliases.items())), out, indent=2)
            out.write("\n")
            out.flush()
            os.fsync(out.fileno())
        os.replace(name, file)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise


@contextmanager
def _locked(models: Path) -> Iterator[None]:
    models.mkdir(parents=True, exist_ok=True)
    with open(models / ".aliases.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
