"""The systems that the relay's benchmark compares: Penstock's gateway, nginx, haproxy, Starlette with httpx, the LiteLLM proxy.

Owns starting each as its own pages advise for streams, and where it may run. It must never measure.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType

from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials

from penstock.config import Paths, socket_address
from penstock.gateway.tls import ensure_certificates
from penstock.routes import AccessKey, Endpoint, Replica, RoutingTable, Variant, decode_event, encode_line

ACCOUNT, REGION = "123456789012", "us-east-1"
KEY = AccessKey("AKIDBENCH", "bench-secret", ACCOUNT, f"arn:aws:sts::{ACCOUNT}:assumed-role/R/bench")
START_S = 120.0
LITELLM_KEY = f"sk-{secrets.token_hex(32)}"
"""The proxy does not start without a key of its own."""


class Absent(Exception):
    """A peer that this machine cannot run, and why."""


@dataclass(frozen=True, slots=True)
class System:
    """Something that relays: what it listens on, and the processes whose CPU time counts."""

    name: str
    ports: dict[str, int]
    pids: tuple[int, ...] = field(default=())

    @property
    def memory_kib(self) -> int:
        """Proportional resident memory of all its processes."""
        return sum(
            int(line.split()[1])
            for pid in self.pids
            for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
            if line.startswith("Pss:")
        )


def pin(pid: int, cores: set[int]) -> None:
    """All threads of a process to these cores."""
    for task in os.listdir(f"/proc/{pid}/task"):
        os.sched_setaffinity(int(task), cores)


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as sock:
        port: int = sock.getsockname()[1]
        return port


def _until_listening(child: subprocess.Popen[bytes], port: int, what: str) -> None:
    end = time.monotonic() + START_S
    while time.monotonic() < end:
        if child.poll() is not None:
            raise Absent(f"{what} ended with {child.returncode}")
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
            return
        time.sleep(0.05)
    raise Absent(f"{what} did not listen within {START_S:g} s")


@contextlib.contextmanager
def _running(command: Sequence[str], port: int, what: str, directory: Path, **environ: str) -> Iterator[int]:
    """The process's id while it runs. Raises Absent when it does not come up."""
    with (directory / f"{what}.log").open("ab") as log:
        child = subprocess.Popen(command, stdout=log, stderr=log, cwd=directory, env={**os.environ, **environ})
    try:
        _until_listening(child, port, what)
        yield child.pid
    finally:
        child.send_signal(signal.SIGTERM)
        try:
            child.wait(5)
        except subprocess.TimeoutExpired:
            child.kill()
            child.wait(5)


def _binary(name: str) -> str:
    found = shutil.which(name) or shutil.which(name, path="/usr/sbin:/usr/local/sbin")
    if found is None:
        raise Absent(f"{name} is not installed (Debian: apt-get install {name})")
    return found


def _child(pid: int) -> int:
    """The one worker of a process that only minds it."""
    end = time.monotonic() + 5
    while time.monotonic() < end:
        if found := Path(f"/proc/{pid}/task/{pid}/children").read_text().split():
            return int(found[0])
        time.sleep(0.02)
    raise Absent("no worker process came up")


@contextlib.contextmanager
def nginx(upstream: int, directory: Path, paths: Paths) -> Iterator[System]:
    """One worker, `proxy_buffering off`, kept-alive connections on both sides, no logs: raw bytes, the practical limit."""
    port, tls = free_port(), free_port()
    temporary = "\n".join(
        f"{kind}_temp_path {directory}/nginx-{kind};" for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    )
    (
        directory / "nginx.conf"
    ).write_text(f"""daemon off; worker_processes 1; pid {directory}/nginx.pid; error_log {directory}/nginx.err;
events {{ worker_connections 8192; }}
http {{
  access_log off; keepalive_requests 1000000; tcp_nodelay on; {temporary}
  upstream container {{ server 127.0.0.1:{upstream}; keepalive 4096; keepalive_requests 1000000; }}
  server {{
    listen 127.0.0.1:{port} backlog=4096; listen 127.0.0.1:{tls} ssl;
    ssl_certificate {paths.server_certificate}; ssl_certificate_key {paths.server_key};
    location / {{
      proxy_pass http://container/invocations; proxy_http_version 1.1; proxy_set_header Connection ""; proxy_buffering off;
    }}
  }}
}}
""")
    command = [
        _binary("nginx"),
        "-c",
        str(directory / "nginx.conf"),
        "-p",
        str(directory),
        "-e",
        f"{directory}/nginx.err",
    ]
    with _running(command, port, "nginx", directory) as pid:
        yield System("nginx", {"http": port, "https": tls}, (_child(pid),))


@contextlib.contextmanager
def haproxy(upstream: int, directory: Path) -> Iterator[System]:
    """One thread, HTTP mode, connections to the server kept and shared."""
    port = free_port()
    (directory / "haproxy.cfg").write_text(f"""global
  nbthread 1
  maxconn 8192
defaults
  mode http
  timeout connect 5s
  timeout client 600s
  timeout server 600s
  option http-no-delay
  http-reuse always
frontend all
  bind 127.0.0.1:{port} backlog 4096
  default_backend container
backend container
  server one 127.0.0.1:{upstream} pool-max-conn 4096
""")
    with _running([_binary("haproxy"), "-db", "-f", str(directory / "haproxy.cfg")], port, "haproxy", directory) as pid:
        yield System("haproxy", {"http": port}, (pid,))


@contextlib.contextmanager
def starlette(upstream: int, directory: Path) -> Iterator[System]:
    """uvicorn, Starlette and httpx: `relay_starlette.py`."""
    port = free_port()
    command = [sys.executable, "-m", "penstock.bench.relay_starlette", str(port), str(upstream)]
    try:
        import httpx  # noqa: F401
    except ImportError:
        raise Absent("httpx is not installed (the extra dev has it)") from None
    source = str(Path(__file__).parents[2])
    with _running(command, port, "starlette", directory, PYTHONPATH=source) as pid:
        yield System("starlette", {"http": port}, (pid,))


@contextlib.contextmanager
def litellm(upstream: int, directory: Path, environment: Path) -> Iterator[System]:
    """The LiteLLM proxy as its pages start it, one worker, one model behind an OpenAI-compatible server."""
    if not (environment / "bin" / "litellm").exists():
        _install_litellm(environment)
    port = free_port()
    (directory / "litellm.yaml").write_text(
        "model_list:\n  - model_name: m\n    litellm_params:\n      model: openai/m\n"
        f"      api_base: http://127.0.0.1:{upstream}/v1\n      api_key: none\n"
        "litellm_settings:\n  telemetry: false\n"
    )
    command = [str(environment / "bin" / "litellm"), "--config", str(directory / "litellm.yaml"), "--host", "127.0.0.1"]
    command += ["--port", str(port)]
    quiet = {
        "LITELLM_LOCAL_MODEL_COST_MAP": "True",
        "LITELLM_LOG": "ERROR",
        "LITELLM_MASTER_KEY": LITELLM_KEY,
        "PYTHONPATH": "",
    }
    with _running(command, port, "litellm", directory, **quiet) as pid:
        yield System("litellm", {"http": port}, (pid,))


def _install_litellm(environment: Path) -> None:
    print(
        f"litellm: installing litellm[proxy] into {environment}, about 750 MB (PENSTOCK_BENCH_LITELLM=0 skips it)",
        flush=True,
    )
    pip = [str(environment / "bin" / "python"), "-m", "pip", "install", "--quiet", "litellm[proxy]"]
    try:
        subprocess.run([sys.executable, "-m", "venv", str(environment)], check=True, stdout=sys.stderr)
        subprocess.run(pip, check=True, stdout=sys.stderr, timeout=600)
    except (OSError, subprocess.SubprocessError) as error:
        raise Absent(f"litellm cannot be installed: {error}") from None


class _Table:
    """Stands in for the control process: hands each worker the routing table and hears when it is ready."""

    def __init__(self, paths: Paths, table: RoutingTable, workers: int) -> None:
        self._line = encode_line(table)
        self.ports: dict[str, int] = {}
        self._server = socket.socket(socket.AF_UNIX)
        self._server.bind(socket_address(paths.table_socket))
        self._server.listen()
        self._open: list[socket.socket] = []
        self._ready = threading.Semaphore(0)
        self._workers = workers
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):  # until `close`
            for _ in range(self._workers):
                sock, _address = self._server.accept()
                self._open.append(sock)
                sock.sendall(self._line)
                threading.Thread(target=self._hear, args=(sock,), daemon=True).start()

    def _hear(self, sock: socket.socket) -> None:
        with sock.makefile("rb") as lines:
            for line in lines:
                event = decode_event(line)
                if event.kind == "ready":
                    self.ports = event.ports
                    self._ready.release()

    def wait(self) -> None:
        for _ in range(self._workers):
            if not self._ready.acquire(timeout=30):
                raise TimeoutError("a gateway worker was not ready within 30 s")

    def close(self) -> None:
        self._server.close()
        for sock in self._open:
            sock.close()


@contextlib.contextmanager
def gateway(
    upstream: int,
    directory: Path,
    *,
    workers: int = 1,
    endpoints: int = 1,
    faults: Mapping[int, str] = MappingProxyType({}),
    module: str = "penstock.gateway",
) -> Iterator[System]:
    """Penstock's gateway as `penstock up` starts it, with as many endpoints, each with one replica at `upstream`.

    `faults` are endpoints' fault plans by number; `module` is what is started in place of the gateway's own.
    """
    paths = Paths(directory / f"home-{workers}-{endpoints}")
    for directory in (paths.run, paths.logs):
        directory.mkdir(parents=True)
    ensure_certificates(paths)
    table = _Table(
        paths,
        RoutingTable(1, tuple(_endpoint(n, upstream, faults.get(n, "")) for n in range(endpoints)), (KEY,)),
        workers,
    )
    sockets = {name: socket.create_server(("127.0.0.1", 0), backlog=4096) for name in ("https", "proxy", "http")}
    arguments = [sys.executable, "-m", module, "--home", str(paths.home)]
    for name, sock in sockets.items():
        arguments += [f"--{name}-fd", str(sock.fileno())]
    environ = {**os.environ, "PENSTOCK_WORKERS": str(workers), "PYTHONPATH": str(Path(__file__).parents[2])}
    children = [
        subprocess.Popen(
            [*arguments, "--worker", str(number)], pass_fds=[sock.fileno() for sock in sockets.values()], env=environ
        )
        for number in range(workers)
    ]
    try:
        table.wait()
        yield System("penstock", table.ports, tuple(child.pid for child in children))
    finally:
        for child in children:
            child.kill()
            child.wait(5)
        table.close()
        for sock in sockets.values():
            sock.close()


def _endpoint(number: int, upstream: int, faults: str) -> Endpoint:
    name = f"ep-{number}"
    arn = f"arn:aws:sagemaker:{REGION}:{ACCOUNT}:endpoint/{name}"
    replica = Replica(f"r-{number}", 1, "127.0.0.1", upstream)
    return Endpoint(name, arn, REGION, ACCOUNT, (Variant("AllTraffic", 1.0, (replica,)),), faults=faults)


def signed_requests(operation: str, count: int, endpoints: int = 1) -> list[bytes]:
    """As boto3 sends them, about 1 KB each; request n names itself `ID` and six digits, and goes to endpoint n mod `endpoints`."""
    signer = SigV4Auth(Credentials(KEY.id, KEY.secret), "sagemaker", REGION)
    return [_signed(signer, f"/endpoints/ep-{n % endpoints}/{operation}", _body(n)) for n in range(count)]


def _signed(signer: SigV4Auth, path: str, body: bytes) -> bytes:
    headers = {
        "Content-Type": "application/json",
        "X-Amzn-SageMaker-Accept": "text/event-stream",
        "User-Agent": "Boto3/1.44.5 md/Botocore#1.44.5 ua/2.1 os/linux#6.18 md/arch#x86_64 lang/python#3.11.7 cfg/retry-mode#legacy",
        "amz-sdk-invocation-id": "8d1410de-e16b-45d1-9905-9c81181f9f1e",
        "amz-sdk-request": "attempt=1",
    }
    request = AWSRequest("POST", f"http://localhost{path}", headers, body)
    signer.add_auth(request)
    lines = "".join(f"{name}: {value}\r\n" for name, value in request.headers.items())
    return f"POST {path} HTTP/1.1\r\nHost: localhost\r\n{lines}Content-Length: {len(body)}\r\n\r\n".encode() + body


def _body(number: int) -> bytes:
    return b'{"inputs": "%s", "id": "ID%06d"}' % (b"x" * 200, number)


def chat_requests(count: int) -> list[bytes]:
    """The same for an OpenAI-compatible proxy."""
    bodies = [
        b'{"model":"m","stream":true,"messages":[{"role":"user","content":"%s ID%06d"}]}' % (b"x" * 200, number)
        for number in range(count)
    ]
    lines = ("POST /v1/chat/completions HTTP/1.1", "Host: localhost", f"Authorization: Bearer {LITELLM_KEY}")
    head = "\r\n".join((*lines, "Content-Type: application/json\r\n")).encode()
    return [head + b"Content-Length: %d\r\n\r\n%s" % (len(body), body) for body in bodies]
