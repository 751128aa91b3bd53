"""Engines that live in a Python environment of their own.

vLLM and transformers bring gigabytes, and pin versions of what the rest of Penstock uses; so each may have an environment that holds
nothing of ours. Owns where its interpreter is found, and the command line that runs our engine process in it. It must never import an
engine library.

Run as a file (`python apart.py --fd=…`) it is that process: it makes this package importable without putting our own environment,
with other versions of the same libraries, on the path.
"""

from __future__ import annotations

import importlib.machinery
import importlib.util
import runpy
import sys
from collections.abc import Mapping
from pathlib import Path

MODULES = {"vllm": "vllm", "transformers": "transformers"}
"""What must be importable for an engine that may live apart."""


def interpreter(engine: str, home: Path, environ: Mapping[str, str]) -> Path | None:
    """The Python that can run `engine`; None where there is none.

    `$PENSTOCK_VLLM_PYTHON` or `$PENSTOCK_TRANSFORMERS_PYTHON`; else ours, if it has the library; else the environment of that name
    in `home`/engines.
    """
    if engine not in MODULES:
        return Path(sys.executable)
    if given := environ.get(f"PENSTOCK_{engine.upper()}_PYTHON"):
        return Path(given)
    if importlib.util.find_spec(MODULES[engine]) is not None:
        return Path(sys.executable)
    usual = home / "engines" / engine / "bin" / "python"
    return usual if usual.exists() else None


def command(python: Path) -> tuple[str, ...]:
    """How to start an engine process with `python`."""
    if python == Path(sys.executable):
        return (sys.executable, "-P", "-m", "penstock.engines")
    return (str(python), "-P", __file__)


def _run() -> None:
    package = Path(__file__).parents[1]
    spec = importlib.machinery.ModuleSpec("penstock", None, is_package=True)
    spec.submodule_search_locations = [str(package)]
    sys.modules["penstock"] = importlib.util.module_from_spec(spec)
    runpy.run_module("penstock.engines", run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    _run()
