"""The running server, as the other verbs see it.

Owns finding it (`run/server.json`), the environment that points AWS clients at it, and botocore clients for the verbs themselves.
It must never start or stop one: that is `up.py`.
"""

from __future__ import annotations

import configparser
import functools
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from penstock.cli.app import fail
from penstock.config import Paths, Settings, load
from penstock.placement.orphans import started


@dataclass(frozen=True, slots=True)
class Server:
    """A Penstock that runs. Ports are those really bound; `http` is 0 without plain HTTP."""

    settings: Settings
    pid: int
    https: int
    proxy: int
    http: int
    access_key: str
    secret_key: str

    @property
    def url(self) -> str:
        return f"https://{self.settings.host}:{self.https}"


def settings(home: Path | None, **given: object) -> Settings:
    """Settings of the environment and the command line; a wrong value ends the verb."""
    try:
        return load(None, home=home, **given)
    except ValueError as error:
        fail(str(error))


def alive(pid: int) -> bool:
    """Whether the process runs. One that has ended does not, also while its parent (a demo behind its chat page) has not asked for it."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return started(pid) != 0


def credentials(paths: Paths) -> tuple[str, str]:
    """Access key id and secret of the home's root key."""
    file = configparser.ConfigParser(interpolation=None)
    file.read(paths.credentials)
    section = file["default"]
    return section["aws_access_key_id"], section["aws_secret_access_key"]


def find(home: Path | None) -> Server | None:
    """The server that runs on this home, or None."""
    known = settings(home)
    try:
        state = json.loads(known.paths.server_state.read_text())
        key, secret = credentials(known.paths)
    except (FileNotFoundError, ValueError, KeyError):
        return None
    if not alive(state["pid"]):
        return None
    ports = state["ports"]
    return Server(known, state["pid"], ports["https"], ports.get("proxy", 0), ports.get("http", 0), key, secret)


def running(home: Path | None) -> Server:
    """The server that runs on this home; without one the verb ends with the command that starts it."""
    server = find(home)
    if server is None:
        option = f" --home {home}" if home and os.environ.get("PENSTOCK_HOME") != str(home) else ""
        fail(f"nothing runs on {settings(home).home}; start it with: penstock up{option}")
    return server


def environment(server: Server) -> dict[str, str]:
    """The variables that point AWS's SDKs and CLI at the server (`penstock env`)."""
    return {
        "AWS_ENDPOINT_URL": server.url,
        "AWS_CA_BUNDLE": str(server.settings.paths.ca_certificate),
        "AWS_ACCESS_KEY_ID": server.access_key,
        "AWS_SECRET_ACCESS_KEY": server.secret_key,
        "AWS_DEFAULT_REGION": server.settings.region,
        "AWS_REGION": server.settings.region,
    }


UNSET = ("AWS_SESSION_TOKEN", "AWS_PROFILE", "AWS_DEFAULT_PROFILE", "AWS_IGNORE_CONFIGURED_ENDPOINT_URLS")
"""What would make a program sign with another identity or go elsewhere."""


def run_environment(server: Server) -> dict[str, str]:
    """The variables for a program with hard-coded AWS hosts (`penstock run`): the same, the local proxy and a bundle of all CAs.

    The SDKs build `https://sts.<region>.amazonaws.com` themselves, whatever AWS_ENDPOINT_URL says; the proxy answers for that host.
    """
    paths = server.settings.paths
    proxy = f"http://{server.settings.host}:{server.proxy}"
    bundle = str(paths.ca_bundle)
    local = ",".join(
        dict.fromkeys(filter(None, [*os.environ.get("NO_PROXY", "").split(","), "127.0.0.1", "localhost", "::1"]))
    )
    return environment(server) | {
        "HTTPS_PROXY": proxy,
        "https_proxy": proxy,
        "NO_PROXY": local,
        "no_proxy": local,
        "AWS_CA_BUNDLE": bundle,
        "REQUESTS_CA_BUNDLE": bundle,
        "SSL_CERT_FILE": bundle,
        "CURL_CA_BUNDLE": bundle,
        "NODE_EXTRA_CA_CERTS": str(paths.ca_certificate),
    }


@functools.lru_cache(maxsize=32)
def client(server: Server, service: str, *, read_timeout_s: float = 60.0) -> Any:
    """A client of the running server, made once. Errors of the service are for `aws_errors`.

    It is botocore's, since importing boto3 takes as long again; only S3's has what boto3 adds, the uploads in parts.
    """
    from botocore.config import Config

    if service == "s3":
        import boto3

        make = boto3.Session().client
    else:
        import botocore.session

        make = botocore.session.Session().create_client
    return make(
        service,
        region_name=server.settings.region,
        aws_access_key_id=server.access_key,
        aws_secret_access_key=server.secret_key,
        endpoint_url=server.url,
        verify=str(server.settings.paths.ca_certificate),
        config=Config(connect_timeout=5, read_timeout=read_timeout_s, retries={"max_attempts": 1}, proxies={}),
    )


@contextmanager
def aws_errors() -> Iterator[None]:
    """Turn the SDK's exceptions into one plain line."""
    from botocore.exceptions import BotoCoreError, ClientError

    try:
        yield
    except ClientError as error:
        fail(error.response.get("Error", {}).get("Message") or str(error))
    except BotoCoreError as error:
        fail(str(error))
