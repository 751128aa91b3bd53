"""Whether there is room for one more model.

Owns the reading of the machine's free memory. It must never load a model.
"""

from __future__ import annotations

import re
from pathlib import Path

from penstock.servers.lmi.errors import OutOfMemory
from penstock.servers.lmi.settings import ModelSettings

MEMINFO = Path("/proc/meminfo")


def admit(settings: ModelSettings, meminfo: Path = MEMINFO) -> None:
    """Raises OutOfMemory where less is free than `required_memory_mb` and `reserved_memory_mb` together."""
    if not settings.required_memory_mb:
        return
    match = re.search(r"^MemAvailable:\s+(\d+) kB$", meminfo.read_text(), re.MULTILINE)
    free = int(match[1]) // 1024 if match else 0
    wanted = settings.required_memory_mb + settings.reserved_memory_mb
    if free < wanted:
        raise OutOfMemory(f"No enough memory to load the model: {wanted} MB are required, and {free} MB are free.")
