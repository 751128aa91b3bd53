"""A client of HTTP/2 that shows and decides everything: frames by the library, signatures written down from AWS's description.

Owns a blocking connection and the streams on it. It must never import the gateway: what it signs is signed by botocore and by its own code.
The SDK that AWS has for this call, `aws_sdk_sagemaker_runtime_http2`, needs Python 3.12: `test_bidi_crt.py` drives the gateway with the
transport and the signer that it is made of.
"""

from __future__ import annotations

import hashlib
import hmac
import socket
import ssl
import struct
import time
import zlib
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import h2.events
from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials
from h2.config import H2Configuration
from h2.connection import H2Connection

from penstock.routes import AccessKey
from penstock.wire.eventstream import Decoder, Message
from tests.wire.gateway_fixture import KEY, REGION, House

EVENTS = "STREAMING-AWS4-HMAC-SHA256-EVENTS"
PATH = "/endpoints/ep/invocations-bidirectional-stream"


def frame(headers: Mapping[str, str | bytes | int], payload: bytes) -> bytes:
    """One event-stream message; text, bytes and times (milliseconds) as header values."""
    raw = b""
    for name, value in headers.items():
        raw += bytes([len(name)]) + name.encode()
        if isinstance(value, int):
            raw += b"\x08" + struct.pack("!q", value)
        else:
            data, kind = (value, b"\x06") if isinstance(value, bytes) else (value.encode(), b"\x07")
            raw += kind + struct.pack("!H", len(data)) + data
    prelude = struct.pack("!II", len(raw) + len(payload) + 16, len(raw))
    message = prelude + struct.pack("!I", zlib.crc32(prelude)) + raw + payload
    return message + struct.pack("!I", zlib.crc32(message))


def payload_part(data: bytes, data_type: str | None = None, state: str | None = None, **more: str) -> bytes:
    headers: dict[str, str | bytes | int] = {
        ":message-type": "event",
        ":event-type": "PayloadPart",
        ":content-type": "application/octet-stream",
    }
    if data_type:
        headers["DataType"] = data_type
    if state:
        headers["CompletionState"] = state
    return frame({**headers, **more}, data)


class Signer:
    """Wraps events in signed messages, each signature over the one before."""

    def __init__(self, key: AccessKey, seed: str) -> None:
        self._key, self._previous = key, seed

    def wrap(self, payload: bytes, now: float | None = None) -> bytes:
        milliseconds = int((time.time() if now is None else now) * 1000)
        stamp = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime(milliseconds // 1000))
        scope = f"{stamp[:8]}/{REGION}/sagemaker/aws4_request"
        date = b"\x05:date\x08" + struct.pack("!q", milliseconds)
        lines = ["AWS4-HMAC-SHA256-PAYLOAD", stamp, scope, self._previous]
        lines += [hashlib.sha256(date).hexdigest(), hashlib.sha256(payload).hexdigest()]
        key = ("AWS4" + self._key.secret).encode()
        for part in (stamp[:8], REGION, "sagemaker", "aws4_request"):
            key = hmac.new(key, part.encode(), hashlib.sha256).digest()
        signature = hmac.new(key, "\n".join(lines).encode(), hashlib.sha256).digest()
        self._previous = signature.hex()
        return frame({":date": milliseconds, ":chunk-signature": signature}, payload)


def signed_headers(
    house: House,
    path: str = PATH,
    *,
    key: AccessKey = KEY,
    content: str | None = EVENTS,
    method: str = "POST",
    body: bytes = b"",
    headers: Mapping[str, str] | None = None,
) -> dict[str, str]:
    """The headers of a signed request to the HTTPS port, in lower case. `content` None has the signature cover the body's hash."""
    given = dict(headers or {})
    if content:
        given["X-Amz-Content-SHA256"] = content
    request = AWSRequest(method, house.url("https") + path, given, body)
    SigV4Auth(Credentials(key.id, key.secret), "sagemaker", REGION).add_auth(request)
    return {name.lower(): str(value) for name, value in request.headers.items()}


@dataclass
class Stream:
    """One stream as the client sees it. `messages` are events of the answer, `body` its bytes where it is no event stream."""

    connection: Http2
    number: int
    signer: Signer | None
    status: int = 0
    headers: dict[str, str] = field(default_factory=dict)
    informational: list[int] = field(default_factory=list)
    messages: deque[Message] = field(default_factory=deque)
    body: bytes = b""
    ended: bool = False
    reset: int | None = None
    unread: int = 0
    decoder: Decoder = field(default_factory=Decoder)

    def send(self, event: bytes, *, sign: bool = True) -> None:
        """Sends one event, or any bytes, as fast as the gateway takes them."""
        data = self.signer.wrap(event) if sign and self.signer else event
        self.connection.send(self, data)

    def part(self, data: bytes | str, state: str | None = None) -> None:
        """Text goes as UTF8, bytes as BINARY."""
        raw, kind = (data.encode(), "UTF8") if isinstance(data, str) else (data, "BINARY")
        self.send(payload_part(raw, kind, state))

    def finish(self) -> None:
        """The signed empty message and the stream's end."""
        if self.signer:
            self.send(b"")
        self.connection.h2.end_stream(self.number)
        self.connection.flush()

    def cancel(self) -> None:
        self.connection.h2.reset_stream(self.number, 8)
        self.connection.flush()

    def head(self) -> int:
        """The answer's status."""
        self.connection.run(lambda: self.status or self.over)
        return self.status

    def message(self) -> Message:
        """The answer's next event."""
        self.connection.run(lambda: self.messages or self.over)
        assert self.messages, f"the stream is over: {self.status} {self.body!r} reset {self.reset}"
        return self.messages.popleft()

    def whole(self) -> bytes:
        """The whole body of an answer that is no event stream."""
        self.connection.run(lambda: self.over)
        assert self.reset in (None, 0), self.reset
        return self.body

    @property
    def over(self) -> bool:
        return self.ended or self.reset is not None or self.connection.closed


class Http2:
    """A connection to the gateway's HTTPS port, or `through` its proxy. `greedy` gives windows back as data comes."""

    def __init__(
        self, house: House, *, alpn: tuple[str, ...] = ("h2",), greedy: bool = True, through: str = ""
    ) -> None:
        self.house, self.greedy = house, greedy
        context = ssl.create_default_context(cafile=str(house.paths.ca_certificate))
        if alpn:
            context.set_alpn_protocols(list(alpn))
        raw = socket.create_connection(("127.0.0.1", house.ports["proxy" if through else "https"]), timeout=10)
        if through:
            raw.sendall(f"CONNECT {through} HTTP/1.1\r\nHost: {through}\r\n\r\n".encode())
            assert raw.recv(1000).startswith(b"HTTP/1.1 200")
        self.sock = context.wrap_socket(raw, server_hostname=through.partition(":")[0] or "localhost")
        self.spoken = self.sock.selected_alpn_protocol()
        self.h2 = H2Connection(H2Configuration(header_encoding="utf-8"))
        self.streams: dict[int, Stream] = {}
        self.closed = False
        self.goaway: list[int] = []
        """Error codes of the goodbyes that came."""
        self._unframed = b""
        if self.spoken == "h2" or not alpn:
            self.h2.initiate_connection()
            self.flush()

    def __enter__(self) -> Http2:
        return self

    def __exit__(self, *error: object) -> None:
        self.sock.close()

    def request(
        self,
        path: str = PATH,
        *,
        headers: Mapping[str, str] | None = None,
        method: str = "POST",
        end: bool = False,
        signer: Signer | None = None,
    ) -> Stream:
        """Opens a stream with just these headers."""
        number = self.h2.get_next_available_stream_id()
        pseudo = {":method": method, ":scheme": "https", ":authority": self.house.url("https").split("//")[1]}
        self.h2.send_headers(number, [*pseudo.items(), (":path", path), *(headers or {}).items()], end_stream=end)
        stream = self.streams[number] = Stream(self, number, signer)
        self.flush()
        return stream

    def converse(
        self, path: str = PATH, *, key: AccessKey = KEY, content: str = EVENTS, headers: Mapping[str, str] | None = None
    ) -> Stream:
        """A signed bidirectional call."""
        named = {f"x-amzn-sagemaker-{name}": value for name, value in (headers or {}).items()}
        signed = signed_headers(self.house, path, key=key, content=content, headers=named)
        signed["content-type"] = "application/vnd.amazon.eventstream"
        seed = signed["authorization"].rpartition("Signature=")[2]
        return self.request(path, headers=signed, signer=Signer(key, seed) if content == EVENTS else None)

    def send(self, stream: Stream, data: bytes) -> None:
        while data and not stream.over:
            room = min(self.h2.local_flow_control_window(stream.number), self.h2.max_outbound_frame_size)
            if room <= 0:
                self.read_once()
                continue
            self.h2.send_data(stream.number, data[:room])
            data = data[room:]
            self.flush()

    def flush(self) -> None:
        if data := self.h2.data_to_send():
            self.sock.sendall(data)

    def run(self, condition: Callable[[], Any]) -> None:
        """Reads until the condition holds."""
        deadline = time.monotonic() + 20
        while not condition():
            assert time.monotonic() < deadline, "not within 20 s"
            self.read_once()

    def read_once(self) -> None:
        try:
            data = self.sock.recv(65536)
        except ConnectionError:
            data = b""
        if not data:
            self.closed = True
            return
        for event in self.h2.receive_data(self._without_goaway(data)):
            self._take(event)
        self.flush()

    def _without_goaway(self, data: bytes) -> bytes:
        """Whole frames, but for GOAWAY: the library takes it for the end, and streams may go on after it."""
        self._unframed += data
        frames = b""
        while len(self._unframed) >= 9 and len(self._unframed) >= (size := 9 + int.from_bytes(self._unframed[:3])):
            one, self._unframed = self._unframed[:size], self._unframed[size:]
            if one[3] == 7:
                self.goaway.append(int.from_bytes(one[13:17]))
            else:
                frames += one
        return frames

    def _take(self, event: h2.events.Event) -> None:
        stream = self.streams.get(getattr(event, "stream_id", 0))
        if stream is None:
            return
        if isinstance(event, h2.events.ResponseReceived):
            stream.headers = {str(name): str(value) for name, value in event.headers}
            stream.status = int(stream.headers.pop(":status"))
        elif isinstance(event, h2.events.InformationalResponseReceived):
            stream.informational.append(int({str(name): value for name, value in event.headers}[":status"]))
        elif isinstance(event, h2.events.DataReceived):
            stream.unread += event.flow_controlled_length
            if stream.headers.get("content-type") == "application/vnd.amazon.eventstream":
                stream.messages.extend(stream.decoder.feed(event.data))
            else:
                stream.body += event.data
            if self.greedy:
                self.give_back(stream)
        elif isinstance(event, h2.events.StreamEnded):
            stream.ended = True
        elif isinstance(event, h2.events.StreamReset):
            stream.reset = int(event.error_code)

    def give_back(self, stream: Stream) -> None:
        size, stream.unread = stream.unread, 0
        if size:
            self.h2.acknowledge_received_data(size, stream.number)
            self.flush()
