"""`penstock up`, `penstock reload` and `penstock down`: start, renew and stop the one process tree.

`up` prepares what must exist before anything runs (the home, its lock, the root key, certificates, bound ports), then becomes the
control process, so that nothing of the CLI stays in memory. The lock and the listening sockets pass through the exec.
"""

from __future__ import annotations

import base64
import fcntl
import json
import os
import secrets
import signal
import socket
import subprocess
import sys
import time
from dataclasses import fields
from pathlib import Path
from typing import Annotated, NoReturn

import typer

from penstock.cli.app import Home, app, err, fail
from penstock.cli.server import alive, find, running, settings
from penstock.config import Paths, Settings


@app.command()
def up(
    home: Home = None,
    host: Annotated[str | None, typer.Option(help="Address to bind.", show_default="127.0.0.1")] = None,
    port: Annotated[int | None, typer.Option(help="HTTPS port, 0 for a free one.", show_default="8443")] = None,
    http: Annotated[int | None, typer.Option(help="Serve plain HTTP too, on this port.")] = None,
    proxy_port: Annotated[int | None, typer.Option(help="Port of the CONNECT proxy.", show_default="8480")] = None,
    workers: Annotated[int | None, typer.Option(help="Gateway processes.", show_default="1")] = None,
    detach: Annotated[bool, typer.Option("--detach", "-d", help="Return when it is ready; it runs on.")] = False,
) -> None:
    """Start Penstock: gateway and control plane, TLS on 127.0.0.1:8443."""
    known = settings(home, host=host, port=port, http_port=http, proxy_port=proxy_port, workers=workers)
    if detach:
        start_detached(known)
        return
    try:
        os.set_inheritable(prepare_home(known), True)
    except OSError as error:
        fail(f"cannot use {known.home} as home: {error.strerror}")
    become_control(known, listen(known))


def prepare_home(known: Settings) -> int:
    """Make the home's directories, take its lock, create root key and certificates. Returns the lock's descriptor."""
    from penstock.gateway.tls import ensure_certificates

    paths = known.paths
    for directory in (paths.home, paths.buckets, paths.models, paths.replicas, paths.logs, paths.tls, paths.run):
        directory.mkdir(parents=True, exist_ok=True, mode=0o700)
    lock = os.open(paths.lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    take(lock, paths)
    os.ftruncate(lock, 0)
    os.write(lock, str(os.getpid()).encode())
    paths.server_state.unlink(missing_ok=True)
    ensure_credentials(paths)
    ensure_certificates(paths)
    return lock


def take(lock: int, paths: Paths, *, patience_s: float = 5.0) -> None:
    """Take the home's lock, or end the verb.

    After a SIGKILL the lock may outlive its owner for a moment: a child that was forked and had not yet begun its program holds it too.
    """
    end = time.monotonic() + patience_s
    while True:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return
        except BlockingIOError:
            holder = os.pread(lock, 32, 0).decode(errors="replace").strip()
        if not holder.isdigit() or alive(int(holder)) or time.monotonic() > end:
            fail(
                f"another penstock (pid {holder or 'unknown'}) runs on {paths.home}; "
                "stop it with: penstock down, or use --home"
            )
        time.sleep(0.02)


def ensure_credentials(paths: Paths) -> None:
    """Write the root key once: 0600, whole or not at all."""
    if paths.credentials.exists():
        return
    key = "AKIA" + base64.b32encode(secrets.token_bytes(10)).decode()
    text = f"[default]\naws_access_key_id = {key}\naws_secret_access_key = {secrets.token_urlsafe(30)}\n"
    draft = paths.credentials.with_suffix(f".{os.getpid()}")
    try:
        descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "w") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        os.replace(draft, paths.credentials)
    finally:
        draft.unlink(missing_ok=True)


def listen(known: Settings) -> dict[str, socket.socket]:
    """Bind every door now, so that a port already taken is one plain line and nothing was started."""
    doors = {"https": (known.port, "--port"), "proxy": (known.proxy_port, "--proxy-port")}
    if known.http_port is not None:
        doors["http"] = (known.http_port, "--http")
    bound: dict[str, socket.socket] = {}
    for door, (port, option) in doors.items():
        family = socket.AF_INET6 if ":" in known.host else socket.AF_INET
        listener = socket.socket(family, socket.SOCK_STREAM)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind((known.host, port))
        except (OSError, OverflowError) as error:
            reason = error.strerror if isinstance(error, OSError) else "not a port"
            fail(f"cannot listen on {known.host}:{port}: {reason}; choose another with {option}")
        listener.listen(4096)
        listener.set_inheritable(True)
        bound[door] = listener
    return bound


def become_control(known: Settings, doors: dict[str, socket.socket]) -> NoReturn:
    """Exec the control process. It reads the settings from the environment."""
    for f in fields(Settings):
        value = getattr(known, f.name)
        if f.name != "limits" and value is not None:
            os.environ[f"PENSTOCK_{f.name.upper()}"] = str(value)
    command = [sys.executable, "-m", "penstock.control", "--home", str(known.home)]
    for door, listener in doors.items():
        command += [f"--{door}-fd", str(listener.fileno())]
    os.execv(sys.executable, command)


def start_detached(known: Settings, *, deadline_s: float = 30.0) -> None:
    """Start `penstock up` in the background and wait until it is ready. Its output goes to `logs/penstock.log`."""
    if (server := find(known.home)) is not None:
        fail(f"another penstock (pid {server.pid}) runs on {known.home}")
    known.paths.logs.mkdir(parents=True, exist_ok=True, mode=0o700)
    log = known.paths.logs / "penstock.log"
    with log.open("ab") as output:
        child = subprocess.Popen(
            up_command(known), stdin=subprocess.DEVNULL, stdout=output, stderr=output, start_new_session=True
        )
    wait_ready(known, child, log, deadline_s=deadline_s)
    err.print(f"penstock runs on https://{known.host}:{running(known.home).https} (pid {child.pid}); its log: {log}")


def up_command(known: Settings) -> list[str]:
    """The command line that starts a server with these settings in another process."""
    command = [sys.executable, "-m", "penstock.cli.main", "up", "--home", str(known.home), "--host", known.host]
    command += ["--port", str(known.port), "--proxy-port", str(known.proxy_port), "--workers", str(known.workers)]
    return command + (["--http", str(known.http_port)] if known.http_port is not None else [])


def wait_ready(known: Settings, child: subprocess.Popen[bytes], log: Path, *, deadline_s: float = 30.0) -> None:
    """Return when the child serves. Otherwise the verb ends with the last line that the child wrote."""
    end = time.monotonic() + deadline_s
    while time.monotonic() < end:
        if child.poll() is not None:
            last = (log.read_text(errors="replace").strip().splitlines() or ["no output"])[-1]
            fail(last.removeprefix("penstock: "))
        try:
            if json.loads(known.paths.server_state.read_text())["pid"] == child.pid:
                return
        except (FileNotFoundError, ValueError):
            pass
        time.sleep(0.02)
    child.terminate()
    fail(f"not ready after {deadline_s:.0f} s; see {log}")


@app.command()
def down(home: Home = None) -> None:
    """Stop the running server: open streams may finish, then its replicas go."""
    server = running(home)
    stop(server.pid)
    err.print(f"stopped (pid {server.pid})")


@app.command()
def reload(home: Home = None) -> None:
    """Put new gateway workers in the old ones' places, one by one, without losing a request; they show a renewed certificate."""
    from penstock.gateway.tls import ensure_certificates

    server = running(home)
    paths = server.settings.paths
    ensure_certificates(paths)
    before = reloads(paths)[0]
    os.kill(server.pid, signal.SIGUSR2)
    while reloads(paths)[0] == before:
        if not alive(server.pid):
            fail("the server ended")
        time.sleep(0.05)
    if failed := reloads(paths)[1]:
        fail(failed)
    err.print(f"reloaded (pid {server.pid}); the old workers end with their last request")


def reloads(paths: Paths) -> tuple[int, str]:
    """How often the running server has been reloaded, and why not the last time; nothing of a server that is gone."""
    try:
        state = json.loads(paths.server_state.read_text())
    except FileNotFoundError:
        return 0, ""
    return int(state.get("reloads", 0)), str(state.get("reload_failed", ""))


def stop(pid: int, child: subprocess.Popen[bytes] | None = None, *, deadline_s: float = 90.0) -> None:
    """SIGTERM and wait; SIGKILL when the deadline has passed. `child` is the process where it is our own, to be reaped."""
    if alive(pid):
        os.kill(pid, signal.SIGTERM)
    end = time.monotonic() + deadline_s
    while (child.poll() is None) if child else alive(pid):
        if time.monotonic() > end:
            os.kill(pid, signal.SIGKILL)
            end += deadline_s
        time.sleep(0.02)
