"""Models below an `s3://` prefix: downloaded once, cached by what the listing says.

Owns the cache in `downloads/`: a directory appears there whole or not at all, under a name made of every key's ETag, so that a changed
object is a new directory. It must never judge what it downloads.
"""

from __future__ import annotations

import fcntl
import hashlib
import logging
import os
import re
import shutil
from collections.abc import Iterator, Mapping
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from penstock.servers.unavailable import ModelUnavailable

log = logging.getLogger(__name__)

CONCURRENCY = 8
_PIECE = 1024 * 1024


@dataclass(frozen=True, slots=True)
class _Object:
    key: str
    path: str
    """Relative to the prefix."""
    etag: str
    size: int


def download(url: str, downloads: Path, environ: Mapping[str, str]) -> Path:
    """The local copy of everything below `url`. A second process with the same prefix waits for the first. Raises ModelUnavailable."""
    bucket, _, prefix = url.removeprefix("s3://").partition("/")
    if not bucket:
        raise ModelUnavailable(f"{url} names no bucket")
    client = _client(environ)
    objects = _listing(client, url, bucket, prefix)
    target = downloads / _name(bucket, prefix, objects)
    try:
        if target.is_dir():
            return target
        downloads.mkdir(parents=True, exist_ok=True)
        with _locked(downloads / f".{target.name}.lock"):
            if not target.is_dir():
                _fill(client, url, bucket, objects, target)
    except OSError as error:
        raise ModelUnavailable(f"{url} can't be written below {downloads}: {error.strerror or error}") from error
    return target


def _client(environ: Mapping[str, str]) -> Any:
    import boto3  # Here, not above: it is the slowest import of the server, and few models come from S3.
    from botocore.config import Config

    session = boto3.session.Session(
        aws_access_key_id=environ.get("AWS_ACCESS_KEY_ID"),
        aws_secret_access_key=environ.get("AWS_SECRET_ACCESS_KEY"),
        aws_session_token=environ.get("AWS_SESSION_TOKEN"),
        region_name=environ.get("AWS_REGION") or environ.get("AWS_DEFAULT_REGION") or "us-east-1",
    )
    return session.client(
        "s3",
        endpoint_url=environ.get("AWS_ENDPOINT_URL_S3") or environ.get("AWS_ENDPOINT_URL"),
        verify=environ.get("AWS_CA_BUNDLE"),
        config=Config(
            connect_timeout=10,
            read_timeout=60,
            max_pool_connections=CONCURRENCY,
            retries={"mode": "standard", "total_max_attempts": 3},
        ),
    )


def _listing(client: Any, url: str, bucket: str, prefix: str) -> tuple[_Object, ...]:
    """The objects below `prefix` taken as a folder, whether or not it is written with its slash."""
    from botocore.exceptions import BotoCoreError, ClientError

    folder = prefix if not prefix or prefix.endswith("/") else prefix + "/"
    try:
        pages = client.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=folder)
        found = [
            _Object(item["Key"], item["Key"].removeprefix(folder), item["ETag"], item["Size"])
            for page in pages
            for item in page.get("Contents", ())
            if not item["Key"].endswith("/")
        ]
    except (BotoCoreError, ClientError) as error:
        raise ModelUnavailable(f"{url} can't be listed: {error}") from error
    if not found:
        raise ModelUnavailable(f"there is nothing below {url}")
    for item in found:
        if any(part in ("", ".", "..") for part in item.path.split("/")) or "\0" in item.path:
            raise ModelUnavailable(f"{url} holds the key {item.key!r}, which can't be a file's name")
    return tuple(found)


def _name(bucket: str, prefix: str, objects: tuple[_Object, ...]) -> str:
    digest = hashlib.sha256(repr((bucket, prefix, [(o.path, o.etag, o.size) for o in objects])).encode()).hexdigest()[
        :20
    ]
    last = re.sub(r"[^A-Za-z0-9._-]", "-", prefix.rstrip("/").rpartition("/")[2])[:40].strip(".")
    return f"{last or bucket}-{digest}"


def _fill(client: Any, url: str, bucket: str, objects: tuple[_Object, ...], target: Path) -> None:
    partial = target.with_name(f".{target.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)  # What a killed process left; the lock says that nobody writes it now.
    total = sum(item.size for item in objects)
    partial.mkdir()
    try:
        if (free := shutil.disk_usage(partial).free) < total:
            raise ModelUnavailable(f"{url} needs {total} bytes below {target.parent}, where {free} are free")
        log.info("downloading %s: %d objects, %d bytes", url, len(objects), total)
        _fetch_all(client, url, bucket, objects, partial)
        os.rename(partial, target)
        _sync_directory(target.parent)
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise


def _fetch_all(client: Any, url: str, bucket: str, objects: tuple[_Object, ...], into: Path) -> None:
    from botocore.exceptions import BotoCoreError, ClientError

    pool = ThreadPoolExecutor(CONCURRENCY, thread_name_prefix="s3")
    try:
        running = [pool.submit(_fetch, client, bucket, item, into) for item in objects]
        done, _ = wait(running, return_when=FIRST_EXCEPTION)
        for future in done:
            future.result()
    except (BotoCoreError, ClientError) as error:
        raise ModelUnavailable(f"{url} can't be downloaded: {error}") from error
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _fetch(client: Any, bucket: str, item: _Object, into: Path) -> None:
    """One object. `IfMatch`, because an object that changed since the listing must not lie under the old one's ETag."""
    file = into / item.path
    file.parent.mkdir(parents=True, exist_ok=True)
    body = client.get_object(Bucket=bucket, Key=item.key, IfMatch=item.etag)["Body"]
    with body, open(file, "xb") as out:
        while piece := body.read(_PIECE):
            out.write(piece)
        out.flush()
        os.fsync(out.fileno())


def _sync_directory(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    with open(path, "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
