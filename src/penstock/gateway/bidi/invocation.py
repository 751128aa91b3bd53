"""InvokeEndpointWithBidirectionalStream: a client's event stream and a container's WebSocket, joined.

Owns what is said in either direction and how it ends: cleanly, with one error message, or with a stream that is reset. It must never know
HTTP/2's frames or WebSocket's. AWS's page: "InvokeEndpointWithBidirectionalStream" of the service SageMaker Runtime HTTP2.
"""

from __future__ import annotations

import re

from penstock.errors import AwsError
from penstock.gateway import answers, failures
from penstock.gateway.authenticate import Admission
from penstock.gateway.bidi import errors
from penstock.gateway.bidi.client import StreamClient, Timed
from penstock.gateway.bidi.parts import Part, only_message, part_message, read_part, structured_error
from penstock.gateway.bidi.websocket import CLEAN, WebSocket, WebSocketDial
from penstock.gateway.head import Head
from penstock.gateway.headers import BIDIRECTIONAL, INVOCATION_PATH, QUERY_STRING
from penstock.gateway.invocation import Invocation
from penstock.gateway.trace import instant
from penstock.gateway.upstream import Dial, Target
from penstock.wire.eventsigning import EventVerifier
from penstock.wire.eventstream import Decoder, FrameError, Message
from penstock.wire.eventstream.encode import MAX_HEADERS, MAX_PAYLOAD
from penstock.wire.sigv4 import UNSIGNED

OPERATION = "InvokeEndpointWithBidirectionalStream"
_PATH = re.compile(r"[A-Za-z0-9\-._]+(?:/[A-Za-z0-9\-._]+)*\Z")
_PAIR = r"[a-zA-Z0-9][A-Za-z0-9_-]*=(?:[A-Za-z0-9._~\-]|%[0-9A-Fa-f]{2})+"
_QUERY = re.compile(rf"{_PAIR}(?:&{_PAIR})*\Z")
_DEFAULT_PATH = "invocations-bidirectional-stream"
_LAST = Message({}, b"")
"""The end of the input where events come bare."""
_LONGEST_PATH, _LONGEST_QUERY = 100, 2048


class BidirectionalInvocation(Invocation, Timed):
    """`POST /endpoints/{EndpointName}/invocations-bidirectional-stream`, and the `Listener` of its WebSocket."""

    __slots__ = ("_decoder", "_input_over", "_longest", "_parts", "_path", "_since", "_socket", "_verifier")
    rules = BIDIRECTIONAL
    action = f"sagemaker:{OPERATION}"
    through_pipelines = False
    client: StreamClient

    def __init__(
        self, client: StreamClient, head: Head, request_id: str, admission: Admission, endpoint_name: str
    ) -> None:
        super().__init__(client, head, request_id, admission, endpoint_name)
        limits = client.door.limits
        self._longest = min(limits.bidirectional_frame_bytes, MAX_PAYLOAD)
        self._decoder = Decoder(self._longest + 2 * MAX_HEADERS)
        self._verifier: EventVerifier | None = None
        self._path = ""
        self._parts: list[Part] = []
        """What came before the WebSocket stood: at most a window's worth."""
        self._input_over = False
        self._socket: WebSocket | None = None
        self._since = client.door.loop.time()

    # --- the request

    def start(self) -> None:
        super().start()
        headers, admission = self.head.headers, self.admission
        assert admission is not None, "verified once"
        self._path = _container_path(headers.get(INVOCATION_PATH, ""), headers.get(QUERY_STRING, ""))
        self.client.pause_body()
        claim, secret = admission.claim, admission.key.secret
        self._route_verified(b"")
        skew = self.client.door.limits.clock_skew_s
        self._verifier = EventVerifier(claim, secret, skew=skew, required=claim.content != UNSIGNED)
        self._dispatch()

    def allowance(self) -> float:
        """Until the WebSocket stands."""
        return self.client.door.limits.invocation_timeout_s

    def body(self, data: bytes) -> None:
        try:
            for message in self._decoder.feed(data):
                if self.left:
                    return
                self._message(message)
        except FrameError as error:
            self._end_with(errors.invalid(f"The request's event stream cannot be read: {error}."))
        except AwsError as error:
            self._end_with(error)

    def _message(self, message: Message) -> None:
        """Raises AwsError on one that is wrongly signed or makes no sense."""
        assert self._verifier is not None
        if self._input_over:
            raise errors.invalid("Nothing follows the event that ends the request's stream.")
        event = self._verifier.unwrap(message, self.client.door.clock())
        if event == b"" or event == _LAST:
            self._input_ends()
            return
        part = read_part(only_message(event) if isinstance(event, bytes) else event)
        if part is None:
            return
        if len(part.data) > self._longest:
            raise errors.invalid(f"A PayloadPart has at most {self._longest} bytes.")
        if self.begun:
            self._send(part)
        else:
            self._parts.append(part)

    def body_end(self) -> None:
        try:
            self._decoder.finish()
        except FrameError as error:
            self._end_with(errors.invalid(f"The request's event stream cannot be read: {error}."))
            return
        self._input_ends()

    def _input_ends(self) -> None:
        if not self._input_over:
            self._input_over = True
            if self._socket is not None and self.begun:
                self._socket.close()

    def _send(self, part: Part) -> None:
        assert self._socket is not None
        try:
            self._socket.send(part)
        except ValueError as error:
            raise errors.invalid(f"A PayloadPart cannot be passed on: {error}.") from None

    # --- the container

    def reach(self, target: Target) -> Dial:
        return WebSocketDial(self.client.door.loop, target, self, self._longest)

    def socket_ready(self, socket: WebSocket) -> None:
        self._dial = None
        self._socket = socket
        self.trace.sent = instant()
        headers = [tuple(line.split(b": ", 1)) for line in self._body[0].split(b"\r\n")[1:] if line]
        socket.upgrade(self, self._path, [(name, value) for name, value in headers])

    def socket_opened(self) -> None:
        client, limits = self.client, self.client.door.limits
        assert self.variant is not None
        self._body = []
        self._status = self.trace.status = self.trace.model_status = 200
        self.begun = True
        client.answer_by = self._since + limits.bidirectional_timeout_s
        client.deadline = client.door.loop.time() + limits.bidirectional_ping_s
        fields = [
            ("x-amzn-requestid", self.request_id),
            ("x-amzn-invoked-production-variant", self.variant.variant.name),
            ("date", answers.http_date(int(client.door.clock()))),
            ("content-type", "application/vnd.amazon.eventstream"),
        ]
        client.respond(200, fields)
        parts, self._parts = self._parts, []
        try:
            for part in parts:
                self._send(part)
        except AwsError as error:
            self._end_with(error)
            return
        client.resume_body()
        if self._input_over and self._socket is not None:
            self._socket.close()

    def socket_refused(self, status: int, body: bytes | None) -> None:
        self._socket = None
        self._status = self.trace.model_status = status
        self.trace.answered = instant()
        self._give_back()
        self._refuse(self._container_error(body))

    def socket_part(self, part: Part) -> None:
        if error := structured_error(part):
            self._end_with(error)
            return
        trace = self.trace
        trace.first = trace.first or instant()
        trace.parts += 1
        trace.bytes_out += len(part.data)
        self.client.write(part_message(part))

    def socket_closed(self, code: int, reason: str) -> None:
        self._socket = None
        if code in CLEAN:
            self.finished()
        else:
            self._end_with(errors.container_closed(self.container, code, reason))

    def upstream_paused(self) -> None:
        self.client.pause_body()

    def upstream_resumed(self) -> None:
        self.client.resume_body()

    def broken(self) -> None:
        self._end_with(failures.stream_broken(self.container))

    # --- the end

    def finished(self) -> None:
        self.trace.answered = instant()
        self._give_back()
        self.client.done()

    def _end_with(self, error: AwsError) -> None:
        """The one thing that is told of an end that was not clean."""
        self._give_back()
        if not self.begun:
            self._refuse(error)
            return
        self.trace.error = str(error.members.get("ErrorCode", error.code))
        self.client.write(errors.error_message(error))
        self.client.done()

    def _give_back(self) -> None:
        socket, self._socket = self._socket, None
        if socket is not None:
            socket.leave()
        self._parts = []
        super()._give_back()

    def pause(self) -> None:
        if self._socket is not None:
            self._socket.pause()

    def resume(self) -> None:
        if self._socket is not None:
            self._socket.resume()

    def tick(self, now: float) -> None:
        """Time for a ping."""
        if self._socket is None:
            return
        if self._socket.ping():
            self.client.deadline = now + self.client.door.limits.bidirectional_ping_s
        else:
            self._end_with(errors.container_silent(self.container))

    def expired(self) -> None:
        if self.begun:
            self._end_with(failures.stream_timed_out(self.container))
        else:
            super().expired()

    def shut(self) -> None:
        if self.begun:
            self._end_with(failures.stream_ended_by_shutdown())
        else:
            self._end_with(failures.unavailable("The server is shutting down. Send the request again."))


def _container_path(path: str, query: str) -> str:
    """Where the container is asked for its WebSocket, without the leading slash. Raises AwsError (InputValidationError)."""
    for member, value, longest, pattern in (
        ("modelInvocationPath", path, _LONGEST_PATH, _PATH),
        ("modelQueryString", query, _LONGEST_QUERY, _QUERY),
    ):
        if len(value) > longest:
            raise failures.too_long(member, longest)
        if value and not pattern.match(value):
            text = f"Value '{value}' at '{member}' failed to satisfy constraint: Member must satisfy regular expression pattern"
            raise errors.invalid(f"{text}: {pattern.pattern.removesuffix(chr(92) + 'Z')}")
    path = path or _DEFAULT_PATH
    if any(segment in (".", "..") for segment in path.split("/")):
        raise errors.invalid(f"Value '{path}' at 'modelInvocationPath' has a segment that leaves its place.")
    return f"{path}?{query}" if query else path
