"""The loop of the engine process, over a real socket and a stepper that does what the test says."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterable, Iterator

import pytest

from penstock.engines.base import Cancel, EngineInfo, Finish, PromptLogprobs, Sampling, Submit, Token
from penstock.engines.messages import Failed, Frames, Message, Took, encode
from penstock.engines.process import LoadError, Stepper, run
from tests.waiting import until

INFO = EngineInfo("counter", "cpu", "torch.float32", 100, (), 8)


class Counter:
    """Counts up from 1 for each request, one token a step."""

    def __init__(self) -> None:
        self.info = INFO
        self.running: dict[int, list[int]] = {}
        self.steps = 0
        self.forward_s = 0.0
        self.silent = 0
        """So many steps give nothing, as when a long prompt is read."""

    @property
    def busy(self) -> bool:
        return bool(self.running)

    def submit(self, request: Submit) -> Finish | None:
        if request.prompt == (13,):
            return Finish(request.id, "error", "bad luck")
        self.running[request.id] = [0, request.sampling.max_new_tokens]
        return None

    def cancel(self, request_id: int) -> Finish | None:
        return Finish(request_id, "cancelled") if self.running.pop(request_id, None) else None

    def step(self) -> Iterable[Token | Finish | PromptLogprobs]:
        self.steps += 1
        self.forward_s = 0.25
        if self.silent:
            self.silent -= 1
            return
        for request_id, state in list(self.running.items()):
            state[0] += 1
            if state[0] == 666:
                raise RuntimeError("first line\nthe beast")
            yield Token(request_id, state[0], -0.5)
            if state[0] == state[1]:
                del self.running[request_id]
                yield Finish(request_id, "length")


class Front:
    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        sock.settimeout(10)
        self.frames = Frames()
        self.received: list[Message] = []

    def send(self, *messages: Message) -> None:
        self.sock.sendall(encode(messages))

    def until_finished(self, request_id: int) -> list[Message]:
        while not any(isinstance(m, Finish) and m.id == request_id for m in self.received):
            data = self.sock.recv(65536)
            assert data, "the engine closed its socket"
            self.received += self.frames.feed(data)
        return [m for m in self.received if getattr(m, "id", None) == request_id]


@pytest.fixture
def served() -> Iterator[tuple[Front, Counter, list[int | BaseException]]]:
    ours, theirs = socket.socketpair()
    counter, results = Counter(), list[int | BaseException]()

    def serve() -> None:
        try:
            results.append(run(theirs, lambda: counter))
        except RuntimeError as error:
            results.append(error)

    thread = threading.Thread(target=serve)
    thread.start()
    with ours, theirs:
        yield Front(ours), counter, results
        ours.close()
        thread.join(10)
    assert not thread.is_alive()


Served = tuple[Front, Counter, list["int | BaseException"]]


def submit(number: int, tokens: int, prompt: tuple[int, ...] = (1,)) -> Submit:
    return Submit(number, prompt, Sampling(max_new_tokens=tokens))


def test_requests_are_stepped_together(served: Served) -> None:
    front, counter, _ = served
    front.send(submit(1, 3), submit(2, 5))
    assert front.until_finished(2)[-1] == Finish(2, "length")
    assert front.until_finished(1) == [Token(1, 1, -0.5), Token(1, 2, -0.5), Token(1, 3, -0.5), Finish(1, "length")]
    assert counter.steps == 5
    assert front.received[0] == INFO


def test_a_step_that_gives_something_tells_what_it_took_and_those_before_that_gave_nothing(served: Served) -> None:
    front, counter, _ = served
    counter.silent = 3
    front.send(submit(1, 2))
    front.until_finished(1)
    took = [message for message in front.received if isinstance(message, Took)]
    assert [message.forward for message in took] == [1.0, 0.25]
    assert front.received[1:4:2] == [Token(1, 1, -0.5), Token(1, 2, -0.5)]


def test_a_cancel_is_looked_at_between_steps_and_leaves_the_others(served: Served) -> None:
    front, _, _ = served
    front.send(submit(1, 600), submit(2, 5), Cancel(1))
    assert front.until_finished(1) == [Finish(1, "cancelled")]
    assert len(front.until_finished(2)) == 6


def test_a_cancel_of_what_has_ended_says_nothing(served: Served) -> None:
    front, _, _ = served
    front.send(submit(1, 1))
    front.until_finished(1)
    front.send(Cancel(1), submit(2, 1))
    front.until_finished(2)
    assert [m for m in front.received if isinstance(m, Finish)] == [Finish(1, "length"), Finish(2, "length")]


def test_a_refused_request_gets_its_finish_at_once(served: Served) -> None:
    front, _, _ = served
    front.send(submit(1, 2, (13,)))
    assert front.until_finished(1) == [Finish(1, "error", "bad luck")]


def test_a_step_that_fails_fails_every_request_and_ends_the_process(served: Served) -> None:
    front, _, results = served
    front.send(submit(1, 700), submit(2, 700))
    assert front.until_finished(1)[-1] == Finish(1, "error", "the engine failed in a step: the beast")
    assert front.until_finished(2)[-1] == Finish(2, "error", "the engine failed in a step: the beast")
    until(lambda: results, what="the loop has ended")
    assert isinstance(results[0], RuntimeError)


def test_it_ends_when_the_front_closes_even_with_work_to_do(served: Served) -> None:
    front, counter, _ = served
    front.send(submit(1, 600))
    front.sock.recv(1)
    front.sock.close()
    assert counter.steps < 600  # the fixture's join shows that the loop ended


def test_a_model_that_cannot_be_loaded_is_said_in_the_first_message() -> None:
    ours, theirs = socket.socketpair()

    def load() -> Stepper:
        raise LoadError("no such model")

    with ours, theirs:
        assert run(theirs, load) == 1
        assert Frames().feed(ours.recv(65536)) == [Failed("no such model")]


def test_whatever_a_library_raises_while_it_loads_reaches_the_front() -> None:
    ours, theirs = socket.socketpair()

    def load() -> Stepper:
        raise TypeError("incompatible arguments\n\nmax_num_seqs is too large")

    with ours, theirs:
        with pytest.raises(TypeError):
            run(theirs, load)
        (said,) = Frames().feed(ours.recv(65536))
    assert said == Failed("the engine can't load the model: TypeError: max_num_seqs is too large")
