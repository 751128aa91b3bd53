"""One frozen tree of settings.

Owns every setting's name, default and place on disk; the environment and the command line are read here once, at the edge.
It must never do more I/O than that: nothing here creates a directory or opens a port.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Paths:
    """Where things lie below the Penstock home (`--home`, `PENSTOCK_HOME`, default `~/.penstock`)."""

    home: Path

    @property
    def database(self) -> Path:
        return self.home / "penstock.db"

    @property
    def buckets(self) -> Path:
        return self.home / "buckets"

    @property
    def models(self) -> Path:
        """Aliases (`aliases.json`), downloads and conversions of models."""
        return self.home / "models"

    @property
    def replicas(self) -> Path:
        """A private directory per replica: its `/opt/ml/model`, its termination log."""
        return self.home / "replicas"

    @property
    def logs(self) -> Path:
        return self.home / "logs"

    @property
    def tls(self) -> Path:
        return self.home / "tls"

    @property
    def ca_certificate(self) -> Path:
        """The local CA, PEM: what `AWS_CA_BUNDLE` names in `penstock env`."""
        return self.tls / "ca.pem"

    @property
    def ca_bundle(self) -> Path:
        """The system's CAs plus the local one, PEM: for programs that also talk to other hosts (`penstock run`)."""
        return self.tls / "bundle.pem"

    @property
    def server_certificate(self) -> Path:
        return self.tls / "server.pem"

    @property
    def server_key(self) -> Path:
        return self.tls / "server.key"

    @property
    def credentials(self) -> Path:
        """The root access key, an INI file as AWS's CLI reads it, mode 0600."""
        return self.home / "credentials"

    @property
    def asynchronous(self) -> Path:
        """Asynchronous requests that wait for their inference."""
        return self.home / "async"

    @property
    def access_keys(self) -> Path:
        """The keys that `penstock keys` created, JSON, mode 0600."""
        return self.home / "access-keys.json"

    @property
    def roles(self) -> Path:
        """The IAM roles that were created, JSON."""
        return self.home / "roles.json"

    @property
    def run(self) -> Path:
        """Sockets, the lock and the state of the running server; safe to delete when nothing runs."""
        return self.home / "run"

    @property
    def control_socket(self) -> Path:
        """HTTP/1.1 of the control process."""
        return self.run / "control.sock"

    @property
    def table_socket(self) -> Path:
        """Where gateways fetch the routing table: see `routes.py` for the messages."""
        return self.run / "table.sock"

    @property
    def lock(self) -> Path:
        return self.run / "lock"

    @property
    def server_state(self) -> Path:
        """JSON written when ready: pid, ports. Read by the CLI's other verbs."""
        return self.run / "server.json"


@dataclass(frozen=True, slots=True)
class Limits:
    """Bounds of the data plane. Bytes and seconds."""

    body_bytes: int = 25 * 1024 * 1024
    """Largest request body of an invocation (AWS: 25 MB, SageMaker "Model Hosting FAQs")."""
    object_bytes: int = 5 * 1024**3
    """Largest body of one S3 PUT (AWS: 5 GB)."""
    control_body_bytes: int = 8 * 1024 * 1024
    """Largest body of any other control request."""
    header_bytes: int = 64 * 1024
    invocation_timeout_s: float = 60.0
    stream_timeout_s: float = 480.0
    bidirectional_timeout_s: float = 1800.0
    """Longest life of a bidirectional stream (AWS: 30 minutes)."""
    bidirectional_ping_s: float = 60.0
    """How often a bidirectional stream's container is pinged; one that misses five pings in a row is given up (AWS: the same)."""
    bidirectional_frame_bytes: int = 4 * 1024 * 1024
    """Largest part of a bidirectional stream, either way: one PayloadPart, one WebSocket frame."""
    header_timeout_s: float = 20.0
    """How long a client may take over its request's head, and over each further piece of its body."""
    keepalive_timeout_s: float = 75.0
    drain_s: float = 30.0
    clock_skew_s: float = 900.0


@dataclass(frozen=True, slots=True)
class Settings:
    """Everything that a running Penstock was told. Environment names are `PENSTOCK_` plus the field in capitals."""

    home: Path = field(default_factory=lambda: Path.home() / ".penstock")
    host: str = "127.0.0.1"
    port: int = 8443
    """HTTPS. 0 takes a free port."""
    http_port: int | None = None
    proxy_port: int = 8480
    """Plain HTTP proxy for CONNECT. 0 takes a free port."""
    workers: int = 1
    account: str = "123456789012"
    region: str = "us-east-1"
    database_url: str = ""
    """SQLAlchemy URL; empty is SQLite in the home."""
    access_log: str = ""
    """A file for one JSON line a request; empty is `logs/access.jsonl` in the home, `off` is none."""
    instance_limit: int = 64
    """Most instances (replicas) of all endpoints together; AWS's ResourceLimitExceeded beyond it."""
    limits: Limits = field(default_factory=Limits)

    @property
    def paths(self) -> Paths:
        return Paths(self.home)

    @property
    def role_arn(self) -> str:
        """The role whose assumed session GetCallerIdentity shows; the SDKs' `get_execution_role` needs that form."""
        return f"arn:aws:iam::{self.account}:role/PenstockExecutionRole"

    @property
    def role_session(self) -> str:
        """The ARN of the role's sessions, but for a slash and the session's name: an access key's."""
        return f"arn:aws:sts::{self.account}:assumed-role/PenstockExecutionRole"

    @property
    def caller_arn(self) -> str:
        return f"{self.role_session}/penstock"


def load(environ: Mapping[str, str] | None = None, **given: object) -> Settings:
    """Settings from keyword arguments (`None` means not given), then the environment, then defaults.

    Raises ValueError, in one line that names the variable, on a value of the wrong form.
    """
    environ = os.environ if environ is None else environ
    values: dict[str, object] = {}
    for f in fields(Settings):
        if f.name == "limits":
            continue
        name = f"PENSTOCK_{f.name.upper()}"
        value = given.get(f.name)
        if value is None and (text := environ.get(name)):
            value = _parse(name, str(f.type), text)
        if value is not None:
            values[f.name] = value
    limits = {
        f.name: _parse(name, str(f.type), environ[name])
        for f in fields(Limits)
        if environ.get(name := f"PENSTOCK_{f.name.upper()}")
    }
    if "home" in values:
        values["home"] = Path(str(values["home"])).expanduser().absolute()
    return Settings(**values, limits=Limits(**limits))  # type: ignore[arg-type]


def _parse(name: str, kind: str, text: str) -> object:
    try:
        if kind.startswith("int"):
            return int(text)
        if kind == "float":
            return float(text)
    except ValueError:
        raise ValueError(f"{name} must be a number, not {text!r}") from None
    return Path(text) if kind == "Path" else text


def socket_address(path: Path) -> str:
    """The address to bind or connect a unix socket at `path`, however long the path.

    The kernel takes at most 107 bytes. A longer path is reached through an open descriptor of its directory, which is
    kept open for the life of the process: call this once a socket, not once a connection.
    """
    if len(os.fsencode(path)) <= 100:
        return str(path)
    directory = os.open(path.parent, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    return f"/proc/self/fd/{directory}/{path.name}"
