"""The two S3 calls of a download over a real socket, with a switch for each thing that can go wrong."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, unquote, urlsplit
from xml.sax.saxutils import escape


class S3Stub:
    def __init__(self) -> None:
        self.objects: dict[str, bytes] = {}
        self.gets: list[str] = []
        self.truncate: str = ""
        """A key whose body breaks off."""
        self.change_after_listing: str = ""
        self.url = ""

    def environ(self, models: str) -> dict[str, str]:
        return {
            "PENSTOCK_MODELS": models,
            "AWS_ENDPOINT_URL": self.url,
            "AWS_ACCESS_KEY_ID": "AKIDEXAMPLE",
            "AWS_SECRET_ACCESS_KEY": "secret",
            "AWS_REGION": "us-east-1",
        }

    def etag(self, key: str) -> str:
        return f'"{hashlib.sha256(self.objects[key]).hexdigest()[:32]}"'

    def listing(self, prefix: str, after: str) -> bytes:
        keys = sorted(key for key in self.objects if key.startswith(prefix) and key > after)
        page, rest = keys[:2], keys[2:]
        items = "".join(
            f"<Contents><Key>{escape(key)}</Key><ETag>{self.etag(key)}</ETag><Size>{len(self.objects[key])}</Size></Contents>"
            for key in page
        )
        more = f"<NextContinuationToken>{escape(page[-1])}</NextContinuationToken>" if rest else ""
        return (
            f"<ListBucketResult><IsTruncated>{'true' if rest else 'false'}</IsTruncated>{more}{items}</ListBucketResult>"
        ).encode()


@contextmanager
def serving() -> Iterator[S3Stub]:
    stub = S3Stub()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, format: str, *args: object) -> None:
            pass

        def do_GET(self) -> None:
            url = urlsplit(self.path)
            query = parse_qs(url.query)
            bucket, _, key = unquote(url.path).lstrip("/").partition("/")
            if bucket != "bucket":
                return self.answer(404, b"<Error><Code>NoSuchBucket</Code><Message>none</Message></Error>")
            if not key:
                body = stub.listing(query.get("prefix", [""])[0], query.get("continuation-token", [""])[0])
                if stub.change_after_listing:
                    stub.objects[stub.change_after_listing] += b" changed"
                return self.answer(200, body)
            stub.gets.append(key)
            if self.headers.get("If-Match") != stub.etag(key):
                return self.answer(412, b"<Error><Code>PreconditionFailed</Code><Message>changed</Message></Error>")
            body = stub.objects[key]
            if key == stub.truncate:
                self.send_response(200)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body[: len(body) // 2])
                self.close_connection = True
                return None
            return self.answer(200, body)

        def answer(self, status: int, body: bytes) -> None:
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.send_header("Content-Type", "application/xml")
            self.end_headers()
            self.wfile.write(body)

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    stub.url = f"http://127.0.0.1:{server.server_address[1]}"
    try:
        yield stub
    finally:
        server.shutdown()
        server.server_close()
        thread.join(10)
