"""The local certificate authority and the one certificate that the gateway shows.

Owns the files in `Paths.tls`. It is called by whoever starts the server, never by the running gateway, which only reads the files; no
other module imports `cryptography`. The CA can vouch for this machine and for Amazon's names alone (RFC 5280 §4.2.1.10), so that its
key, if stolen, is of no use for any other site.
"""

from __future__ import annotations

import fcntl
import os
import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from functools import cache
from ipaddress import IPv4Network, IPv6Network, ip_address
from pathlib import Path

from botocore.loaders import Loader
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from penstock.config import Paths

CA_DAYS = 3650
LEAF_DAYS = 397
"""Longest life that every client still accepts of a server's certificate."""
RENEW_DAYS = 30
_SUFFIXES = {"aws": "amazonaws.com", "aws-us-gov": "amazonaws.com", "aws-cn": "amazonaws.com.cn"}


def ensure_certificates(paths: Paths, *, now: datetime | None = None) -> None:
    """Makes the CA, the server's certificate and the bundle where they are missing, near their end, or not what they should be.

    Idempotent, safe beside another process that does the same; keys are 0600 and every file is replaced whole. Raises OSError.
    """
    now = now or datetime.now(UTC)
    paths.tls.mkdir(mode=0o700, parents=True, exist_ok=True)
    with _locked(paths.tls / ".lock"):
        ca, ca_key = _load(paths.ca_certificate, _ca_key(paths))
        if ca is None or ca_key is None or _ends_soon(ca, now):
            ca, ca_key = _make_ca(now)
            _save(ca, ca_key, paths.ca_certificate, _ca_key(paths))
        leaf, _ = _load(paths.server_certificate, paths.server_key)
        if leaf is None or _ends_soon(leaf, now) or not _is_ours(leaf, ca):
            leaf, leaf_key = _make_leaf(ca, ca_key, now)
            _save(leaf, leaf_key, paths.server_certificate, paths.server_key)
        _write_if_changed(paths.ca_bundle, _system_cas() + _pem(ca), 0o644)


def _ca_key(paths: Paths) -> Path:
    return paths.tls / "ca.key"


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def server_names() -> list[str]:
    """Every DNS name of the server's certificate: this machine, and AWS's hosts in all regions that botocore knows.

    A wildcard covers one label, so each depth has its own.
    """
    names = ["localhost", "*.localhost", "*.s3.localhost"]
    for suffix, regions in _regions():
        names += [f"*.{suffix}", f"*.s3.{suffix}"]
        for region in regions:
            base = f"{region}.{suffix}"
            names += [
                f"*.{base}",
                f"*.sagemaker.{base}",
                f"*.s3.{base}",
                f"*.dualstack.{base}",
                f"*.s3.dualstack.{base}",
            ]
    return list(dict.fromkeys(names))


@cache
def _regions() -> tuple[tuple[str, tuple[str, ...]], ...]:
    partitions = Loader().load_data("endpoints")["partitions"]
    known = ((_SUFFIXES.get(one["partition"]), tuple(sorted(one["regions"]))) for one in partitions)
    return tuple((suffix, regions) for suffix, regions in known if suffix)


def _alternatives() -> x509.SubjectAlternativeName:
    addresses = [x509.IPAddress(ip_address(text)) for text in ("127.0.0.1", "::1")]
    return x509.SubjectAlternativeName([*map(x509.DNSName, server_names()), *addresses])


def _make_ca(now: datetime) -> tuple[x509.Certificate, ec.EllipticCurvePrivateKey]:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, f"Penstock local CA {os.urandom(4).hex()}")])
    allowed = [
        x509.DNSName("localhost"),
        *map(x509.DNSName, dict.fromkeys(_SUFFIXES.values())),
        x509.IPAddress(IPv4Network("127.0.0.0/8")),
        x509.IPAddress(IPv6Network("::1/128")),
    ]
    usage = _usage(key_cert_sign=True, crl_sign=True)
    builder = (
        _builder(name, name, key, now, CA_DAYS)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(usage, critical=True)
        .add_extension(x509.NameConstraints(allowed, None), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
    )
    return builder.sign(key, hashes.SHA256()), key


def _make_leaf(
    ca: x509.Certificate, ca_key: ec.EllipticCurvePrivateKey, now: datetime
) -> tuple[x509.Certificate, ec.EllipticCurvePrivateKey]:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "Penstock")])
    builder = (
        _builder(name, ca.subject, key, now, LEAF_DAYS)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_usage(digital_signature=True), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .add_extension(_alternatives(), critical=False)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(ca_key.public_key()), critical=False)
    )
    return builder.sign(ca_key, hashes.SHA256()), key


def _builder(
    subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePrivateKey, now: datetime, days: int
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))  # clocks of clients differ
        .not_valid_after(now + timedelta(days=days - 1))
    )


def _usage(*, digital_signature: bool = False, key_cert_sign: bool = False, crl_sign: bool = False) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=digital_signature,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=key_cert_sign,
        crl_sign=crl_sign,
        encipher_only=False,
        decipher_only=False,
    )


def _ends_soon(certificate: x509.Certificate, now: datetime) -> bool:
    return certificate.not_valid_after_utc - now < timedelta(days=RENEW_DAYS) or certificate.not_valid_before_utc > now


def _is_ours(leaf: x509.Certificate, ca: x509.Certificate) -> bool:
    """Whether the leaf is signed by this CA and names all that it should."""
    try:
        leaf.verify_directly_issued_by(ca)
        names = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except Exception:  # whatever is wrong with it, a new one cures it
        return False
    return names == _alternatives()


def _load(certificate: Path, key: Path) -> tuple[x509.Certificate | None, ec.EllipticCurvePrivateKey | None]:
    """A certificate with its key; (None, None) where either is missing, damaged, or not the other's."""
    try:
        loaded = x509.load_pem_x509_certificate(certificate.read_bytes())
        private = serialization.load_pem_private_key(key.read_bytes(), None)
    except (FileNotFoundError, ValueError, TypeError):
        return None, None
    if not isinstance(private, ec.EllipticCurvePrivateKey) or private.public_key() != loaded.public_key():
        return None, None
    if key.stat().st_mode & 0o077:
        key.chmod(0o600)
    return loaded, private


def _save(certificate: x509.Certificate, key: ec.EllipticCurvePrivateKey, path: Path, key_path: Path) -> None:
    raw = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    _replace(key_path, raw, 0o600)
    _replace(path, _pem(certificate), 0o644)


def _pem(certificate: x509.Certificate) -> bytes:
    return certificate.public_bytes(serialization.Encoding.PEM)


def _system_cas() -> bytes:
    """The CAs that programs on this machine trust already; botocore's own list where the system has none."""
    found = ssl.get_default_verify_paths().cafile
    path = Path(found) if found else Path(str(Loader.BUILTIN_DATA_PATH)).parent / "cacert.pem"
    data = path.read_bytes()
    return data if data.endswith(b"\n") else data + b"\n"


def _write_if_changed(path: Path, data: bytes, mode: int) -> None:
    try:
        if path.read_bytes() == data:
            return
    except FileNotFoundError:
        pass
    _replace(path, data, mode)


def _replace(path: Path, data: bytes, mode: int) -> None:
    """Writes beside and renames, so that a reader sees the old file or the new one."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
