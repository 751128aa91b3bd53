"""Hugging Face directories, converted once for the OpenVINO engine and kept by content.

Owns the cache: what a source's content is called, that one process at a time converts it, and that a half-written result is never seen.
It must never import the converter's libraries: they live in an environment of their own, because they pin older versions of what the
rest of the installation uses.
"""

from __future__ import annotations

import fcntl
import hashlib
import logging
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

log = logging.getLogger(__name__)

PROGRAM = Path(__file__).with_name("convert_hf.py")
TIMEOUT_S = 3600.0
_PARTS = ("*.safetensors", "*.bin", "*.json", "*.model", "*.txt", "*.jinja")
_FORMAT = b"penstock-openvino-1"
"""Part of every key: a change of the conversion makes all results anew."""


class ConversionError(Exception):
    """A directory can't be converted; the message is one line."""


def interpreter(models: Path, environ: Mapping[str, str]) -> Path | None:
    """The converter's Python: `$PENSTOCK_CONVERTER`, else `converter/bin/python` beside the models, else none."""
    if given := environ.get("PENSTOCK_CONVERTER"):
        return Path(given)
    usual = models.parent / "converter" / "bin" / "python"
    return usual if usual.exists() else None


def converted(source: Path, models: Path, command: Sequence[str | Path], *, timeout_s: float = TIMEOUT_S) -> Path:
    """The converted form of `source` below `models`, made by `command` if it is not there yet. Blocking. Raises ConversionError.

    Another process that converts the same content is waited for.
    """
    cache = models / "openvino"
    cache.mkdir(parents=True, exist_ok=True)
    target = cache / content_key(source)
    if target.is_dir():
        return target
    with _alone(cache / f"{target.name}.lock"):
        if not target.is_dir():
            _convert(source, target, command, timeout_s)
    return target


def content_key(source: Path) -> str:
    """A name for what `source` holds: the files that a conversion reads, whatever the directory is called."""
    key = hashlib.blake2b(_FORMAT, digest_size=16)
    for file in sorted({file for pattern in _PARTS for file in source.glob(pattern) if file.is_file()}):
        key.update(f"\0{file.name}\0{file.stat().st_size}\0".encode())
        with file.open("rb") as content:
            while part := content.read(1 << 20):
                key.update(part)
    return key.hexdigest()


def _convert(source: Path, target: Path, command: Sequence[str | Path], timeout_s: float) -> None:
    for stale in target.parent.glob(f".{target.name}.*"):  # of a conversion that died; we hold its lock
        shutil.rmtree(stale, ignore_errors=True)
    work = Path(tempfile.mkdtemp(prefix=f".{target.name}.", dir=target.parent))
    made, reason = work / "model", work / "reason"
    made.mkdir()
    log.info("converting %s for OpenVINO; this is done once", source)
    try:
        arguments = [*map(str, command), str(source), str(made), str(reason), str(os.getpid())]
        done = subprocess.run(arguments, stdin=subprocess.DEVNULL, timeout=timeout_s, check=False)
        if done.returncode != 0:
            why = (
                reason.read_text().strip() if reason.exists() else f"the converter ended with status {done.returncode}"
            )
            raise ConversionError(f"{source} can't be converted: {why}")
        if not (made / "openvino_model.xml").exists():
            raise ConversionError(f"{source} can't be converted: the converter wrote no openvino_model.xml")
        _sync(made)
        made.rename(target)
    except subprocess.TimeoutExpired:
        raise ConversionError(f"{source} was not converted within {timeout_s:g} s") from None
    except OSError as error:
        raise ConversionError(f"{source} can't be converted: {error}") from error
    finally:
        shutil.rmtree(work, ignore_errors=True)


def _sync(directory: Path) -> None:
    """On the disk before it gets its name: a power cut must not leave a name with nothing behind."""
    for path in [*directory.iterdir(), directory]:
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


@contextmanager
def _alone(path: Path) -> Iterator[None]:
    with path.open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
