"""One invocation: from a verified body to a replica's answer.

Owns what the plain and the streamed call share: collecting and verifying the body, choosing a replica, trying another, AWS's errors and
deadlines. It must never know how an answer is framed: `unary.py` and `streamed.py` do that.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from hashlib import sha256

from penstock.errors import AwsError
from penstock.gateway import failures
from penstock.gateway.authenticate import Admission, caller
from penstock.gateway.exchange import Client, Exchange
from penstock.gateway.head import Head
from penstock.gateway.headers import Rule, to_container
from penstock.gateway.routing import Route, VariantRoute, choose
from penstock.gateway.upstream import Dial, Failure, Target, Upstream, reach

_ENDPOINT_NAME = re.compile(r"[a-zA-Z0-9](-*[a-zA-Z0-9]){0,62}\Z")


class Invocation(Exchange):
    """A `Sink` for one replica's answer at a time. Subclasses say which headers pass, how long it may take, and frame the answer."""

    __slots__ = (
        "_body",
        "_body_size",
        "_dial",
        "_error_body",
        "_resent",
        "_status",
        "admission",
        "begun",
        "endpoint_name",
        "route",
        "target",
        "tried",
        "upstream",
        "variant",
    )
    rules: Mapping[str, Rule]

    def __init__(self, client: Client, head: Head, request_id: str, admission: Admission, endpoint_name: str) -> None:
        super().__init__(client, head, request_id)
        self.admission: Admission | None = admission
        self.endpoint_name = endpoint_name
        self.route: Route | None = None
        self.variant: VariantRoute | None = None
        self.target: Target | None = None
        self.upstream: Upstream | None = None
        self.tried: list[Target] = []
        self._dial: Dial | None = None
        self._body: list[bytes] = []
        self._body_size = 0
        self._error_body: list[bytes] = []
        self._status = 0
        self._resent = False
        self.begun = False

    # --- the request

    def start(self) -> None:
        if not _ENDPOINT_NAME.match(self.endpoint_name):
            raise failures.bad_endpoint_name(self.endpoint_name)
        limit = self.client.door.limits.body_bytes
        if (self.head.length or 0) > limit:
            raise failures.body_too_large(limit)
        self.client.proceed()

    def body(self, data: bytes) -> None:
        self._body_size += len(data)
        limit = self.client.door.limits.body_bytes
        if self._body_size > limit:
            self._refuse(failures.body_too_large(limit))
            return
        self._body.append(data)

    def body_end(self) -> None:
        try:
            self._route_verified(b"".join(self._body))
            self._dispatch()
        except AwsError as error:
            self._refuse(error)

    def _route_verified(self, body: bytes) -> None:
        """Checks the signature over the whole body and finds the endpoint and its variant. Raises AwsError."""
        door, admission, head = self.client.door, self.admission, self.head
        assert admission is not None, "verified once"
        digest = sha256(body).hexdigest() if admission.needs_body or admission.body_hash else ""
        if admission.body_hash not in (None, digest):
            raise admission.wrong_body()
        admission.check(digest)
        who = caller(admission, door.routes)
        self.admission = None
        self.route = door.routes.route(who.key.account, who.region, self.endpoint_name)
        if self.route is None:
            raise failures.no_such_endpoint(self.endpoint_name, who.key.account)
        wanted = head.headers.get("x-amzn-sagemaker-target-variant")
        self.variant = self.route.variant(wanted) if wanted else self.route.by_weight(door.rng)
        if self.variant is None:
            if wanted:
                raise failures.no_such_variant(wanted, self.endpoint_name)
            raise failures.no_response(self.route.endpoint)
        self._body = [to_container(head.headers, self.rules, len(body)), body]
        self.client.answer_by = door.loop.time() + self.allowance()
        head.raw.clear()
        head.headers.clear()

    def _dispatch(self, *, fresh: bool = False) -> None:
        assert self.variant is not None
        assert self.route is not None
        door = self.client.door
        target = self.target if fresh and self.target else choose(self.variant, door.rng, self.tried)
        if target is None:
            raise failures.no_response(self.route.endpoint)
        self._take(target)
        self._dial = reach(door.loop, target, self, fresh=fresh)

    def _take(self, target: Target | None) -> None:
        """Counts this request against `target`, and no more against the one before."""
        if self.target is not None:
            self.target.outstanding -= 1
        self.target = target
        if target is not None:
            target.outstanding += 1

    def allowance(self) -> float:
        """Seconds that the container has for its whole answer."""
        raise NotImplementedError

    # --- the replica

    def upstream_ready(self, upstream: Upstream) -> None:
        self._dial = None
        self.upstream = upstream
        upstream.begin(self, whole_chunks=True)
        upstream.write(b"".join((b"POST /invocations HTTP/1.1\r\nHost: ", upstream.target.host, b"\r\n", *self._body)))

    def upstream_head(self, status: int, headers: dict[str, str], raw: list[tuple[bytes, bytes]]) -> None:
        self._body = []
        self._status = status
        if 200 <= status < 300:
            self.accepted(headers)

    def upstream_parts(self, parts: list[bytes]) -> None:
        if 200 <= self._status < 300:
            self.parts(parts)
            return
        self._error_body += parts
        if sum(map(len, self._error_body)) > failures.MAX_ORIGINAL:
            self._give_back()
            self._refuse(self._container_error(None))

    def upstream_end(self) -> None:
        self.upstream = None
        self._take(None)
        if 200 <= self._status < 300:
            self.finished()
        else:
            self._refuse(self._container_error(b"".join(self._error_body)))

    def upstream_failed(self, failure: Failure) -> None:
        self._dial = self.upstream = None
        target = self.target
        assert target is not None
        assert self.route is not None
        if failure is Failure.UNTOUCHED and not self._resent:
            self._resent = True
            self._dispatch(fresh=True)
            return
        self.client.door.unreachable(target)
        self._take(None)
        if failure is Failure.REFUSED:
            self.tried.append(target)
            try:
                self._dispatch()
            except AwsError as error:
                self._refuse(error)
        elif self._status == 0:
            self._refuse(failures.no_response(self.route.endpoint))
        elif 200 <= self._status < 300:
            self.broken()
        else:
            self._refuse(self._container_error(None))

    def _container_error(self, body: bytes | None) -> AwsError:
        assert self.route is not None
        return failures.from_container(self.route.endpoint, self.container, self._status, body)

    def upstream_paused(self) -> None:
        """The replica reads its request slowly; the body is whole already, nothing is to be held back."""

    def upstream_resumed(self) -> None:
        pass

    @property
    def container(self) -> str:
        return self.variant.variant.container if self.variant else "primary"

    # --- the answer: subclasses frame it

    def accepted(self, headers: dict[str, str]) -> None:
        """The container's answer begins, and is no error."""
        raise NotImplementedError

    def parts(self, parts: list[bytes]) -> None:
        raise NotImplementedError

    def finished(self) -> None:
        raise NotImplementedError

    def broken(self) -> None:
        """The container's answer broke off in its middle."""
        raise NotImplementedError

    # --- the end

    def gone(self) -> None:
        self._give_back()

    def _give_back(self) -> None:
        """Leaves the replica, at once and whatever it is doing."""
        if self._dial is not None:
            self._dial.cancel()
        if self.upstream is not None:
            self.upstream.abort()
        self._dial = self.upstream = None
        self._take(None)
        self._body = []

    def expired(self) -> None:
        self._give_back()
        assert self.route is not None
        self._refuse(failures.timed_out(self.route.endpoint, self.container))

    def _refuse(self, error: AwsError) -> None:
        self._body = []
        self.client.refuse(self.head, error, self.request_id)
