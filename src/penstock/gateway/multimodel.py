"""InvokeEndpoint with TargetModel: to a replica that has the model loaded, else to one that control has it loaded on.

Owns that choice, the wait for a load, and the second try where a container has lost a model. It must never load anything itself.
AWS's pages: "Invoke a Multi-Model Endpoint", "Custom Containers Contract for Multi-Model Endpoints".
"""

from __future__ import annotations

from collections.abc import Collection

from penstock.errors import AwsError
from penstock.gateway import failures
from penstock.gateway.authenticate import Admission
from penstock.gateway.exchange import Client
from penstock.gateway.head import Head
from penstock.gateway.headers import TARGET_MODEL
from penstock.gateway.hostile_invocations import HostileUnary
from penstock.gateway.modelloads import forget, holder, note
from penstock.gateway.routing import Routes
from penstock.gateway.sessions import NEW
from penstock.gateway.trace import instant
from penstock.gateway.unary import UnaryInvocation
from penstock.gateway.upstream import Failure, Target, reach
from penstock.modelcalls import ModelAnswer, ModelWanted, model_name
from penstock.routes import Endpoint

BUSY = 8
"""Requests in flight on each replica that has a model, at which one more replica is to load it."""
DOUBTS = 3
"""How often a container's 404 is looked into for one request."""
LOOK_AGAIN_S = 0.05
"""Control knows a replica a moment before the table does that comes with it."""


class ModelInvocation(UnaryInvocation):
    """`POST /endpoints/{EndpointName}/invocations` with `X-Amzn-SageMaker-Target-Model`."""

    __slots__ = ("_asked_at", "_doubts", "_held", "_lease", "_waits", "model", "name", "request_line")

    def __init__(self, client: Client, head: Head, request_id: str, admission: Admission, endpoint_name: str) -> None:
        super().__init__(client, head, request_id, admission, endpoint_name)
        self._asked_at = 0.0
        self._doubts = 0
        self._held: list[bytes] = []
        """The request, for as long as it may have to be sent again."""
        self._lease = ""
        """The replica that keeps the model for this request alone."""
        self._waits = False

    def _check_targets(self) -> None:
        assert self.variant is not None
        if self.variant.special != "MultiModel":
            raise failures.target_model_not_supported(self.endpoint_name)
        self._check_other_targets()
        self.model = _text(self.head.headers[TARGET_MODEL])
        if not self.model.strip() or ".." in self.model.split("/"):
            raise failures.invalid(f"Value '{self.model}' at 'targetModel' is not the path of a model.")
        self.name = model_name(self.model)
        self.request_line = f"POST /models/{self.name}/invoke HTTP/1.1\r\nHost: ".encode()

    def _dispatch(self, *, waited: bool = False) -> None:
        assert self.variant is not None
        target = holder(self.variant.targets, self.name, self.tried)
        if target is None:
            self._ask()
            return
        if not self._asked_at:
            self.client.door.measures.count(self.trace, "ModelCacheHit")
        if target.outstanding >= BUSY:  # it is the least busy one
            self._spread()
        self._send(target)

    def _send(self, target: Target) -> None:
        door = self.client.door
        door.models.use(target, self.name)
        self._take(target)
        self._dial = reach(door.loop, target, self)

    # --- control

    def _ask(self, doubted: str = "") -> None:
        self._asked_at = self._asked_at or instant()
        self.client.door.models.want(self._wanted(self.tried, doubted), self)
        self._waits = True

    def _wanted(self, tried: Collection[Target], doubted: str = "") -> ModelWanted:
        assert self.route is not None
        assert self.variant is not None
        endpoint, sticky = self.route.endpoint, bool(self.session) and self.session != NEW
        return ModelWanted(
            endpoint.account,
            endpoint.region,
            endpoint.name,
            self.variant.variant.name,
            self.model,
            only=self.variant.targets[0].name if sticky else "",
            tried=tuple(target.name for target in tried),
            doubted=doubted,
        )

    def _spread(self) -> None:
        """One more replica is to have the model, if there is one, for the requests to come."""
        assert self.route is not None
        assert self.variant is not None
        having = [target for target in self.variant.targets if self.name in target.models]
        if len(having) < len(self.variant.targets):
            door, endpoint = self.client.door, self.route.endpoint
            door.models.spread(self._wanted(having), _Spread(door.routes, endpoint, self.name))

    def model_answered(self, answer: ModelAnswer | AwsError) -> None:
        """What control says, once."""
        self._waits = False
        try:
            if isinstance(answer, AwsError):
                raise answer
            self._go_by(answer)
        except AwsError as error:
            self._refuse(error)

    def _go_by(self, answer: ModelAnswer) -> None:
        """Raises AwsError where there is no such model to be had."""
        assert self.route is not None
        endpoint = self.route.endpoint
        match answer.outcome:
            case "loaded":
                self._loaded(answer)
            case "there":
                raise self._container_error(b"".join(self._error_body))
            case "refused":
                raise failures.model_data_refused(answer.text)
            case "dependency":
                raise failures.dependency(answer.text)
            case "container":
                raise failures.from_container(endpoint, self.container, answer.status, answer.text.encode() or None)
            case "unreachable":
                raise failures.no_response(endpoint)
            case "late":
                raise failures.model_not_ready()

    def _loaded(self, answer: ModelAnswer) -> None:
        assert self.route is not None
        door, endpoint = self.client.door, self.route.endpoint
        if not answer.cached:
            self._lease = answer.replica
        now = door.routes.route(endpoint.account, endpoint.region, endpoint.name)
        if now is None:
            self._let_go()
            raise failures.no_such_endpoint(endpoint.name, endpoint.account)
        self.route, found = now, now.holder(answer.replica, answer.epoch)
        if found is None:
            self._let_go()
            door.loop.call_later(LOOK_AGAIN_S, self._look)
            return
        if answer.waited:
            door.measures.time(self.trace, "ModelLoadingWaitTime", instant() - self._asked_at)
        else:
            door.measures.count(self.trace, "ModelCacheHit")
        if answer.cached:
            note(found[1], self.name)
        if self._held:
            self._body, self._held = self._held, []
            self._error_body = []
            self._status, self._resent = 0, False
        self._send(found[1])

    def _look(self) -> None:
        if self.left:
            return
        try:
            self._ask()
        except AwsError as error:
            self._refuse(error)

    # --- the container

    def upstream_head(self, status: int, headers: dict[str, str], raw: list[tuple[bytes, bytes]]) -> None:
        body = self._body
        super().upstream_head(status, headers, raw)
        if status == 404:
            self._held = body

    def upstream_end(self) -> None:
        """A 404 may mean that the model is not loaded after all. Control looks into that."""
        if self._status != 404:
            super().upstream_end()
            return
        target = self.target
        assert target is not None
        self.upstream = None
        self._doubts += 1
        forget(target, self.name)
        self._take(None)
        try:
            if self._doubts > DOUBTS:
                raise failures.model_not_ready()  # loaded again and again, and lost each time before we came
            self._ask(doubted=target.name)
        except AwsError as error:
            self._refuse(error)

    def upstream_failed(self, failure: Failure) -> None:
        if failure is not Failure.UNTOUCHED and self.target is not None:
            forget(self.target, self.name)
        super().upstream_failed(failure)

    # --- the end

    def _take(self, target: Target | None) -> None:
        if target is None:
            self._let_go()
        super()._take(target)

    def _let_go(self) -> None:
        if self._lease:
            replica, self._lease = self._lease, ""
            self.client.door.models.ended(replica, self.name)

    def _give_back(self) -> None:
        if self._waits:
            self._waits = False
            self.client.door.models.leave(self)
        super()._give_back()

    def expired(self) -> None:
        if self.target is None:
            self._give_back()
            self._refuse(failures.model_not_ready())
        else:
            super().expired()


class _Spread:
    """Who waits for a further copy: nobody but the next request."""

    def __init__(self, routes: Routes, endpoint: Endpoint, name: str) -> None:
        self._routes, self._endpoint, self._name = routes, endpoint, name

    def model_answered(self, answer: ModelAnswer | AwsError) -> None:
        endpoint = self._endpoint
        route = self._routes.route(endpoint.account, endpoint.region, endpoint.name)
        if route is None or isinstance(answer, AwsError) or answer.outcome != "loaded":
            return
        if (found := route.holder(answer.replica, answer.epoch)) is not None:
            note(found[1], self._name)


def _text(header: str) -> str:
    """A header's value is read as Latin-1; S3's keys are UTF-8."""
    try:
        return header.encode("latin-1").decode()
    except UnicodeDecodeError:
        return header


class HostileModel(HostileUnary, ModelInvocation):
    """The same under a fault plan."""
