"""Directories that are converted once for the OpenVINO engine and kept by content: from Hugging Face's form, or to smaller weights.

Owns the cache: what a source's content is called, that one process at a time converts it, that a half-written result is never seen, and
that a conversion can be stopped.
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
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from penstock.engines.weights import UnknownFormat, quantized_checkpoint, weight_format

log = logging.getLogger(__name__)

PROGRAM = Path(__file__).with_name("convert_hf.py")
TIMEOUT_S = 3600.0
PROGRESS_S = 15.0
"""How often a conversion that goes on says so."""
_FULL = 1 << 20
"""A disk with fewer free bytes is full."""
_LOOK_S = 0.1
"""How often a wait looks whether it was stopped."""
_PARTS = ("*.safetensors", "*.bin", "*.xml", "*.json", "*.model", "*.txt", "*.jinja")
_FORMAT = b"penstock-openvino-1"
"""Part of every key: a change of the conversion makes all results anew."""


_STOPPED = threading.Event()
_RUNNING: set[int] = set()
"""The threads of this process that are in `converted`."""


class ConversionError(Exception):
    """A directory can't be converted; the message is one line."""


def interpreter(models: Path, environ: Mapping[str, str]) -> Path | None:
    """The converter's Python: `$PENSTOCK_CONVERTER`, else `converter/bin/python` beside the models, else none."""
    if given := environ.get("PENSTOCK_CONVERTER"):
        return Path(given)
    usual = models.parent / "converter" / "bin" / "python"
    return usual if usual.exists() else None


class ConversionStopped(ConversionError):
    """Somebody asked for the conversion to stop."""


_TORCHVISION = ("PreTrainedModel", "torchvision")
_CURE = "the torchvision in the converter's environment does not fit its torch, and text needs none: {} -m pip uninstall torchvision"


def converted(
    source: Path,
    models: Path,
    command: Sequence[str | Path],
    *,
    quantize: str = "",
    timeout_s: float = TIMEOUT_S,
    stop: threading.Event | None = None,
) -> Path:
    """The converted form of `source` below `models`, made by `command` if it is not there yet. Blocking. Raises ConversionError.

    `quantize` is one of the words in `weights.py`, `source` a Hugging Face directory or, with `quantize`, an OpenVINO one. Another process
    that converts the same content is waited for. Once `stop` is set it raises ConversionStopped within a moment, and leaves nothing behind.
    """
    try:
        weights = weight_format(quantize)
    except UnknownFormat as error:
        raise ConversionError(str(error)) from None
    if stored := quantized_checkpoint(source):
        raise ConversionError(
            f"{source} can't be converted: its weights are stored as {stored}, which the OpenVINO engine does not read; "
            "give the model's original weights, with quantize=int8 or int4 if they should be smaller"
        )
    stop = stop or _STOPPED
    _RUNNING.add(threading.get_ident())
    try:
        cache = models / "openvino"
        cache.mkdir(parents=True, exist_ok=True)
        key = content_key(source, stop)
        target = cache / (f"{key}-{weights}" if weights else key)
        if target.is_dir():
            return target
        with _alone(cache / f"{target.name}.lock", source, stop):
            if not target.is_dir():
                _convert(source, target, command, weights or "", timeout_s, stop)
        return target
    except OSError as error:
        raise ConversionError(f"{source} can't be converted: {error}") from error
    finally:
        _RUNNING.discard(threading.get_ident())


def stop_all(within_s: float = 5.0) -> None:
    """End the conversions of this process, which is about to end itself, and wait until they left nothing behind. For signal handlers."""
    _STOPPED.set()
    end = time.monotonic() + within_s
    while _RUNNING and time.monotonic() < end:
        time.sleep(0.02)


def content_key(source: Path, stop: threading.Event | None = None) -> str:
    """A name for what `source` holds: the files that a conversion reads, whatever the directory is called. Raises ConversionStopped."""
    key = hashlib.blake2b(_FORMAT, digest_size=16)
    for file in sorted({file for pattern in _PARTS for file in source.glob(pattern) if file.is_file()}):
        key.update(f"\0{file.name}\0{file.stat().st_size}\0".encode())
        with file.open("rb") as content:
            while part := content.read(1 << 20):
                key.update(part)
                if stop and stop.is_set():
                    raise ConversionStopped(f"{source} was not converted: it was stopped")
    return key.hexdigest()


def _convert(
    source: Path,
    target: Path,
    command: Sequence[str | Path],
    weights: str,
    timeout_s: float,
    stop: threading.Event,
) -> None:
    for stale in target.parent.glob(f".{target.name}.*"):  # of a conversion that died; we hold its lock
        shutil.rmtree(stale, ignore_errors=True)
    work = Path(tempfile.mkdtemp(prefix=f".{target.name}.", dir=target.parent))
    made, reason = work / "model", work / "reason"
    made.mkdir()
    log.info(
        "converting %s for OpenVINO%s; this is done once", source, f" with weights in {weights}" if weights else ""
    )
    arguments = [
        *map(str, command),
        str(source),
        str(made),
        str(reason),
        str(os.getpid()),
        *([weights] if weights else []),
    ]
    try:
        status = _run(arguments, source, timeout_s, stop)
        if status != 0:
            why = reason.read_text().strip() if reason.exists() else ""
            cure = f" ({_CURE.format(command[0])})" if any(words in why for words in _TORCHVISION) else ""
            raise ConversionError(f"{source} can't be converted: {why or _guess(work, status)}{cure}")
        if not (made / "openvino_model.xml").exists():
            raise ConversionError(f"{source} can't be converted: the converter wrote no openvino_model.xml")
        _sync(made)
        made.rename(target)
    finally:
        shutil.rmtree(work, ignore_errors=True)


def _guess(work: Path, status: int) -> str:
    """Why a converter ended without a word: on a full disk there is no room for one."""
    if shutil.disk_usage(work).free < _FULL:
        return f"the disk with {work.parent} is full"
    return f"the converter ended with status {status}"


def _run(arguments: Sequence[str], source: Path, timeout_s: float, stop: threading.Event) -> int:
    """The converter's exit status. It is gone when this returns or raises (ConversionError, OSError)."""
    begun = said = time.monotonic()
    with subprocess.Popen(arguments, stdin=subprocess.DEVNULL) as converter:
        try:
            while True:
                try:
                    return converter.wait(_LOOK_S)
                except subprocess.TimeoutExpired:
                    now = time.monotonic()
                if stop.is_set():
                    raise ConversionStopped(f"{source} was not converted: it was stopped")
                if now - begun > timeout_s:
                    raise ConversionError(f"{source} was not converted within {timeout_s:g} s")
                if now - said > PROGRESS_S:
                    said = now
                    log.info("still converting %s, for %.0f s", source, now - begun)
        finally:
            converter.kill()  # it does nothing to one that has ended


def _sync(directory: Path) -> None:
    """On the disk before it gets its name: a power cut must not leave a name with nothing behind."""
    for path in [*directory.iterdir(), directory]:
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


@contextmanager
def _alone(path: Path, source: Path, stop: threading.Event) -> Iterator[None]:
    """Hold the lock `path`, which the kernel lets go of however its holder ends. Raises ConversionStopped."""
    with path.open("w") as lock:
        said = False
        while not _locked(lock.fileno()):
            if not said:
                log.info("another process is converting %s; waiting for it", source)
                said = True
            if stop.wait(_LOOK_S):
                raise ConversionStopped(f"{source} was not converted: it was stopped")
        yield


def _locked(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
