"""`text-generation-launcher`: the original's command line, which says the same as its environment.

Owns the command line, and how its flags become the environment that `settings.py` reads. It must never judge a value beyond its form.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Mapping, MutableMapping

from penstock.servers.tgi.flags import FLAGS

VERSION = "3.3.7"
"""The level that the command speaks when PENSTOCK_SERVER_VERSION does not say another."""
PORT = "3000"
MODEL = "bigscience/bloom-560m"

_SHORT = {"port": "-p"}
_TYPES = {"number": int, "real": float, "text": str}


def main() -> None:
    """Serve until SIGTERM."""
    arguments = parser().parse_args()
    if arguments.env:
        print(runtime(os.environ))
        return
    os.environ.update(environment(vars(arguments), os.environ))
    for name in ignored(vars(arguments)):
        print(f"--{name} changes nothing here", file=sys.stderr)
    from penstock.servers.tgi.__main__ import main as serve  # a help text should not wait for the server's libraries

    serve()


def parser() -> argparse.ArgumentParser:
    """The command line. A flag that is not given is None, so that the environment's value stays."""
    found = argparse.ArgumentParser("text-generation-launcher", allow_abbrev=False)
    found.add_argument("-V", "--version", action="version", version=f"text-generation-launcher {VERSION}")
    found.add_argument("-e", "--env", action="store_true", help="print what this machine is, and exit")
    for flag in FLAGS:
        names = [f"--{flag.name}", *([_SHORT[flag.name]] if flag.name in _SHORT else [])]
        help_ = f"[env: {flag.variable}]"
        match flag.kind:
            case "switch":
                found.add_argument(*names, action="store_const", const="true", help=help_)
            case "bool":
                found.add_argument(*names, choices=("true", "false"), help=help_)
            case kind:
                found.add_argument(*names, type=_TYPES[kind], choices=flag.choices or None, help=help_)
    return found


def environment(given: Mapping[str, object], environ: Mapping[str, str]) -> MutableMapping[str, str]:
    """What the server reads: flags first, then the original's variables, then SageMaker's names, which stay as they are."""
    result = {"HF_MODEL_ID": MODEL, "SAGEMAKER_BIND_TO_PORT": PORT, "PENSTOCK_SERVER_VERSION": VERSION}
    result = {name: environ.get(name) or value for name, value in result.items()}
    for flag in FLAGS:
        value = given.get(flag.name.replace("-", "_"))
        # HOSTNAME is a shell's and a container's own; the original binds to it by mistake.
        if value is None and flag.name != "hostname":
            value = environ.get(flag.variable)
        if value is not None and flag.becomes:
            result[flag.becomes] = str(value)
    return result


def ignored(given: Mapping[str, object]) -> list[str]:
    """The flags on the command line that have no meaning here."""
    return [flag.name for flag in FLAGS if not flag.becomes and given.get(flag.name.replace("-", "_")) is not None]


def runtime(environ: Mapping[str, str]) -> str:
    """What `--env` prints: the level, the machine, and the settings that the environment holds."""
    uname = os.uname()
    lines = ["Runtime environment:", f"Target: {uname.machine}-{uname.sysname.lower()}", f"Version: {VERSION}"]
    secret = {"API_KEY", "NGROK_AUTHTOKEN"}
    for flag in FLAGS:
        if flag.variable in environ and flag.name != "hostname":
            lines.append(f"{flag.variable}: {'<hidden>' if flag.variable in secret else environ[flag.variable]}")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
