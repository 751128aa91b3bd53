"""A small server round the control plane's services, for tests that need real sockets and no gateway.

It stands in for the gateway in one thing only: it believes every signature, and puts who signed into the headers of `routes.py`.
"""

from __future__ import annotations

import asyncio
import datetime as dt
import ipaddress
import re
import socket
import threading
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import uvicorn
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from starlette.datastructures import MutableHeaders
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send

from penstock import routes
from tests.waiting import until

ACCOUNT = "123456789012"
OTHER_ACCOUNT = "210987654321"
SECRET = "penstock-test-secret"
Handler = Callable[[Request], Awaitable[Response]]
_SCOPE = re.compile(r"Credential=([^/]+)/\d{8}/([^/]+)/([^/]+)/aws4_request")


def secret_of(access_key: str) -> str | None:
    return SECRET if access_key.startswith("AKIA") else None


def application(services: Mapping[str, Handler]) -> ASGIApp:
    """Routes by the service in the signature's scope; an access key that ends in OTHER is another account's."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        request = Request(scope, receive)
        signed = request.headers.get("authorization") or request.query_params.get("X-Amz-Credential", "")
        match = _SCOPE.search(signed if "Credential=" in signed else f"Credential={signed}")
        key, region, service = match.groups() if match else ("AKIATEST", "us-east-1", "s3")
        account = OTHER_ACCOUNT if key.endswith("OTHER") else ACCOUNT
        headers = MutableHeaders(scope=scope)
        headers[routes.HEADER_ACCESS_KEY] = key
        headers[routes.HEADER_ACCOUNT] = account
        headers[routes.HEADER_REGION] = region
        headers[routes.HEADER_SERVICE] = service
        headers[routes.HEADER_CALLER_ARN] = f"arn:aws:sts::{account}:assumed-role/PenstockExecutionRole/penstock"
        headers[routes.HEADER_REQUEST_ID] = "00000000-0000-0000-0000-00000000cafe"
        response = await services[service](Request(scope, receive))
        await response(scope, receive, send)

    return app


@contextmanager
def serve(app: ASGIApp, *, tls: tuple[Path, Path] | None = None) -> Iterator[int]:
    """The port of a running server; `tls` is certificate and key."""
    config = uvicorn.Config(
        app,
        log_level="critical",
        lifespan="off",
        ssl_certfile=tls[0] if tls else None,
        ssl_keyfile=tls[1] if tls else None,
    )
    server = uvicorn.Server(config)

    def abort() -> None:
        """TLS connections that clients keep open would hold the server up."""
        for connection in list(server.server_state.connections):
            if connection.transport is not None:
                connection.transport.abort()
        server.should_exit = True

    async def run() -> None:
        loops.append(asyncio.get_running_loop())
        await server.serve([listener])

    loops: list[asyncio.AbstractEventLoop] = []
    with socket.create_server(("127.0.0.1", 0), backlog=128) as listener:
        thread = threading.Thread(target=lambda: asyncio.run(run()))
        thread.start()
        try:
            yield listener.getsockname()[1]
        finally:
            until(lambda: loops)
            loops[0].call_soon_threadsafe(abort)
            thread.join(10)
            assert not thread.is_alive()


def certificate(directory: Path) -> tuple[Path, Path]:
    """A certificate for 127.0.0.1 and localhost that is its own CA, and its key."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "penstock test")])
    names = [
        x509.DNSName("localhost"),
        x509.DNSName("*.s3.localhost"),
        x509.IPAddress(ipaddress.ip_address("127.0.0.1")),
    ]
    now = dt.datetime.now(dt.UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - dt.timedelta(days=1))
        .not_valid_after(now + dt.timedelta(days=1))
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
        .sign(key, hashes.SHA256())
    )
    paths = directory / "cert.pem", directory / "key.pem"
    paths[0].write_bytes(made.public_bytes(serialization.Encoding.PEM))
    private = serialization.PrivateFormat.PKCS8
    paths[1].write_bytes(key.private_bytes(serialization.Encoding.PEM, private, serialization.NoEncryption()))
    return paths
