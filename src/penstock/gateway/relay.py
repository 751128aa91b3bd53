"""Everything that is no invocation, relayed to the control process.

Owns passing a request on with the verified caller's identity, and its answer back, both without holding a body: an upload of gigabytes
passes through in pieces. It must never understand what it relays.
"""

from __future__ import annotations

from collections.abc import Iterable
from hashlib import sha256

from penstock import routes
from penstock.errors import AwsError
from penstock.gateway import answers, failures
from penstock.gateway.authenticate import Admission, Caller, caller
from penstock.gateway.exchange import Client, Exchange
from penstock.gateway.head import Head
from penstock.gateway.peers import is_secure, source_ip
from penstock.gateway.upstream import Dial, Failure, Upstream, reach

SILENCE_S = 120.0
"""How long neither side of a relayed request may move before it is given up."""

_HOP_BY_HOP = frozenset(
    {
        "connection",
        "content-length",
        "expect",
        "host",
        "keep-alive",
        "proxy-authenticate",
        "proxy-authorization",
        "proxy-connection",
        "te",
        "trailer",
        "transfer-encoding",
        "upgrade",
    }
)
"""Headers of one hop (RFC 9110 §7.6.1), and the two that are written anew."""
_OURS = "x-penstock-"
_BODYLESS = frozenset((204, 304))
_SAFE = frozenset(("GET", "HEAD", "PUT", "DELETE", "OPTIONS"))


class Relay(Exchange):
    """One request to control. A body whose hash the signature needs is held until it is whole; any other streams."""

    __slots__ = (
        "_admission",
        "_begun",
        "_caller",
        "_chunked_out",
        "_dial",
        "_digest",
        "_ended",
        "_limit",
        "_pieces",
        "_resent",
        "_size",
        "_upstream",
    )

    def __init__(self, client: Client, head: Head, request_id: str, admission: Admission) -> None:
        super().__init__(client, head, request_id)
        self._admission = admission
        self._caller: Caller | None = None
        """Set once the signature has been checked: from then on pieces of the body go to control as they come."""
        self._upstream: Upstream | None = None
        self._dial: Dial | None = None
        self._pieces: list[bytes] = []
        self._size = 0
        self._ended = self._begun = self._chunked_out = self._resent = False
        self._digest = sha256() if admission.body_hash else None
        limits = client.door.limits
        self._limit = limits.control_body_bytes if admission.needs_body else limits.object_bytes

    def _too_large(self) -> AwsError:
        if self._admission.claim.service == "s3":
            members = {"MaxSizeAllowed": self._limit}
            text = "Your proposed upload exceeds the maximum allowed size"
            return AwsError("EntityTooLarge", text, status=400, members=members)
        return AwsError("RequestEntityTooLargeException", f"A request has at most {self._limit} bytes.", status=413)

    # --- the request

    def start(self) -> None:
        if (self.head.length or 0) > self._limit:
            raise self._too_large()
        if not self._admission.needs_body:
            if (
                self._digest is not None
                and self.head.length == 0
                and self._digest.hexdigest() != self._admission.body_hash
            ):
                raise self._admission.wrong_body()
            self._forward("")
            if self.head.expects:
                return  # control says whether it wants the body: an upload that it refuses is never sent
        self.client.proceed()

    def body(self, data: bytes) -> None:
        self._size += len(data)
        if self._size > self._limit:
            self._fail(self._too_large())
            return
        if self._digest is not None:
            self._digest.update(data)
        if self._upstream is not None and not self._holds_back():
            self._send(data)
            return
        self._pieces.append(data)
        if self._caller is not None and not self._holds_back():
            self.client.pause_body()  # until the connection to control stands

    def _holds_back(self) -> bool:
        """Whether the end of the body must wait for its hash: control must not see a changed body as a whole one."""
        length = self.head.length
        return self._digest is not None and length is not None and self._size >= length

    def body_end(self) -> None:
        if self._digest is not None and self._digest.hexdigest() != self._admission.body_hash:
            self._fail(self._admission.wrong_body())
            return
        self._ended = True
        if self._caller is not None:
            if self._upstream is not None:
                self._send_rest(self._upstream)
            return
        try:
            self._forward(sha256(b"".join(self._pieces)).hexdigest())
        except AwsError as error:
            self._fail(error)

    def _forward(self, body_sha256: str) -> None:
        """Turns to control. Raises AwsError."""
        door = self.client.door
        self._caller = self._identify(body_sha256)
        self._progress()
        self._dial = reach(door.loop, door.control, self)

    def _identify(self, body_sha256: str) -> Caller:
        """Checks the signature. Raises AwsError."""
        self._admission.check(body_sha256)
        return caller(self._admission, self.client.door.routes)

    def _progress(self) -> None:
        self.client.answer_by = self.client.door.loop.time() + SILENCE_S

    def _send(self, data: bytes) -> None:
        assert self._upstream is not None
        if self.head.length is None:
            data = b"%x\r\n%s\r\n" % (len(data), data)
        self._upstream.write(data)
        self._progress()

    def _send_rest(self, upstream: Upstream) -> None:
        """What was held back, and the end."""
        pieces, self._pieces = self._pieces, []
        for piece in pieces:
            self._send(piece)
        if self._ended:
            upstream.sending = False
            if self.head.length is None:
                upstream.write(b"0\r\n\r\n")

    def _head_for_control(self) -> bytes:
        head, who = self.head, self._caller
        assert who is not None, "control sees only verified requests"
        fields = [
            ("Host", head.headers["host"]),
            (routes.HEADER_ACCOUNT, who.key.account),
            (routes.HEADER_CALLER_ARN, who.key.arn),
            (routes.HEADER_ACCESS_KEY, who.key.id),
            (routes.HEADER_REGION, who.region),
            (routes.HEADER_SERVICE, who.service),
            (routes.HEADER_REQUEST_ID, self.request_id),
            (routes.HEADER_SOURCE_IP, source_ip(self.client.transport)),
            (routes.HEADER_SECURE, "1" if is_secure(self.client.transport) else "0"),
            *_end_to_end(head.raw),
        ]
        if head.expects and not self._admission.needs_body:
            fields.append(("Expect", "100-continue"))
        if head.length is None:
            fields.append(("Transfer-Encoding", "chunked"))
        elif "content-length" in head.headers:
            fields.append(("Content-Length", str(head.length)))
        lines = "".join([f"{name}: {value}\r\n" for name, value in fields])
        return f"{head.method} {head.target} HTTP/1.1\r\n{lines}\r\n".encode("latin-1")

    # --- control

    def upstream_ready(self, upstream: Upstream) -> None:
        self._dial = None
        self._upstream = upstream
        upstream.begin(self, whole_chunks=False, bodyless=self.head.method == "HEAD")
        upstream.sending = True
        upstream.write(self._head_for_control())
        if not self._holds_back() or self._ended:
            self._send_rest(upstream)
        self.client.resume_body()

    def upstream_head(self, status: int, headers: dict[str, str], raw: list[tuple[bytes, bytes]]) -> None:
        client = self.client
        fields = list(_end_to_end(raw))
        if "x-amzn-requestid" not in headers and "x-amz-request-id" not in headers:
            fields.append(("x-amzn-requestid", self.request_id))
        if "content-length" in headers:
            fields.append(("content-length", headers["content-length"]))
        elif status not in _BODYLESS and self.head.method != "HEAD" and self.head.http11:
            self._chunked_out = True
            fields.append(("transfer-encoding", "chunked"))
        self._begun = True
        self.trace.status = status
        client.write(answers.head_bytes(status, fields, keep_alive=client.keep_alive))
        if client.write_paused:
            self.pause()

    def upstream_parts(self, parts: list[bytes]) -> None:
        self.trace.bytes_out += sum(map(len, parts))
        if self._chunked_out:
            parts = [b"%x\r\n%s\r\n" % (len(part), part) for part in parts]
        self._progress()
        self.client.write(b"".join(parts))

    def upstream_read(self, data: bytes) -> bool:
        return False

    def upstream_end(self) -> None:
        self._upstream = None
        if self._chunked_out:
            self.client.write(b"0\r\n\r\n")
        self.client.done()

    def upstream_failed(self, failure: Failure) -> None:
        self._upstream = self._dial = None
        if self._begun:
            self.client.break_off()  # half an answer must never look like a whole one
        elif failure in (Failure.UNTOUCHED, Failure.SILENT) and self._replayable() and not self._resent:
            self._resent = True
            door = self.client.door
            self._dial = reach(door.loop, door.control, self, fresh=True)
        else:
            self._fail(failures.unavailable("The control process does not answer. Send the request again."))

    def _replayable(self) -> bool:
        """Whether sending again changes nothing: no body has been given away, and the method says that twice is once."""
        return self._size == 0 and self._ended and self.head.method in _SAFE

    def upstream_continue(self) -> None:
        self.client.proceed()

    def upstream_paused(self) -> None:
        if not self._ended:
            self.client.pause_body()

    def upstream_resumed(self) -> None:
        self.client.resume_body()

    # --- the client

    def pause(self) -> None:
        if self._upstream is not None:
            self._upstream.pause()

    def resume(self) -> None:
        self._progress()
        if self._upstream is not None:
            self._upstream.resume()

    def expired(self) -> None:
        self._fail(failures.unavailable("The control process has been silent for too long. Send the request again."))

    def gone(self) -> None:
        if self._dial is not None:
            self._dial.cancel()
        if self._upstream is not None:
            self._upstream.abort()
        self._dial = self._upstream = None
        self._pieces = []

    def _fail(self, error: AwsError) -> None:
        self.gone()
        if self._begun:
            self.client.break_off()
        else:
            self.client.refuse(self.head, error, self.request_id)


def _end_to_end(raw: Iterable[tuple[bytes, bytes]]) -> Iterable[tuple[str, str]]:
    """The headers that go on: none of this hop's, none that the Connection header names, none that speak of identity."""
    pairs = [(name.decode("latin-1"), value.decode("latin-1")) for name, value in raw]
    named = {item.strip().lower() for name, value in pairs if name.lower() == "connection" for item in value.split(",")}
    for name, value in pairs:
        lower = name.lower()
        if lower not in _HOP_BY_HOP and lower not in named and not lower.startswith(_OURS):
            yield name, value
