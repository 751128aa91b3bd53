"""`python -m penstock.pytest_plugin.serve HOME PARENT`: `penstock up` on free ports, that ends with the process that started it.

Owns that bond, which the kernel keeps even where the tests are killed. It goes straight to what `up` does: the other verbs are not loaded.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys
from pathlib import Path

from penstock.cli.up import become_control, listen, prepare_home
from penstock.config import load

_PR_SET_PDEATHSIG = 1


def main(home: str, parent: str) -> None:
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
    if os.getppid() != int(parent):
        sys.exit("the tests are gone already")
    known = load(home=Path(home), port=0, proxy_port=0)
    os.set_inheritable(prepare_home(known), True)
    become_control(known, listen(known))


if __name__ == "__main__":
    main(*sys.argv[1:])
