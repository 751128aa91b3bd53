"""Make the virtual environments of the client programs that the tests run: one per lock file in tests/clients/locks.

Each is exact (`uv pip sync`), so that "boto3 of September 2023" means the same tomorrow. A lock file whose first line is `# python 3.12`
needs at least that Python; without one its environment is left out, with a line that says so, and its tests are skipped.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

LOCKS = Path(__file__).parent.parent / "tests" / "clients" / "locks"
NEWEST = 14
"""The minor version of Python up to which interpreters are looked for."""


def main(root: Path) -> None:
    """Create `root/NAME` for each `NAME.txt`; what is there and complete stays."""
    uv = Path(sys.executable).parent / "uv"
    for lock in sorted(LOCKS.glob("*.txt")):
        text = lock.read_text()
        needed = re.match(r"# python 3\.(\d+)\n", text)
        python = _python(int(needed[1])) if needed else sys.executable
        if python is None:
            print(f"    {lock.stem}: left out, there is no Python 3.{needed[1] if needed else ''} here", flush=True)
            continue
        target = root / lock.stem
        print(f"    {lock.stem}: {text.count('==')} packages", flush=True)
        if not (target / "bin" / "python").exists():
            subprocess.run([uv, "venv", "--quiet", "--python", python, target], check=True)
        _sync([uv, "pip", "sync", "--quiet", "--python", target / "bin" / "python", lock])


def _python(minor: int) -> str | None:
    """An interpreter of at least that version: our own, one on PATH, or one of pyenv's."""
    if sys.version_info >= (3, minor):
        return sys.executable
    for number in range(minor, NEWEST + 1):
        kept = sorted(
            Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv")).glob(f"versions/3.{number}.*/bin/python")
        )
        for found in (shutil.which(f"python3.{number}"), *map(str, kept)):
            if found and subprocess.run([found, "-c", ""], check=False, capture_output=True).returncode == 0:
                return found
    return None


def _sync(command: list[str | Path], *, tries: int = 3) -> None:
    """Run it again when it fails: a registry that does not answer once is no reason to fail a test run of minutes."""
    for left in range(tries - 1, -1, -1):
        # The system's certificates, as pip uses them: uv brings its own unless told so.
        if subprocess.run(command, env={**os.environ, "UV_SYSTEM_CERTS": "true"}, check=False).returncode == 0:
            return
        print(f"    {' '.join(map(str, command))} failed; {left} tries left", flush=True)
    sys.exit(1)


if __name__ == "__main__":
    main(Path(sys.argv[1]).absolute())
