"""One invocation: from a verified body to a replica's answer.

Owns what the plain and the streamed call share: collecting and verifying the body, choosing a replica, trying another, AWS's errors and
deadlines. It must never know how an answer is framed: `unary.py` and `streamed.py` do that.
"""

from __future__ import annotations

import logging
import re
from dataclasses import replace
from functools import lru_cache

from penstock.errors import AwsError
from penstock.gateway import failures
from penstock.gateway.authenticate import Admission, Caller, caller
from penstock.gateway.components import narrowed
from penstock.gateway.exchange import Client, Exchange
from penstock.gateway.head import Head
from penstock.gateway.headers import (
    CLOSED_SESSION,
    CUSTOM_ATTRIBUTES,
    INFERENCE_COMPONENT,
    NEW_SESSION,
    PREFIX_ID,
    SESSION,
    TARGET_CONTAINER,
    TARGET_MODEL,
    Rule,
    to_container,
)
from penstock.gateway.leg import Leg
from penstock.gateway.peers import is_secure, source_ip
from penstock.gateway.pipeline import Pipeline
from penstock.gateway.routing import Route, VariantRoute, choose
from penstock.gateway.sessions import NEW, Session, read_new_session
from penstock.gateway.tokens import chunk_of
from penstock.gateway.trace import instant
from penstock.gateway.upstream import Dial, Failure, Target, Upstream, reach
from penstock.policies import Question, authorize
from penstock.policies.context import of_request
from penstock.wire.sigv4 import hash_of

log = logging.getLogger("penstock.gateway")

_ENDPOINT_NAME = re.compile(r"[a-zA-Z0-9](-*[a-zA-Z0-9]){0,62}\Z")
_LONGEST_NAME = 63
_is_name = lru_cache(maxsize=4096)(_ENDPOINT_NAME.match)


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
        "left",
        "opened",
        "prefix",
        "returned",
        "route",
        "session",
        "target",
        "tried",
        "upstream",
        "variant",
    )
    rules: dict[str, Rule]
    request_line = b"POST /invocations HTTP/1.1\r\nHost: "
    marks: tuple[tuple[str, str], ...] = ()
    """Headers of ours on an error's answer."""
    action = "sagemaker:InvokeEndpoint"
    """What the key's policies must allow."""
    through_pipelines = True
    """Whether an inference pipeline's containers understand such a request."""

    def __init__(self, client: Client, head: Head, request_id: str, admission: Admission, endpoint_name: str) -> None:
        super().__init__(client, head, request_id)
        self.admission: Admission | None = admission
        self.endpoint_name = endpoint_name
        self.route: Route | None = None
        self.variant: VariantRoute | None = None
        self.target: Target | None = None
        self.upstream: Upstream | None = None
        self.tried: list[Target] = []
        self.session = ""
        self.opened: Session | None = None
        """The session that the container says it has opened for this request."""
        self.prefix = b""
        self.left = False
        self.returned: list[tuple[str, str]] = []
        """What of the container's headers the client sees beside the content's type."""
        self._dial: Dial | Leg | None = None
        self._body: list[bytes] = []
        self._body_size = 0
        self._error_body: list[bytes] = []
        self._status = 0
        self._resent = False
        self.begun = False

    # --- the request

    def start(self) -> None:
        if len(self.endpoint_name) > _LONGEST_NAME or not _is_name(self.endpoint_name):
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
            variant = self.variant
            if variant is not None and variant.special == "Serial":
                self._enter_pipeline(variant)
            else:
                self._dispatch()
        except AwsError as error:
            self._refuse(error)

    def _route_verified(self, body: bytes) -> None:
        """Checks the signature over the whole body and finds the endpoint and its variant. Raises AwsError."""
        door, admission, head = self.client.door, self.admission, self.head
        assert admission is not None, "verified once"
        stated = admission.body_hash
        digest = hash_of(body) if stated or admission.needs_body else ""
        if stated not in (None, digest):
            raise admission.wrong_body()
        admission.check(digest)
        who = caller(admission, door.routes)
        self.admission = None
        if who.key.policies:
            self._authorize(who, bearer=admission.bearer)
        self.route = door.routes.route(who.key.account, who.region, self.endpoint_name)
        if self.route is None:
            raise failures.no_such_endpoint(self.endpoint_name, who.key.account)
        component = head.headers.get(INFERENCE_COMPONENT)
        if component is not None or self.route.components is not None:
            self.route = narrowed(self.route, component)
            self.trace.component = self.route.component
        self.session = head.headers.get(SESSION, "")
        if self.session and self.session != NEW:
            self._follow_session(self.route)
        else:
            self._draw_variant(self.route, head.headers.get("x-amzn-sagemaker-target-variant"))
        trace = self.trace
        trace.account, trace.region, trace.endpoint = who.key.account, who.region, self.endpoint_name
        self._note_variant()
        self._check_targets()
        if self.variant is not None and self.variant.variant.routing == "PREFIX_AWARE":
            named = head.headers.get(PREFIX_ID, "")
            self.prefix = named.encode() if named else self.prefix_of(body, self.variant.variant.prefix_length)
        self._body = [to_container(head.headers, self.rules, len(body)), body]
        self.client.answer_by = door.loop.time() + self.allowance()
        head.forget()

    def _authorize(self, who: Caller, *, bearer: bool) -> None:
        """Asks the key's policies, before anybody is told whether there is such an endpoint. Raises AccessDenied."""
        transport, headers = self.client.transport, self.head.headers
        context = of_request(
            who.key.arn,
            who.key.account,
            who.region,
            now=self.client.door.clock(),
            source_ip=source_ip(transport),
            secure=is_secure(transport),
        )
        if model := headers.get(TARGET_MODEL):
            context["sagemaker:TargetModel"] = model
        arn = f"arn:aws:sagemaker:{who.region}:{who.key.account}:endpoint/{self.endpoint_name.lower()}"
        if bearer:
            authorize(who.key.policies, Question("sagemaker:CallWithBearerToken", "*", context), who.key.arn)
        authorize(who.key.policies, Question(self.action, arn, context), who.key.arn)

    def _check_targets(self) -> None:
        """Raises AwsError where the request names a part of the endpoint that this one does not have, or not one that it must."""
        assert self.variant is not None
        if self.variant.special:
            self._check_special(self.variant)
        self._check_other_targets()

    def _check_special(self, variant: VariantRoute) -> None:
        """For variants of several models or containers; one of the containers becomes the variant. Raises AwsError."""
        headers = self.head.headers
        if variant.special == "MultiModel":  # with the header it would be a `ModelInvocation`
            raise failures.target_model_missing(self.request_id)
        if variant.special == "Serial":
            if TARGET_CONTAINER in headers:
                raise failures.target_container_not_supported(self.endpoint_name)
            if self.session or not self.through_pipelines:
                raise failures.invalid("An inference pipeline keeps no sessions, and serves /invocations alone.")
            return
        if TARGET_CONTAINER not in headers:
            raise failures.target_container_missing(self.request_id)
        name = headers[TARGET_CONTAINER]
        if name not in variant.containers:
            raise failures.no_such_container(name, self.endpoint_name)
        self.variant = variant.containers[name]

    def _check_other_targets(self) -> None:
        headers = self.head.headers
        if TARGET_CONTAINER in headers and headers[TARGET_CONTAINER] != self.container:
            raise failures.target_container_not_supported(self.endpoint_name)

    def prefix_of(self, body: bytes, length: int) -> bytes:
        """What decides which replica gets a request, of PREFIX_AWARE: the first bytes of the body."""
        return body[:length]

    def _note_variant(self) -> None:
        assert self.variant is not None
        self.trace.variant = self.variant.variant.name
        self.client.door.measures.begin(self.trace, self.variant)

    def _draw_variant(self, route: Route, wanted: str | None) -> None:
        self.variant = route.variant(wanted) if wanted else route.by_weight(self.client.door.rng)
        if self.variant is None:
            if wanted:
                raise failures.no_such_variant(wanted, self.endpoint_name)
            raise failures.no_response(route.endpoint)

    def _follow_session(self, route: Route) -> None:
        """The one replica that holds the session. Raises AwsError where it is gone: another one knows nothing of it."""
        door = self.client.door
        held = door.sessions.find(route.endpoint.arn, self.session, door.clock())
        found = route.holder(held.replica, held.epoch) if held else None
        if found is None:
            raise failures.no_such_session(self.session, self.endpoint_name)
        self.variant = replace(found[0], targets=(found[1],))

    def _enter_pipeline(self, variant: VariantRoute) -> None:
        assert self.route is not None
        head, body = self._body
        self.trace.sent = instant()
        Pipeline(self.client.door, self.route.endpoint, variant, head, body, self).run()

    def stage(self, variant: VariantRoute, leg: Leg) -> None:
        """A pipeline's container is asked: errors and time-outs name it."""
        self.variant, self._dial = variant, leg

    def arrived(self, variant: VariantRoute, head: bytes, body: bytes) -> None:
        """The pipeline's last container answers the client."""
        self.variant, self._dial, self._body = variant, None, [head, body]
        try:
            self._dispatch()
        except AwsError as error:
            self._refuse(error)

    def failed(self, error: AwsError, status: int) -> None:
        """A container before the last failed."""
        self._dial = None
        self.trace.model_status = status
        self._refuse(error)

    def _dispatch(self, *, waited: bool = False) -> None:
        """Sends the request to a replica, or waits for one with room. Raises AwsError where there is neither."""
        assert self.variant is not None
        assert self.route is not None
        door, queue = self.client.door, self.variant.queue
        target = choose(self.variant, door.rng, self.tried, self.prefix)
        if target is not None and len(queue) and not waited and queue.wants(target):
            queue.join(self)  # nobody overtakes those who wait
        elif target is not None:
            self._take(target)
            self._dial = self.reach(target)
        elif len(self.tried) < len(self.variant.targets):
            queue.join(self, first=waited)
        else:
            raise failures.no_response(self.route.endpoint)

    def reach(self, target: Target) -> Dial | None:
        """Asks for a connection to `target`; `upstream_ready` brings it."""
        return reach(self.client.door.loop, target, self)

    def accepts(self, target: Target) -> bool:
        return self.variant is not None and target in self.variant.targets and target not in self.tried

    def go_on(self, freed: Target | None) -> None:
        """The queue's turn has come to this request, or its variant's replicas have changed."""
        self.client.door.loop.call_soon(self._go_on, freed)

    def _go_on(self, freed: Target | None) -> None:
        assert self.variant is not None
        queue, room = self.variant.queue, self.variant.room
        if not self.left and self.target is None:
            try:
                self._look_again()
                self._dispatch(waited=True)
            except AwsError as error:
                self._refuse(error)
        if freed is not None and freed.outstanding < room:
            queue.freed(freed)  # the room that was meant for this one is the next one's

    def _look_again(self) -> None:
        """Finds the endpoint in the table of now: it may have other replicas than when the wait began, or none. Raises AwsError."""
        assert self.route is not None
        assert self.variant is not None
        old, component = self.route.endpoint, self.route.component
        self.route = self.client.door.routes.route(old.account, old.region, old.name)
        if self.route is None:
            raise failures.no_such_endpoint(old.name, old.account)
        self.route = narrowed(self.route, component or None)
        if self.session and self.session != NEW:
            self._follow_session(self.route)
        else:
            name = self.variant.variant.name
            self._draw_variant(self.route, name if self.route.variant(name) else None)
        self._note_variant()

    def _take(self, target: Target | None) -> None:
        """Counts this request against `target`, and no more against the one before."""
        if self.target is not None:
            freed = self.target
            freed.outstanding -= 1
            if self.variant is not None and self.variant.room:
                self.variant.queue.freed(freed)
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
        self.trace.sent = instant()
        upstream.begin(self, whole_chunks=True)
        upstream.write(b"".join((self.request_line, upstream.target.host, b"\r\n", *self._body)))

    def upstream_head(self, status: int, headers: dict[str, str], raw: list[tuple[bytes, bytes]]) -> None:
        self._body = []
        self._status = self.trace.model_status = status
        if 200 <= status < 300:
            try:
                self._read_returned(headers)
            except OSError as error:
                self._give_back()
                self._not_kept(error)
                return
            self.accepted(headers)

    def _read_returned(self, headers: dict[str, str]) -> None:
        """Notes what the container says of its session; to NEW_SESSION either of two headers, by AWS's page and by AWS's library."""
        door, target, route = self.client.door, self.target, self.route
        assert target is not None
        assert route is not None
        if CUSTOM_ATTRIBUTES in headers:
            self.returned.append((CUSTOM_ATTRIBUTES, headers[CUSTOM_ATTRIBUTES]))
        opened = headers.get(NEW_SESSION) or headers.get(SESSION) if self.session == NEW else None
        if opened:
            session_id, expires = read_new_session(opened, door.clock())
            self.opened = Session(session_id, route.endpoint.arn, target.name, target.epoch, expires)
            self.returned.append((NEW_SESSION, opened))
        if closed := headers.get(CLOSED_SESSION):
            door.sessions.forget(route.endpoint.arn, closed.partition(";")[0].strip())
            self.returned.append((CLOSED_SESSION, closed))

    def upstream_parts(self, parts: list[bytes]) -> None:
        if 200 <= self._status < 300:
            self.parts(parts)
            return
        self._error_body += parts
        if sum(map(len, self._error_body)) > failures.MAX_ORIGINAL:
            self._give_back()
            self._refuse(self._container_error(None))

    def upstream_read(self, data: bytes) -> bool:
        heads, begin = chunk_of(len(data))
        if not (data.startswith(heads) and data.endswith(b"\r\n")):
            return False
        self.upstream_parts([data[begin:-2]])
        return True

    def upstream_end(self) -> None:
        self.upstream = None
        self.trace.answered = instant()
        self._take(None)
        if not 200 <= self._status < 300:
            self._refuse(self._container_error(b"".join(self._error_body)))
            return
        if self.opened is not None:  # not before: of a session whose answer breaks off nobody would ever hear
            try:
                self.client.door.sessions.remember(self.opened)
            except OSError as error:
                self._not_kept(error)
                return
        self.finished()

    def _not_kept(self, error: OSError) -> None:
        """A full disk: a session that nobody could find again must not be announced."""
        log.error("request %s: its session cannot be kept: %s", self.request_id, error)
        self._refuse(failures.internal())

    def upstream_failed(self, failure: Failure) -> None:
        self._dial = self.upstream = None
        target = self.target
        assert target is not None
        assert self.route is not None
        if failure is Failure.UNTOUCHED and not self._resent:
            self._resent = True
            self._dial = reach(self.client.door.loop, target, self, fresh=True)
            return
        self.client.door.unreachable(target)
        self._take(None)
        if failure is Failure.REFUSED:
            self.tried.append(target)
            try:
                self._dispatch(waited=True)  # its turn had come
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

    def upstream_continue(self) -> None:
        """The body is whole already, and went with its head."""

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
        """Leaves the replica, or the queue, at once and whatever it is doing."""
        self.left = True
        if self.variant is not None:
            self.variant.queue.leave(self)
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
        self.client.refuse(self.head, error, self.request_id, self.marks)
