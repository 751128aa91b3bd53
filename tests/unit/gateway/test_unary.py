"""The plain answer's head, which is written in one piece, against the function that writes all others."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

from hypothesis import example, given
from hypothesis import strategies as st

from penstock.gateway import answers
from penstock.gateway.exchange import Client
from penstock.gateway.head import Head
from penstock.gateway.headers import CLOSED_SESSION, CUSTOM_ATTRIBUTES, NEW_SESSION
from penstock.gateway.limits import Queue
from penstock.gateway.routing import VariantRoute
from penstock.gateway.trace import Trace
from penstock.gateway.unary import UnaryInvocation
from penstock.routes import Variant

NOW = 1_795_590_000.5
values = st.text(st.characters(min_codepoint=32, max_codepoint=300), max_size=30)
returned = st.lists(st.tuples(st.sampled_from([CUSTOM_ATTRIBUTES, NEW_SESSION, CLOSED_SESSION]), values), max_size=3)


def answered(type_: str | None, told: list[tuple[str, str]], body: list[bytes], *, keep_alive: bool) -> bytes:
    """What goes to the client once the container's answer is whole."""
    written: list[bytes] = []
    door = SimpleNamespace(clock=lambda: NOW, limits=SimpleNamespace(body_bytes=1_000_000))
    trace = Trace("id-1", "InvokeEndpoint", 0.0)
    client = SimpleNamespace(
        door=door, keep_alive=keep_alive, trace=trace, write=written.append, done=lambda: written.append(b"")
    )
    head = Head("POST", "/endpoints/ep/invocations", "", {}, b"", True, True)
    invocation = UnaryInvocation(cast(Client, client), head, "id-1", cast(Any, None), "ep")
    invocation.variant = VariantRoute(Variant("AllTraffic", 1.0, ()), (), Queue())
    invocation.returned = told
    invocation.accepted({} if type_ is None else {"content-type": type_})
    invocation.parts(body)
    invocation.finished()
    assert written[-1] == b"", "the connection is told"
    assert (trace.status, trace.bytes_out) == (200, sum(map(len, body)))
    return b"".join(written)


@given(st.none() | values, returned, st.lists(st.binary(max_size=50), max_size=3), st.booleans())
@example(None, [], [], True)
@example("text/plain", [(CUSTOM_ATTRIBUTES, "é €")], [b"a", b"b"], False)
def test_it_is_what_the_others_writer_writes(
    type_: str | None, told: list[tuple[str, str]], body: list[bytes], keep_alive: bool
) -> None:
    fields = [
        ("x-amzn-requestid", "id-1"),
        ("x-amzn-invoked-production-variant", "AllTraffic"),
        *told,
        *([("content-type", type_)] if type_ is not None else []),
        ("date", answers.http_date(int(NOW))),
        ("content-length", str(sum(map(len, body)))),
    ]
    expected = answers.head_bytes(200, fields, keep_alive=keep_alive) + b"".join(body)
    assert answered(type_, told, body, keep_alive=keep_alive) == expected
