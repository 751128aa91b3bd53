"""Control's own log: JSON lines in `logs/control.jsonl`, bounded in size; what is an error also goes to stderr, as text.

Owns the form of a line. It must never hold a secret or a body: callers pass ids and names.
"""

from __future__ import annotations

import logging
import logging.handlers
import sys
from pathlib import Path

import msgspec

FILE_BYTES = 8 * 1024 * 1024
FILES_KEPT = 3


class JsonLines(logging.Formatter):
    """One line a record: time (epoch seconds), level, logger, message; `fields` of the record beside them."""

    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, object] = {
            "time": round(record.created, 3),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        line |= getattr(record, "fields", {})
        if record.exc_info:
            line["traceback"] = self.formatException(record.exc_info)
        return msgspec.json.encode(line).decode()


def open_journal(directory: Path) -> None:
    """Every logger of this process writes there from now on. A log that can't be written (a full disk) disturbs nobody."""
    logging.raiseExceptions = False
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    file = logging.handlers.RotatingFileHandler(
        directory / "control.jsonl", maxBytes=FILE_BYTES, backupCount=FILES_KEPT, encoding="utf-8"
    )
    file.setFormatter(JsonLines())
    terminal = logging.StreamHandler(sys.stderr)
    terminal.setLevel(logging.ERROR)
    terminal.setFormatter(logging.Formatter("penstock: %(message)s"))
    logging.basicConfig(level=logging.INFO, handlers=[file, terminal])
