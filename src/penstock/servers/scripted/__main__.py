"""Start the scripted server: find its script, then serve it."""

from __future__ import annotations

import asyncio
import os
import time

from penstock.servers.contract import fail, listen, log_to_stdout, read_contract
from penstock.servers.scripted.find import find_script
from penstock.servers.scripted.server import Server


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
        asyncio.run(Server(script, multi_model=contract.multi_model).run(sock))


if __name__ == "__main__":
    main()
