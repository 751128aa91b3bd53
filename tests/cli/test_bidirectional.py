"""A conversation with a deployed endpoint of a real `penstock up`."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

from penstock.routes import AccessKey
from tests.running import Penstock
from tests.wire.http2 import Http2
from tests.wire.test_bidi import ends_cleanly, said


def test_the_scripted_server_echoes(penstock: Penstock, echo: str) -> None:
    variables = penstock.environment()
    house = SimpleNamespace(
        paths=SimpleNamespace(ca_certificate=Path(variables["AWS_CA_BUNDLE"])),
        ports={"https": penstock.port("https")},
        url=lambda scheme: f"{scheme}://localhost:{penstock.port('https')}",
    )
    key = AccessKey(variables["AWS_ACCESS_KEY_ID"], variables["AWS_SECRET_ACCESS_KEY"], "", "")
    with Http2(cast(Any, house)) as client:
        stream = client.converse(f"/endpoints/{echo}/invocations-bidirectional-stream", key=key)
        stream.part("abcd")
        assert [said(stream.message())[0] for _ in range(4)] == [b"a", b"b", b"c", b"d"]
        stream.finish()
        ends_cleanly(stream)
