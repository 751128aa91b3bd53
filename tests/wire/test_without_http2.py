"""A gateway without the optional libraries: it starts, offers HTTP/1.1 alone, and serves all the rest."""

from __future__ import annotations

import os
from pathlib import Path

from tests.wire.gateway_fixture import House, echo
from tests.wire.http2 import Http2

HIDDEN = "import sys\nfor name in ('h2', 'hpack', 'hyperframe', 'wsproto'):\n    sys.modules[name] = None\n"


def test_only_http1_is_offered(tmp_path: Path) -> None:
    (tmp_path / "sitecustomize.py").write_text(HIDDEN)
    house = House(tmp_path / "home", {"PYTHONPATH": f"{tmp_path}{os.pathsep}src"})
    try:
        house.start()
        house.serve(echo)
        answer = house.client("sagemaker-runtime", "https").invoke_endpoint(EndpointName="ep", Body=b"one")
        assert answer["Body"].read() == b"you said one"
        with Http2(house, alpn=("h2", "http/1.1")) as client:
            assert client.spoken == "http/1.1"
        with Http2(house, alpn=("h2",)) as alone:
            assert alone.spoken is None
    finally:
        house.close()
