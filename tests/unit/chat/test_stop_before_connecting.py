"""A Stop that comes while the client is still being made, or is connecting: no request goes out, no thread stays."""

from __future__ import annotations

import threading
from typing import Any

from penstock.chat.connections import Connections
from penstock.chat.endpoints import session
from penstock.chat.generation import Generation
from tests.unit.chat.conftest import Start
from tests.unit.chat.fake_sagemaker import FakeEndpoint
from tests.unit.chat.test_generation import says


def test_no_request_goes_out(sagemaker: Start) -> None:
    fake = sagemaker(e=FakeEndpoint(says("Hello")))
    making, stopped = threading.Event(), threading.Event()

    def client() -> Any:
        made = session().client("sagemaker-runtime")
        making.set()
        assert stopped.wait(10)
        return made

    generation = Generation("e", b"{}", client=client)
    assert making.wait(10)
    answer = generation.settle(lambda answer: None)
    stopped.set()
    assert answer is not None
    assert answer.stopped
    assert generation.join(20)
    assert fake.endpoints["e"].bodies == []


def test_a_client_built_otherwise_is_left_alone() -> None:
    connections = Connections()
    assert not connections.watch(object())
    connections.sever()
