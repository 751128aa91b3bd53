"""One answer on its way.

Owns the thread that calls InvokeEndpointWithResponseStream and reads it, and the clock's figures. It must never know
Streamlit: the page looks at what has come, and ends it whenever it likes.
https://docs.aws.amazon.com/sagemaker/latest/APIReference/API_runtime_InvokeEndpointWithResponseStream.html
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from botocore.config import Config

from penstock.chat.connections import Connections
from penstock.chat.endpoints import session
from penstock.chat.problems import Problem, problem_of
from penstock.client import Token, iter_tokens

MOST_TEXT = 1_000_000
"""Characters after which an answer is broken off: the slider asks for 1,024 tokens, so something is wrong by then."""

# Not retried: a second try would generate a second time.
_PATIENT = Config(connect_timeout=10, read_timeout=120, retries={"total_max_attempts": 1})


@dataclass(frozen=True, slots=True)
class Answer:
    """What has come so far. Times in seconds from the request on; `first_s` None before the first token."""

    text: str = ""
    tokens: int = 0
    first_s: float | None = None
    last_s: float = 0.0
    done: bool = False
    stopped: bool = False
    problem: Problem | None = None

    @property
    def tokens_per_s(self) -> float | None:
        """How fast the tokens followed the first one; None before there are two."""
        if self.first_s is None or self.tokens < 2 or self.last_s <= self.first_s:
            return None
        return (self.tokens - 1) / (self.last_s - self.first_s)


class Generation:
    """Starts at once. `wait` gives the answer so far; `settle` closes the connection, which tells the server to stop.

    `client` makes a runtime client of its own for this call: its sockets are this generation's and nobody else's.
    Any thread may call any method.
    """

    def __init__(
        self,
        endpoint: str,
        body: bytes,
        *,
        component: str | None = None,
        client: Callable[[], Any] | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._request: dict[str, Any] = {"EndpointName": endpoint, "ContentType": "application/json", "Body": body}
        if component is not None:
            self._request["InferenceComponentName"] = component
        self._client = client or (lambda: session().client("sagemaker-runtime", config=_PATIENT))
        self._clock = clock
        self._started = clock()
        self._connections = Connections()
        self._changed = threading.Condition()
        self._answer = Answer()
        self._settled = False
        self._thread = threading.Thread(target=self._run, name="generation", daemon=True)
        self._thread.start()

    def _run(self) -> None:
        problem = None
        try:
            client = self._client()
            self._connections.watch(client)
            with contextlib.closing(client):
                body = client.invoke_endpoint_with_response_stream(**self._request)["Body"]
                with contextlib.closing(body):
                    for token in iter_tokens(body):
                        if not self._add(token):
                            break
        except Exception as error:  # the page shows it
            problem = problem_of(error)
        self._change(done=True, problem=problem or self._answer.problem)

    def _add(self, token: Token) -> bool:
        """Adds the token to the answer; False where no more are wanted."""
        if token.sequence != 0:
            return True
        answer, now = self._answer, self._clock() - self._started
        if len(answer.text) > MOST_TEXT:
            return self._change(
                problem=Problem("The answer does not end.", f"Broken off after {MOST_TEXT:,} characters.")
            )
        return self._change(
            text=answer.text + token.text,
            tokens=answer.tokens + (1 if token.text or token.id is not None else 0),
            first_s=now if answer.first_s is None else answer.first_s,
            last_s=now,
        )

    def _change(self, **members: Any) -> bool:
        with self._changed:
            if not self._settled:
                self._answer = replace(self._answer, **members)
                self._changed.notify_all()
            return not self._settled and self._answer.problem is None

    def wait(self, seen: Answer | None, timeout_s: float) -> Answer:
        """The answer so far, once it is another than the one `seen`, or `timeout_s` have passed."""
        with self._changed:
            if self._answer is seen and not self._answer.done:
                self._changed.wait(timeout_s)
            return self._answer

    def settle(self, keep: Callable[[Answer], object]) -> Answer | None:
        """Ends the generation, if it runs, and gives what came of it; None but for the first caller. Takes no time.

        The first caller's `keep` is called with the answer; when any other returns, that has been done.
        """
        with self._changed:
            if self._settled:
                return None
            self._settled = True
            if not self._answer.done:
                self._answer = replace(self._answer, done=True, stopped=True)
            self._changed.notify_all()
            keep(self._answer)
        self._connections.sever()
        return self._answer

    def join(self, timeout_s: float) -> bool:
        """Whether the reading thread has ended, after at most `timeout_s`."""
        self._thread.join(timeout_s)
        return not self._thread.is_alive()
