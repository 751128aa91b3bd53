"""Start the replay server: find its tape, make a script of it, and let the scripted server play that."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import Mapping
from pathlib import Path

from penstock.servers.contract import fail, listen, log_to_stdout, read_contract
from penstock.servers.scripted.script import Script, parse_script
from penstock.servers.scripted.server import Server
from penstock.tape import load, replay

TAPE = "tape.jsonl"


def find_tape(model_dir: Path) -> Path:
    """`tape.jsonl` in the model's directory or its only subdirectory. Raises FileNotFoundError."""
    entries = list(model_dir.iterdir()) if model_dir.is_dir() else []
    nested = entries[0] if len(entries) == 1 and entries[0].is_dir() else model_dir
    for place in (model_dir, nested):
        if (path := place / TAPE).is_file():
            return path
    raise FileNotFoundError(f"there is no {TAPE} in the model data")


def make_script(environ: Mapping[str, str], model_dir: Path) -> Script:
    """What the scripted server has to play. Raises ValueError (TapeError is one) and OSError."""
    speed = replay.read_speed(environ.get("PENSTOCK_TAPE_SPEED") or "original")
    with find_tape(model_dir).open("rb") as file:
        return parse_script(json.dumps(replay.script(load(file), speed)))


def main() -> None:
    log_to_stdout()
    contract = read_contract()
    try:
        script = make_script(os.environ, contract.model_dir)
    except (ValueError, OSError) as error:
        fail(f"The replay server has no usable tape: {error}", contract=contract)
    with listen(contract) as sock:
        asyncio.run(Server(script).run(sock))


if __name__ == "__main__":
    main()
