"""`python -m penstock.gateway`: how the control process starts a worker.

Owns the command line, which people never type. Listening sockets come as open file descriptors, settings come from the environment.
"""

from __future__ import annotations

import argparse
import socket
import sys

from penstock import config
from penstock.gateway.process import Listeners, configure_logging, run


def main(argv: list[str] | None = None) -> int:
    """The worker's exit status: 0 after a drain, 2 when it cannot start, with one line that says why."""
    parser = argparse.ArgumentParser(prog="python -m penstock.gateway", description="One gateway worker.")
    parser.add_argument("--home", required=True, help="the Penstock home")
    parser.add_argument("--worker", type=int, default=0, help="this worker's number")
    parser.add_argument("--https-fd", type=int, required=True, help="listening socket for HTTPS")
    parser.add_argument("--proxy-fd", type=int, required=True, help="listening socket for the CONNECT proxy")
    parser.add_argument("--http-fd", type=int, help="listening socket for plain HTTP")
    given = parser.parse_args(argv)
    configure_logging()
    try:
        settings = config.load(home=given.home)
        listeners = Listeners(
            socket.socket(fileno=given.https_fd),
            socket.socket(fileno=given.proxy_fd),
            None if given.http_fd is None else socket.socket(fileno=given.http_fd),
        )
        return run(settings, given.worker, listeners)
    except (OSError, ValueError) as error:
        print(f"gateway: {error}", file=sys.stderr)
        return 2


if __name__ == "__main__":
    sys.exit(main())
