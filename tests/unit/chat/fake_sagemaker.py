"""A fake SageMaker: just enough of the two services for the chat page's own tests, over a real socket.

It checks no signature and keeps no state. What the page does against the real gateway is tested in tests/browser.
"""

from __future__ import annotations

import contextlib
import json
import select
import ssl
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from penstock.errors import AwsError
from penstock.wire.eventstream.encode import exception_frame, part_frame

Step = bytes | AwsError
LMI_IMAGE = "763104351884.dkr.ecr.us-west-2.amazonaws.com/djl-inference:0.23.0-deepspeed0.9.5-cu118"
TGI_IMAGE = (
    "763104351884.dkr.ecr.us-west-2.amazonaws.com/"
    "huggingface-pytorch-tgi-inference:2.0.0-tgi0.8.2-gpu-py39-cu118-ubuntu20.04"
)


@dataclass
class FakeEndpoint:
    """An endpoint: `script(request body)` gives what it streams, `pause_s` lies before each part."""

    script: Callable[[dict[str, Any]], list[Step]]
    image: str = TGI_IMAGE
    environment: dict[str, str] = field(default_factory=dict)
    component: str | None = None  # hosted as this inference component
    refuses: AwsError | None = None
    pause_s: float = 0.0
    silent: bool = False  # never sends its first byte
    bodies: list[dict[str, Any]] = field(default_factory=list)
    sent: int = 0
    client_left: threading.Event = field(default_factory=threading.Event)


class FakeSageMaker:
    """Serves the endpoints until closed, over TLS with a `certificate` and key; AWS_ENDPOINT_URL has to name its `url`."""

    def __init__(self, certificate: tuple[Path, Path] | None = None, **endpoints: FakeEndpoint) -> None:
        self.endpoints = dict(endpoints)
        self.control_error: AwsError | None = None
        fake = self

        class Handler(_Handler):
            sagemaker = fake

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        if certificate is not None:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(*certificate)
            self._server.socket = context.wrap_socket(self._server.socket, server_side=True)
        self.url = f"http{'s' if certificate else ''}://127.0.0.1:{self._server.server_port}"
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
        self._thread.start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def control(self, operation: str, request: dict[str, Any]) -> dict[str, Any]:
        if self.control_error is not None:
            raise self.control_error
        if operation == "ListEndpoints":
            return {"Endpoints": [{"EndpointName": name} for name in self.endpoints]}
        name = request.get("EndpointNameEquals") or next(iter(request.values()))
        if name not in self.endpoints:
            raise AwsError("ValidationException", f'Could not find endpoint "{name}".')
        endpoint = self.endpoints[name]
        variant = {"VariantName": "AllTraffic"} | ({} if endpoint.component else {"ModelName": name})
        return {
            "DescribeEndpoint": {"EndpointName": name, "EndpointConfigName": name},
            "DescribeEndpointConfig": {"ProductionVariants": [variant]},
            "DescribeModel": {"PrimaryContainer": {"Image": endpoint.image, "Environment": endpoint.environment}},
            "ListInferenceComponents": {"InferenceComponents": [{"InferenceComponentName": endpoint.component}]},
            "DescribeInferenceComponent": {"Specification": {"ModelName": name}},
        }[operation]


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    sagemaker: FakeSageMaker

    def log_message(self, format: str, *args: object) -> None:
        """Says nothing: pytest's output is for the tests."""

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])) or b"{}")
        with contextlib.suppress(ConnectionError):
            try:
                if target := self.headers.get("X-Amz-Target"):
                    self._json(200, self.sagemaker.control(target.rpartition(".")[2], body))
                else:
                    self._invoke(self.path.split("/")[2], body)
            except AwsError as error:
                members = {"Message": error.message, "message": error.message, "__type": error.code, **error.members}
                self._json(error.status, members, error.code)

    def _json(self, status: int, members: dict[str, Any], error_type: str | None = None) -> None:
        data = json.dumps(members).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        if error_type is not None:
            self.send_header("x-amzn-errortype", error_type)
        self.end_headers()
        self.wfile.write(data)

    def _invoke(self, name: str, body: dict[str, Any]) -> None:
        if name not in self.sagemaker.endpoints:
            raise AwsError("ValidationError", f"Endpoint {name} of account 123456789012 not found.")
        endpoint = self.sagemaker.endpoints[name]
        endpoint.bodies.append(body)
        if endpoint.refuses is not None:
            raise endpoint.refuses
        if endpoint.silent:
            self._gone(endpoint, timeout_s=30)
            return
        self.send_response(200)
        self.send_header("Content-Type", "application/vnd.amazon.eventstream")
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        for frame in self._frames(endpoint, body):
            self.wfile.write(b"%x\r\n%b\r\n" % (len(frame), frame))
        if not endpoint.client_left.is_set():
            self.wfile.write(b"0\r\n\r\n")

    def _frames(self, endpoint: FakeEndpoint, body: dict[str, Any]) -> Iterator[bytes]:
        for step in endpoint.script(body):
            if self._gone(endpoint, timeout_s=endpoint.pause_s):
                return
            endpoint.sent += 1
            yield exception_frame(step) if isinstance(step, AwsError) else part_frame(step)

    def _gone(self, endpoint: FakeEndpoint, timeout_s: float) -> bool:
        """Waits `timeout_s`, or until the client has left: its socket is readable, and there is nothing to read."""
        readable, _, _ = select.select([self.connection], [], [], timeout_s)
        if readable and not self.connection.recv(1):
            endpoint.client_left.set()
            self.close_connection = True
        return endpoint.client_left.is_set()
