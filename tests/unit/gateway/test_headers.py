"""Which headers reach a container, under which names, and how long they may be."""

from __future__ import annotations

import pytest

from penstock.errors import AwsError
from penstock.gateway.headers import STREAMED, UNARY, to_container
from penstock.gateway.hosts import is_served

SENT = {
    "host": "h",
    "authorization": "AWS4-HMAC-SHA256 …",
    "x-amz-date": "20261123T074500Z",
    "x-amz-security-token": "token",
    "user-agent": "Boto3",
    "cookie": "a=b",
    "x-forwarded-for": "1.2.3.4",
    "content-type": "application/json",
    "accept": "for/sync",
    "x-amzn-sagemaker-accept": "for/stream",
    "x-amzn-sagemaker-custom-attributes": "accept_eula=true",
    "x-amzn-sagemaker-target-model": "m.tar.gz",
    "x-amzn-sagemaker-inference-id": "id",
    "x-amzn-sagemaker-session-id": "s",
}


def names(raw: bytes) -> dict[str, str]:
    lines = raw.decode("latin-1").split("\r\n")
    assert lines[-2:] == ["", ""]
    return dict(line.split(": ", 1) for line in lines[:-2])


def test_what_the_api_has_passes_and_all_else_is_stripped() -> None:
    assert names(to_container(SENT, UNARY, 5)) == {
        "Content-Length": "5",
        "Content-Type": "application/json",
        "Accept": "for/sync",
        "X-Amzn-SageMaker-Custom-Attributes": "accept_eula=true",
        "X-Amzn-SageMaker-Target-Model": "m.tar.gz",
        "X-Amzn-SageMaker-Inference-Id": "id",
        "X-Amzn-SageMaker-Session-Id": "s",
    }


def test_the_streamed_call_has_its_own_accept_and_no_target_model() -> None:
    passed = names(to_container(SENT, STREAMED, 5))
    assert passed["Accept"] == "for/stream"
    assert "X-Amzn-SageMaker-Target-Model" not in passed
    assert "Accept" not in names(to_container({"accept": "*/*"}, STREAMED, 0))


@pytest.mark.parametrize(("name", "limit"), [("custom-attributes", 1024), ("inference-id", 64), ("session-id", 256)])
def test_a_longer_value_than_the_api_allows_is_a_validation_error(name: str, limit: int) -> None:
    header = f"x-amzn-sagemaker-{name}"
    assert to_container({header: "x" * limit}, UNARY, 0)
    with pytest.raises(AwsError) as refused:
        to_container({header: "x" * (limit + 1)}, UNARY, 0)
    assert refused.value.code == "ValidationError"
    assert f"less than or equal to {limit}" in refused.value.message


@pytest.mark.parametrize(
    "host",
    [
        "api.sagemaker.us-east-1.amazonaws.com",
        "runtime.sagemaker.us-gov-west-1.amazonaws.com",
        "runtime-fips.sagemaker.us-east-2.amazonaws.com",
        "sts.amazonaws.com",
        "STS.eu-west-3.amazonaws.com",
        "iam.amazonaws.com",
        "iam.cn-north-1.amazonaws.com.cn",
        "s3.amazonaws.com",
        "s3.cn-northwest-1.amazonaws.com.cn",
        "my.dotted.bucket.s3.eu-west-3.amazonaws.com",
        "sm-pysdk-t-us-east-1.s3.us-east-1.amazonaws.com",
        "bucket.s3.dualstack.us-east-1.amazonaws.com",
        "logs.ap-southeast-3.amazonaws.com",
        "monitoring.us-east-1.amazonaws.com",
        "application-autoscaling.us-east-1.amazonaws.com",
    ],
)
def test_hosts_that_are_served(host: str) -> None:
    assert is_served(host)


@pytest.mark.parametrize(
    "host",
    [
        "amazonaws.com",
        "ec2.us-east-1.amazonaws.com",
        "sts.amazonaws.com.evil.example",
        "evil-sts.amazonaws.com",
        "api.ecr.us-east-1.amazonaws.com",
        "notamazonaws.com",
        "sts.amazonawsxcom",
        "localhost",
    ],
)
def test_hosts_that_are_not(host: str) -> None:
    assert not is_served(host)
