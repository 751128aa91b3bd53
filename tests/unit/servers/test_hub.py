"""Downloads from a hub, over a real socket, into the cache that the hub's own tools use."""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from penstock.servers import models
from penstock.servers.models import ModelUnavailable

COMMIT = "c" * 40
FILES = {
    name: name.encode() * 9 for name in ("config.json", "openvino_model.xml", "openvino_model.bin", "tokenizer.json")
}
FILES["pytorch_model.msgpack"] = b"not wanted"


class Hub(ThreadingHTTPServer):
    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.asked: list[str] = []
        self.tokens: set[str | None] = set()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"


class Handler(BaseHTTPRequestHandler):
    """Just the calls that a snapshot takes: the repository's listing, then each file."""

    protocol_version = "HTTP/1.1"
    server: Hub

    def log_message(self, format: str, *args: object) -> None:
        pass

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        path = self.path.partition("?")[0]
        self.server.asked.append(path)
        self.server.tokens.add(self.headers["Authorization"])
        name = path.rpartition("/")[2]
        if path.startswith("/api/models/org/name/tree/"):
            listed = [{"type": "file", "path": name, "size": len(body), "oid": name} for name, body in FILES.items()]
            self.answer(200, json.dumps(listed).encode())
        elif path.startswith("/api/models/org/name"):
            siblings = [{"rfilename": name} for name in FILES]
            self.answer(200, json.dumps({"id": "org/name", "sha": COMMIT, "siblings": siblings}).encode())
        elif path.startswith("/org/name/resolve/") and name in FILES:
            self.answer(200, FILES[name])
        else:
            self.answer(404, b'{"error": "Repository not found"}', error="RepoNotFound")

    def answer(self, status: int, body: bytes, *, error: str = "") -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("ETag", f'"{hashlib.sha256(body).hexdigest()[:40]}"')
        self.send_header("X-Repo-Commit", COMMIT)
        if error:
            self.send_header("X-Error-Code", error)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)


@pytest.fixture
def hub() -> Iterator[Hub]:
    server = Hub()
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()
        thread.join(10)


def environ(hub: Hub, tmp_path: Path) -> dict[str, str]:
    return {"HF_ENDPOINT": hub.url, "HF_HOME": str(tmp_path / "hf"), "PENSTOCK_MODELS": str(tmp_path / "models")}


def test_what_an_engine_needs_is_downloaded_once(hub: Hub, tmp_path: Path) -> None:
    path = models.resolve("org/name", "", environ(hub, tmp_path))
    assert path == tmp_path / "hf/hub/models--org--name/snapshots" / COMMIT
    assert sorted(file.name for file in path.iterdir()) == sorted(set(FILES) - {"pytorch_model.msgpack"})
    assert (path / "tokenizer.json").read_bytes() == FILES["tokenizer.json"]
    asked = len(hub.asked)
    assert models.resolve("org/name", "", environ(hub, tmp_path)) == path
    assert models.resolve("org/name", COMMIT, environ(hub, tmp_path)) == path
    assert len(hub.asked) == asked, "the cache is asked first"


def test_an_unknown_repository(hub: Hub, tmp_path: Path) -> None:
    with pytest.raises(
        ModelUnavailable,
        match=r"org/other can't be downloaded from the hub \(404 .*run `penstock models alias org/other DIR`",
    ):
        models.resolve("org/other", "", environ(hub, tmp_path))


@pytest.mark.parametrize("name", ["HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "HF_API_TOKEN"])
def test_a_token_is_sent_whatever_its_variable_is_called(hub: Hub, tmp_path: Path, name: str) -> None:
    models.resolve("org/name", "", {**environ(hub, tmp_path), name: "secret"})
    assert hub.tokens == {"Bearer secret"}
