"""What every built-in model server shares: the contract of a replica, seen from inside.

Owns the reading of the environment that a placement gives (docs/containers.md), the last words of a server that gives up, and serving
until SIGTERM. It must never know what a particular server serves, nor who started it.
"""

from __future__ import annotations

import logging
import os
import signal
import socket
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, NoReturn

CONTAINER_MODEL_DIR = "/opt/ml/model"
"""Where a container finds its model (AWS: "Use Your Own Inference Code with Hosting Services")."""

DRAIN_S = 25.0
"""How long requests in flight may go on after SIGTERM: less than the 30 s after which SIGKILL comes."""

REASON_BYTES = 4096
"""The longest termination message that is kept."""


@dataclass(frozen=True, slots=True)
class Contract:
    """What a replica is told by its environment. `model_dir` is what the rest of the world calls `/opt/ml/model`."""

    host: str = "127.0.0.1"
    port: int = 8080
    model_dir: Path = Path(CONTAINER_MODEL_DIR)
    models: Path | None = None
    """`Paths.models` of the Penstock home: aliases, downloads and conversions. None where there is no home."""
    version: str = ""
    """The version that the image's tag asks for ("0.23.0", "1.0.3"); empty is the server's default."""
    image_uri: str = ""
    termination_log: Path | None = None
    multi_model: bool = False
    """Whether models come one by one, through `/models` (AWS: "Custom Containers Contract for Multi-Model Endpoints")."""

    def path(self, text: str) -> Path:
        """The path of this machine that `text` means: below `/opt/ml/model` it is moved into `model_dir`, else taken as it is."""
        given = PurePosixPath(text)
        if given.is_relative_to(CONTAINER_MODEL_DIR):
            return self.model_dir / given.relative_to(CONTAINER_MODEL_DIR)
        return Path(text)


def read_contract(environ: Mapping[str, str] | None = None) -> Contract:
    """The contract from the environment. Raises ValueError, naming the variable, on a port that is none."""
    environ = os.environ if environ is None else environ
    text = environ.get("SAGEMAKER_BIND_TO_PORT") or "8080"
    if not text.isdecimal() or not 0 < int(text) < 65536:
        raise ValueError(f"SAGEMAKER_BIND_TO_PORT must be a port, not {text!r}")
    models, log = environ.get("PENSTOCK_MODELS"), environ.get("PENSTOCK_TERMINATION_LOG")
    return Contract(
        host=environ.get("PENSTOCK_BIND_HOST") or "127.0.0.1",
        port=int(text),
        model_dir=Path(environ.get("PENSTOCK_MODEL_DIR") or CONTAINER_MODEL_DIR),
        models=Path(models) if models else None,
        version=environ.get("PENSTOCK_SERVER_VERSION", ""),
        image_uri=environ.get("PENSTOCK_IMAGE_URI", ""),
        termination_log=Path(log) if log else None,
        multi_model=environ.get("SAGEMAKER_MULTI_MODEL", "").lower() == "true",
    )


def fail(reason: str, *, contract: Contract | None = None, code: int = 1) -> NoReturn:
    """Give up: write `reason` to the termination log and to stderr, then raise SystemExit(`code`).

    The reason becomes part of the endpoint's FailureReason: one or two sentences for the user, saying what to do. Call it in the
    main thread, where SystemExit ends the process. It is made one line: what a setting or a library brings along may have several.
    """
    reason = " ".join(line.strip() for line in reason.splitlines() if line.strip())
    log = (contract or read_contract()).termination_log
    if log is not None:
        try:
            log.write_bytes(reason.encode()[:REASON_BYTES])
        except OSError as error:
            print(f"cannot write {log}: {error}", file=sys.stderr, flush=True)
    print(reason, file=sys.stderr, flush=True)
    raise SystemExit(code)


def log_to_stdout(level: int = logging.INFO) -> None:
    """Send the log to stdout, one line a record, as a container does. The log store adds the time, so the line has none."""
    logging.basicConfig(level=level, stream=sys.stdout, format="%(levelname)-5s %(name)s %(message)s", force=True)


def listen(contract: Contract) -> socket.socket:
    """The bound socket of `$SAGEMAKER_BIND_TO_PORT`; where it is taken, the server fails with that reason."""
    family = socket.AF_INET6 if ":" in contract.host else socket.AF_INET
    sock = socket.socket(family, socket.SOCK_STREAM)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        sock.bind((contract.host, contract.port))
    except OSError as error:
        sock.close()
        fail(f"Cannot listen on {contract.host}:{contract.port}: {error.strerror}.", contract=contract)
    return sock


def serve(app: Any, contract: Contract, *, drain_s: float = DRAIN_S) -> None:
    """Serve an ASGI application until SIGTERM or SIGINT; requests in flight then have `drain_s` seconds to end.

    Blocks; call it in the main thread, once the model is ready or loads in the background (`/ping` must not answer 200 before).
    The application's lifespan runs; an error in its start-up ends the process with status 3.
    """
    import uvicorn  # not every server serves by it, and importing it takes longer than starting some

    config = uvicorn.Config(
        app,
        loop="uvloop",
        http="httptools",
        lifespan="on",
        ws="none",
        log_config=None,
        access_log=False,
        server_header=False,
        date_header=False,
        proxy_headers=False,
        timeout_keep_alive=3600,
        timeout_graceful_shutdown=max(1, int(drain_s)),
    )
    server = uvicorn.Server(config)
    sock = listen(contract)
    # uvicorn raises the signal again once it has stopped; with a handler in place that ends nothing, so exit handlers still run.
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: None)
    server.run(sockets=[sock])
    if not server.started:
        raise SystemExit(3)
