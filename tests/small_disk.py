"""A file system so small that it is full when a test wants it to be. There is no test in this file."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest


@contextmanager
def small_disk(place: Path, size: str, *, lazily: bool = False) -> Iterator[Path]:
    """`place`, made here on a file system of `size` ("16m"). Skips where none can be mounted. `lazily`: something may still use it."""
    place.mkdir()
    done = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", place], capture_output=True, text=True
    )
    if done.returncode:
        pytest.skip(f"no small file system can be mounted here: {done.stderr.strip()}")
    try:
        yield place
    finally:
        subprocess.run(["umount", *(["-l"] if lazily else []), place], check=True)
