"""A body over the limit: AWS's 413, whether its length was announced or not, and the connection can be used again."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from botocore.exceptions import ClientError

from tests.wire.gateway_fixture import House, echo
from tests.wire.raw import connect, read_answer, signed, signed_head


@pytest.fixture
def narrow(tmp_path: Path) -> Iterator[House]:
    house = House(tmp_path / "home", {"PENSTOCK_BODY_BYTES": "1000000", "PENSTOCK_CONTROL_BODY_BYTES": "1000"})
    try:
        yield house.start()
    finally:
        house.close()


@pytest.mark.parametrize("scheme", ["http", "https"])
def test_boto3_sees_aws_s_413(narrow: House, scheme: str) -> None:
    replica = narrow.serve(echo)
    runtime = narrow.client("sagemaker-runtime", scheme)
    with pytest.raises(ClientError) as refused:
        runtime.invoke_endpoint(EndpointName="ep", Body=b"x" * 30_000_000)
    assert refused.value.response["Error"] == {"Code": "413", "Message": "HTTP content length exceeded 1000000 bytes."}
    assert runtime.invoke_endpoint(EndpointName="ep", Body=b"x" * 900_000)["Body"].read()[:10] == b"you said x"
    assert len(replica.requests) == 1


def test_chunks_beyond_the_limit(narrow: House) -> None:
    narrow.serve(echo)
    before = psutil.Process(narrow.pid).memory_info().rss
    with connect(narrow) as sock:
        sock.sendall(signed_head(narrow, "/endpoints/ep/invocations") + b"Transfer-Encoding: chunked\r\n\r\n")
        for _ in range(50):
            sock.sendall(b"f4240\r\n" + b"x" * 1_000_000 + b"\r\n")
        assert read_answer(sock).status == 413
        sock.sendall(b"0\r\n\r\n")
        sock.sendall(signed(narrow, "/endpoints/ep/invocations", b"next"))
        assert read_answer(sock).body == b"you said next"
    assert psutil.Process(narrow.pid).memory_info().rss - before < 10_000_000


def test_control_has_a_limit_of_its_own(narrow: House) -> None:
    with pytest.raises(ClientError) as refused:
        narrow.client("sagemaker").list_endpoints(NameContains="x" * 2000)
    assert refused.value.response["ResponseMetadata"]["HTTPStatusCode"] == 413
    assert narrow.control_seen == []


def test_an_object_may_be_larger_than_any_other_request(narrow: House) -> None:
    narrow.client("s3").put_object(Bucket="b", Key="k", Body=b"x" * 3_000_000)
    assert len(narrow.control_seen[0].body) == 3_000_000
