"""Start the scripted server: find its script, then serve it."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Mapping
from pathlib import Path

from penstock.servers.contract import fail, listen, log_to_stdout, read_contract
from penstock.servers.scripted.script import DEFAULT, Script, parse_script
from penstock.servers.scripted.server import Server


def find_script(environ: Mapping[str, str], model_dir: Path) -> Script:
    """From `PENSTOCK_SCRIPT`, else `script.json` in the model's directory or its only subdirectory, else the default.

    Raises ValueError on a script that is none, OSError on a file that can't be read.
    """
    if text := environ.get("PENSTOCK_SCRIPT"):
        return parse_script(text)
    if model_dir.is_dir():
        entries = list(model_dir.iterdir())
        nested = entries[0] if len(entries) == 1 and entries[0].is_dir() else model_dir
        for place in (model_dir, nested):
            if (path := place / "script.json").is_file():
                return parse_script(path.read_bytes())
    return DEFAULT


def main() -> None:
    log_to_stdout()
    contract = read_contract()
    try:
        script = find_script(os.environ, contract.model_dir)
    except (ValueError, OSError) as error:
        fail(f"The scripted server has no usable script: {error}", contract=contract)
    time.sleep(script.start.wait_ms / 1000)
    if script.start.fail:
        fail(script.start.fail, contract=contract, code=script.start.code)
    with listen(contract) as sock:
        asyncio.run(Server(script).run(sock))


if __name__ == "__main__":
    main()
