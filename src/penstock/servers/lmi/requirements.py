"""A model's `requirements.txt`: a virtual environment of its own, made once for equal contents.

Owns the environments below `$PENSTOCK_MODELS/venvs`. One without its mark is half made and is made anew. It must never install into the
server's own environment.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import hashlib
import importlib.util
import logging
import shutil
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path

from penstock.engines import apart
from penstock.servers.lmi import scripts
from penstock.servers.lmi.settings import ModelSettings
from penstock.servers.models import models_directory

log = logging.getLogger(__name__)

_MARK = ".complete"


class RequirementsError(Exception):
    """The requirements can't be installed; the message has the installer's own line."""


async def interpreter(settings: ModelSettings, environ: Mapping[str, str]) -> str:
    """The Python of the model's handler: `option.pythonExecutable`, else ours, with `requirements.txt` installed where there is one.

    Raises RequirementsError, unless `option.requirements_warn_only` asks for AWS's way: a warning, and the model without them.
    """
    python = settings.options.get("pythonExecutable") or settings.options.get("pythonexecutable") or sys.executable
    file = settings.directory / "requirements.txt"
    if not file.is_file() or not _lines(file):
        return python
    venvs = models_directory(environ) / "venvs"
    target = venvs / fingerprint(settings.directory, python)
    try:
        async with asyncio.timeout(settings.model_loading_timeout_s):
            venvs.mkdir(parents=True, exist_ok=True)
            async with _locked(venvs / f".{target.name}.lock"):
                if not (target / _MARK).exists():
                    await _make(target, python, settings, environ)
    except (RequirementsError, OSError, TimeoutError) as error:
        shutil.rmtree(target, ignore_errors=True)
        why = str(error) or f"not installed within {settings.model_loading_timeout_s} s"
        if not settings.requirements_warn_only:
            raise RequirementsError(f"requirements.txt can't be installed: {why}") from error
        log.warning("requirements.txt can't be installed, and the model is loaded without it: %s", why)
        return python
    return str(target / "bin" / "python")


def libraries(settings: ModelSettings, environ: Mapping[str, str]) -> tuple[str, ...]:
    """Where a handler finds torch and transformers, which AWS's images bring: the environment of an engine that has them.

    Nowhere else than in the handler's own where `option.pythonExecutable` names one, or the environment has another Python.
    """
    if settings.options.get("pythonExecutable") or settings.options.get("pythonexecutable"):
        return ()
    engines: tuple[str, ...] = ("transformers", "vllm")
    if scripts.imports(settings.directory / (settings.entry_point or settings.formatters), "vllm"):
        engines = ("vllm",)  # whose torch is its own
    version = f"python{sys.version_info.major}.{sys.version_info.minor}"
    for engine in engines:
        python = apart.interpreter(engine, models_directory(environ).parent, environ)
        if python == Path(sys.executable):
            return ()  # ours has them
        if python and (packages := python.parents[1] / "lib" / version / "site-packages").is_dir():
            return (str(packages),)
    return ()


def fingerprint(directory: Path, python: str) -> str:
    """A name made of everything that the installation depends on: the requirements, the offline packages, the interpreter."""
    digest = hashlib.sha256(f"{python} {sys.version}\n".encode())
    digest.update((directory / "requirements.txt").read_bytes())
    for file in sorted((directory / "requirements").rglob("*")):
        if file.is_file():
            with file.open("rb") as content:
                digest.update(f"\n{file.name} {hashlib.file_digest(content, 'sha256').hexdigest()}".encode())
    return digest.hexdigest()[:20]


async def _make(target: Path, python: str, settings: ModelSettings, environ: Mapping[str, str]) -> None:
    log.info("installing requirements.txt of model %s", settings.name)
    shutil.rmtree(target, ignore_errors=True)
    own = str(target / "bin" / "python")
    # A pip of our own installs into any environment; setting up another one there takes ten seconds.
    have_pip = python == sys.executable and importlib.util.find_spec("pip") is not None
    await _run(
        [python, "-m", "venv", *(["--without-pip"] if have_pip else []), str(target)], settings.directory, environ
    )
    pip = [python, "-m", "pip", "--python", own] if have_pip else [own, "-m", "pip"]
    install = [*pip, "install", "--disable-pip-version-check", "--no-input"]
    packages = settings.directory / "requirements"
    if packages.is_dir():
        install += ["--find-links", str(packages)]
    if settings.options.get("offline", "false").lower() == "true":
        install += ["--no-index"] if packages.is_dir() else ["--no-deps", "--no-index"]
    await _run([*install, "-r", "requirements.txt"], settings.directory, environ)
    (target / _MARK).touch()


async def _run(command: list[str], cwd: Path, environ: Mapping[str, str]) -> None:
    """Run to the end, its output in our log. Raises RequirementsError with its last line that tells."""
    # PYTHONPATH would make packages count as installed that the handler finds last, or not at all.
    clean = {name: value for name, value in environ.items() if name != "PYTHONPATH"}
    process = await asyncio.create_subprocess_exec(
        *command,
        cwd=cwd,
        env=clean,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    assert process.stdout is not None
    last = error = ""
    try:
        async for raw in process.stdout:
            if line := raw.decode("utf-8", "replace").strip():
                log.info("%s", line)
                last = line
                error = error or (line if line.startswith("ERROR") else "")
        if await process.wait():
            raise RequirementsError(error or last or f"{command[0]} ended with status {process.returncode}")
    finally:
        if process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                process.kill()
            await process.wait()


@asynccontextmanager
async def _locked(path: Path) -> AsyncIterator[None]:
    """Held against other processes; waiting for it can be cancelled."""
    with path.open("w") as lock:
        while True:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                await asyncio.sleep(0.1)
        yield


def _lines(file: Path) -> list[str]:
    lines = (line.strip() for line in file.read_text(encoding="utf-8", errors="replace").splitlines())
    return [line for line in lines if line and not line.startswith("#")]
