"""Make the environments of the engines that live apart, and of the converter: one per lock file in tests/engines/locks.

`engine_environments.py DIRECTORY [NAME ...]` makes `DIRECTORY/NAME`. Exact versions, so that an engine's answers mean the same tomorrow;
with pip and not uv, because pip takes wheels from wherever this machine is told to look (`PIP_FIND_LINKS`, pip.conf).
"""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

LOCKS = Path(__file__).parent.parent / "tests" / "engines" / "locks"
TRIES = 3


def main(root: Path, names: list[str]) -> None:
    """Create what is missing or was made from another lock; what is complete stays."""
    for name in names or sorted(lock.stem for lock in LOCKS.glob("*.txt")):
        make(root / name, LOCKS / f"{name}.txt", name, "torch among them", finish=_leave_out_what_does_not_fit)


def make(target: Path, lock: Path, name: str, size: str, *options: str, finish: Callable[[Path], None]) -> None:
    """The environment `target` from `lock`, put right by `finish`, if it is not there yet. `options` are for `pip install`."""
    made_from = target / "made-from.txt"
    if made_from.is_file() and made_from.read_text() == lock.read_text():
        return
    print(f"    {name}: {lock.read_text().count('==')} packages, {size}", flush=True)
    shutil.rmtree(target, ignore_errors=True)
    subprocess.run([sys.executable, "-m", "venv", target], check=True)
    _install([*_pip(target), "install", *options, "--requirement", lock], name)
    finish(target)
    made_from.write_text(lock.read_text())


def _pip(target: Path) -> list[str | Path]:
    return [target / "bin" / "python", "-m", "pip", "--quiet", "--disable-pip-version-check"]


def _install(command: list[str | Path], name: str) -> None:
    """Run it again when it fails: a registry that does not answer once is no reason to fail."""
    for left in range(TRIES - 1, -1, -1):
        if subprocess.run(command, check=False).returncode == 0:
            return
        print(f"    {name} failed; {left} tries left", flush=True)
    sys.exit(1)


def _leave_out_what_does_not_fit(target: Path) -> None:
    """optimum-intel asks for torchvision, and its wheel fits only the torch of the same registry.

    Text needs none of it, but transformers imports it where it lies.
    """
    python = target / "bin" / "python"
    if subprocess.run([python, "-c", "import torchvision"], check=False, capture_output=True).returncode != 0:
        subprocess.run([*_pip(target), "uninstall", "--yes", "torchvision"], check=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]).absolute(), sys.argv[2:])
