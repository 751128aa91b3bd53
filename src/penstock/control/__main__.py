"""The main process of `penstock up`: `python -m penstock.control --home H --https-fd F --proxy-fd F [--http-fd F]`.

Owns the arguments and the exit code. The caller has prepared the home (directories, lock, TLS, credentials) and bound the sockets.
"""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

from penstock import config


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        "penstock.control", description="The control process, which `penstock up` becomes."
    )
    parser.add_argument("--home", type=Path, required=True)
    for name in ("https", "proxy", "http"):
        parser.add_argument(f"--{name}-fd", type=int, required=name != "http", metavar="FD")
    given = parser.parse_args(arguments)
    sockets = {name: fd for name in ("https", "proxy", "http") if (fd := getattr(given, f"{name}_fd")) is not None}
    os.umask(0o077)
    try:
        settings = config.load(home=given.home)
    except ValueError as error:
        print(f"penstock: {error}", file=sys.stderr)
        return 2
    from penstock.control.server import serve

    return serve(settings, sockets)


if __name__ == "__main__":
    sys.exit(main())
