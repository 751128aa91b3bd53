"""Make the virtual environments of the client programs that the tests run: one per lock file in tests/clients/locks.

Each is exact (`uv pip sync`), so that "boto3 of September 2023" means the same tomorrow.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

LOCKS = Path(__file__).parent.parent / "tests" / "clients" / "locks"


def main(root: Path) -> None:
    """Create `root/NAME` for each `NAME.txt`; what is there and complete stays."""
    uv = Path(sys.executable).parent / "uv"
    for lock in sorted(LOCKS.glob("*.txt")):
        target = root / lock.stem
        print(f"    {lock.stem}: {len(lock.read_text().splitlines())} packages", flush=True)
        if not (target / "bin" / "python").exists():
            subprocess.run([uv, "venv", "--quiet", "--python", sys.executable, target], check=True)
        _sync([uv, "pip", "sync", "--quiet", "--python", target / "bin" / "python", lock])


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
