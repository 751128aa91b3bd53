"""The certificates: made once, renewed in time, and accepted by the programs that meet them."""

from __future__ import annotations

import multiprocessing
import os
import shutil
import socket
import ssl
import stat
import subprocess
import threading
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509

from penstock.config import Paths
from penstock.gateway.tls import LEAF_DAYS, RENEW_DAYS, ensure_certificates, server_names


@pytest.fixture
def paths(tmp_path: Path) -> Paths:
    paths = Paths(tmp_path)
    ensure_certificates(paths)
    return paths


def contents(paths: Paths) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in paths.tls.iterdir() if path.name != ".lock"}


def test_keys_are_private_and_nothing_else_lies_about(paths: Paths) -> None:
    assert set(contents(paths)) == {"ca.pem", "ca.key", "server.pem", "server.key", "bundle.pem"}
    assert stat.S_IMODE(paths.tls.stat().st_mode) == 0o700
    for name in ("ca.key", "server.key"):
        assert stat.S_IMODE((paths.tls / name).stat().st_mode) == 0o600


def test_a_second_call_changes_nothing(paths: Paths) -> None:
    before = contents(paths)
    ensure_certificates(paths)
    assert contents(paths) == before


def test_a_leaf_near_its_end_is_renewed_and_the_ca_stays(paths: Paths) -> None:
    before = contents(paths)
    ensure_certificates(paths, now=datetime.now(UTC) + timedelta(days=LEAF_DAYS - RENEW_DAYS + 1))
    after = contents(paths)
    assert after["server.pem"] != before["server.pem"]
    assert after["ca.pem"] == before["ca.pem"]


@pytest.mark.parametrize("damaged", ["server.pem", "server.key", "ca.pem", "ca.key"])
def test_damage_is_repaired(paths: Paths, damaged: str) -> None:
    (paths.tls / damaged).write_bytes(b"-----BEGIN nonsense")
    ensure_certificates(paths)
    context = ssl.create_default_context(cafile=paths.ca_certificate)
    context.load_cert_chain(paths.server_certificate, paths.server_key)
    ca = x509.load_pem_x509_certificate(paths.ca_certificate.read_bytes())
    x509.load_pem_x509_certificate(paths.server_certificate.read_bytes()).verify_directly_issued_by(ca)


def test_a_key_open_to_others_is_closed(paths: Paths) -> None:
    paths.server_key.chmod(0o644)
    ensure_certificates(paths)
    assert stat.S_IMODE(paths.server_key.stat().st_mode) == 0o600


def _ensure(home: str) -> None:
    ensure_certificates(Paths(Path(home)))


def test_many_processes_at_once_make_one_ca(tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    processes = [context.Process(target=_ensure, args=(str(tmp_path),)) for _ in range(3)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(60)
        assert process.exitcode == 0
    paths = Paths(tmp_path)
    ca = x509.load_pem_x509_certificate(paths.ca_certificate.read_bytes())
    x509.load_pem_x509_certificate(paths.server_certificate.read_bytes()).verify_directly_issued_by(ca)


def test_the_bundle_has_the_system_s_cas_and_ours(paths: Paths) -> None:
    bundle = paths.ca_bundle.read_bytes()
    assert bundle.endswith(paths.ca_certificate.read_bytes())
    assert bundle.count(b"BEGIN CERTIFICATE") > 50


def test_the_ca_vouches_for_this_machine_and_amazon_alone(paths: Paths) -> None:
    ca = x509.load_pem_x509_certificate(paths.ca_certificate.read_bytes())
    constraints = ca.extensions.get_extension_for_class(x509.NameConstraints)
    assert constraints.critical
    permitted = {str(name.value) for name in constraints.value.permitted_subtrees or []}
    assert permitted == {"localhost", "amazonaws.com", "amazonaws.com.cn", "127.0.0.0/8", "::1/128"}


def test_names_cover_every_region() -> None:
    names = server_names()
    for name in (
        "*.s3.eu-west-3.amazonaws.com",
        "*.sagemaker.us-gov-west-1.amazonaws.com",
        "*.cn-north-1.amazonaws.com.cn",
    ):
        assert name in names
    assert len(names) == len(set(names))


@pytest.fixture
def server(paths: Paths) -> Iterator[int]:
    """A TLS server with the gateway's certificate; its port."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(paths.server_certificate, paths.server_key)
    listening = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        while True:
            try:
                sock = listening.accept()[0]
            except OSError:
                return
            try:
                with context.wrap_socket(sock, server_side=True) as tls:
                    tls.recv(4096)
                    tls.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok")
            except OSError:
                continue

    thread = threading.Thread(target=serve)
    thread.start()
    yield listening.getsockname()[1]
    listening.shutdown(socket.SHUT_RDWR)
    listening.close()
    thread.join(10)


HOSTS = [
    "localhost",
    "bucket.s3.localhost",
    "127.0.0.1",
    "sts.amazonaws.com",
    "iam.amazonaws.com",
    "sts.eu-west-3.amazonaws.com",
    "runtime.sagemaker.us-east-1.amazonaws.com",
    "api.sagemaker.cn-north-1.amazonaws.com.cn",
    "bucket.s3.us-west-2.amazonaws.com",
    "bucket.s3.amazonaws.com",
    "logs.ap-south-1.amazonaws.com",
]


@pytest.mark.parametrize("host", HOSTS)
def test_openssl_accepts_every_host_that_we_serve(paths: Paths, server: int, host: str) -> None:
    context = ssl.create_default_context(cafile=paths.ca_certificate)
    context.verify_flags |= ssl.VERIFY_X509_STRICT
    with (
        socket.create_connection(("127.0.0.1", server), timeout=10) as sock,
        context.wrap_socket(sock, server_hostname=host) as tls,
    ):
        assert tls.version() == "TLSv1.3"
        tls.sendall(b"x")


@pytest.mark.parametrize("host", ["example.org", "a.b.localhost", "amazonaws.com.example.org", "127.0.0.2"])
def test_other_hosts_are_not_covered(paths: Paths, server: int, host: str) -> None:
    context = ssl.create_default_context(cafile=paths.ca_certificate)
    with (
        socket.create_connection(("127.0.0.1", server), timeout=10) as sock,
        pytest.raises(ssl.SSLCertVerificationError),
    ):
        context.wrap_socket(sock, server_hostname=host)


@pytest.mark.skipif(shutil.which("node") is None, reason="no node on this machine")
def test_node_accepts_it(paths: Paths, server: int) -> None:
    program = (
        f"require('https').get({{host: '127.0.0.1', port: {server}, servername: 'sts.eu-west-3.amazonaws.com',"
        " headers: {host: 'sts.eu-west-3.amazonaws.com'}}, r => console.log(r.statusCode))"
    )
    environ = {**os.environ, "NODE_EXTRA_CA_CERTS": str(paths.ca_certificate)}
    done = subprocess.run(["node", "-e", program], env=environ, capture_output=True, text=True, timeout=30)
    assert done.stdout.strip() == "200", done.stderr
