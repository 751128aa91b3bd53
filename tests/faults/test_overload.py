"""More requests than the replicas may take: a bounded queue in order, then 503 at once, and never a hang."""

from __future__ import annotations

import json
import socket
import threading
from pathlib import Path

from penstock.routes import Variant
from tests.waiting import until, until_async
from tests.wire.gateway_fixture import House, Scripted, Seen, Wire, answering, echo
from tests.wire.raw import connect, read_answer, signed


class Gate:
    """Replicas that answer when told to, and count what they hold."""

    def __init__(self, house: House, replicas: int, max_concurrency: int) -> None:
        self.open = threading.Event()
        self.held = self.most = 0
        self.order: list[str] = []
        self.house = house

        async def hold(request: Seen, wire: Wire) -> None:
            self.held += 1
            self.most = max(self.most, self.held)
            self.order.append(request.body.decode())
            await until_async(self.open.is_set, deadline_s=60)
            self.held -= 1
            await echo(request, wire)

        self.replicas: list[Scripted] = [house.replica(answering(hold)) for _ in range(replicas)]
        self.variant = Variant(
            "v",
            1.0,
            tuple(one.replica for one in self.replicas),
            routing="LEAST_OUTSTANDING_REQUESTS",
            max_concurrency=max_concurrency,
        )
        house.endpoint("ep", self.variant)

    def ask(self, text: str) -> socket.socket:
        """Sends a request; when this returns the gateway has passed it on, put it in the queue, or answered it."""
        sock = connect(self.house, 30)
        sock.sendall(signed(self.house, "/endpoints/ep/invocations", text.encode()))
        with connect(self.house) as probe:
            for _ in range(5):  # what came earlier is dealt with by the time that several later requests are answered
                probe.sendall(signed(self.house, "/endpoints/nowhere/invocations", b""))
                assert read_answer(probe).status == 400
        return sock


def answers(*socks: socket.socket) -> list[str]:
    """Body of each 200, status of any other answer."""
    told = []
    for sock in socks:
        with sock:
            answer = read_answer(sock)
            told.append(answer.body.decode() if answer.status == 200 else str(answer.status))
    return told


def test_a_bounded_queue_in_order_then_503(house: House) -> None:
    gate = Gate(house, replicas=2, max_concurrency=2)
    running = [gate.ask(f"run{n}") for n in range(4)]
    until(lambda: gate.held == 4)
    waiting = [gate.ask(f"wait{n}") for n in range(4)]
    assert answers(gate.ask("too many")) == ["503"]
    gate.open.set()
    assert answers(*running) == [f"you said run{n}" for n in range(4)]
    assert answers(*waiting) == [f"you said wait{n}" for n in range(4)]
    assert gate.most == 4
    assert sorted(gate.order[4:6]) == ["wait0", "wait1"]
    assert answers(gate.ask("after")) == ["you said after"]


def test_who_leaves_the_queue_makes_room(house: House) -> None:
    gate = Gate(house, replicas=1, max_concurrency=1)
    running = gate.ask("run")
    until(lambda: gate.held == 1)
    gate.ask("leaves").close()
    waiting = gate.ask("stays")
    assert answers(gate.ask("too many")) == ["503"]
    gate.open.set()
    assert answers(running, waiting) == ["you said run", "you said stays"]
    assert "leaves" not in gate.order


def test_who_waits_too_long_is_told_and_makes_room(tmp_path: Path) -> None:
    """The time for an answer runs in the queue too: nobody hangs there."""
    house = House(tmp_path / "home", {"PENSTOCK_INVOCATION_TIMEOUT_S": "1.5"})
    try:
        gate = Gate(house.start(), replicas=1, max_concurrency=1)
        running = connect(house, 30)
        running.sendall(signed(house, "/endpoints/ep/invocations-response-stream", b"run"))
        until(lambda: gate.held == 1)
        waiting = connect(house, 30)
        waiting.sendall(signed(house, "/endpoints/ep/invocations", b"waits"))
        with waiting:
            answer = read_answer(waiting)
        assert answer.status == 424
        assert (
            "Your invocation timed out while waiting for a response from container primary."
            in json.loads(answer.body)["Message"]
        )
        after = gate.ask("after")
        gate.open.set()
        assert answers(after) == ["you said after"]
        running.close()
        assert "waits" not in gate.order
    finally:
        house.close()


def test_a_new_replica_takes_from_the_queue_and_a_deleted_endpoint_empties_it(house: House) -> None:
    gate = Gate(house, replicas=1, max_concurrency=1)
    running = gate.ask("run")
    until(lambda: gate.held == 1)
    waiting = gate.ask("wait")
    more = house.replica(answering(echo))
    house.endpoint("ep", Variant("v", 1.0, (*gate.variant.replicas, more.replica), max_concurrency=1))
    assert answers(waiting) == ["you said wait"]
    house.endpoint("ep", gate.variant)
    waiting = gate.ask("wait again")
    del house.endpoints["ep"]
    house.publish()
    assert answers(waiting) == ["400"]
    gate.open.set()
    assert answers(running) == ["you said run"]


def test_a_replica_that_dies_leaves_nobody_waiting_for_it(house: House) -> None:
    """Three run, three wait; one breaks and the replica takes no more connections: who waits is told so, not left to the others' end."""
    gate = Gate(house, replicas=1, max_concurrency=3)
    running = [gate.ask(f"run{n}") for n in range(3)]
    until(lambda: gate.held == 3)
    waiting = [gate.ask(f"wait{n}") for n in range(3)]
    server = gate.replicas[0].server
    assert server is not None

    async def close() -> None:
        server.close()

    house.run(close())
    running.pop().close()  # its room is free, and nobody can have it
    assert answers(*waiting) == ["424"] * 3
    gate.open.set()
    assert answers(*running) == ["you said run0", "you said run1"]


def test_who_waits_for_one_replica_holds_up_nobody_who_waits_for_any(house: House) -> None:
    """A session has one replica; while that is busy, the room of another goes to the next in line."""
    release: dict[str, threading.Event] = {}
    held: list[str] = []

    async def hold(request: Seen, wire: Wire) -> None:
        text = request.body.decode()
        if request.headers.get("x-amzn-sagemaker-session-id") == "NEW_SESSION":
            await wire.answer(b"opened", headers={"X-Amzn-SageMaker-New-Session-Id": "s-1"})
            return
        held.append(text)
        await until_async(release.setdefault(text, threading.Event()).is_set, deadline_s=60)
        await echo(request, wire)

    def ask(text: str, **headers: str) -> socket.socket:
        sock = connect(house, 30)
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        sock.sendall(signed(house, "/endpoints/ep/invocations", text.encode(), headers=named))
        return sock

    replicas = [house.replica(answering(hold)) for _ in range(2)]
    of_both = tuple(one.replica for one in replicas)
    house.endpoint("ep", Variant("v", 1.0, of_both, routing="LEAST_OUTSTANDING_REQUESTS", max_concurrency=1))
    with ask("", X_Amzn_SageMaker_Session_Id="NEW_SESSION") as opening:
        assert read_answer(opening).body == b"opened"
    of_session = ask("first of the session", X_Amzn_SageMaker_Session_Id="s-1")
    until(lambda: "first of the session" in held)
    other = ask("other")
    until(lambda: "other" in held)
    again = ask("second of the session", X_Amzn_SageMaker_Session_Id="s-1")
    with connect(house) as probe:
        probe.sendall(signed(house, "/endpoints/nowhere/invocations", b""))
        assert read_answer(probe).status == 400
    anybody = ask("anybody")
    for text in ("other", "anybody"):
        until(lambda text=text: text in held)  # type: ignore[misc]
        release.setdefault(text, threading.Event()).set()
    assert answers(other, anybody) == ["you said other", "you said anybody"]
    assert "second of the session" not in held
    release["first of the session"].set()
    release["second of the session"] = threading.Event()
    release["second of the session"].set()
    assert answers(of_session, again) == ["you said first of the session", "you said second of the session"]
