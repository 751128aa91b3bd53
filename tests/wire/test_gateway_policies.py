"""The access key's policies are asked for every invocation, before anything is said of the endpoint."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest
from botocore.exceptions import ClientError

from tests.wire.gateway_fixture import ACCOUNT, KEY, REGION, House, echo
from tests.wire.test_gateway_openai import chat, complete, token

ARN = f"arn:aws:sagemaker:{REGION}:{ACCOUNT}:endpoint/ep"


def policy(action: str = "sagemaker:InvokeEndpoint", resource: str = ARN, **statement: Any) -> str:
    stated = {"Effect": "Allow", "Action": action, "Resource": resource, **statement}
    return json.dumps({"Version": "2012-10-17", "Statement": [stated]})


@pytest.fixture
def held(house: House) -> Any:
    """Puts the key of the test's clients under policies, and makes it free again."""

    def put(*policies: str) -> None:
        # The fixture's own probe of a new table signs with the same key: it may be asked about `marker-…` too.
        probe = policy(resource=f"arn:aws:sagemaker:{REGION}:{ACCOUNT}:endpoint/marker-*")
        house.keys = (replace(KEY, policies=(*policies, probe)),)
        house.publish()

    yield put
    house.keys = (KEY,)
    house.publish()


def denied(call: Any, **arguments: Any) -> str:
    with pytest.raises(ClientError) as caught:
        call(**arguments)
    assert caught.value.response["Error"]["Code"] == "AccessDeniedException"
    assert caught.value.response["ResponseMetadata"]["HTTPStatusCode"] == 403
    return str(caught.value.response["Error"]["Message"])


@pytest.mark.parametrize("operation", ["invoke_endpoint", "invoke_endpoint_with_response_stream"])
def test_what_no_policy_allows_is_denied_in_awss_words(house: House, held: Any, operation: str) -> None:
    replica = house.serve(echo)
    held(policy(resource=ARN.replace("endpoint/ep", "endpoint/other")))
    call = getattr(house.client("sagemaker-runtime"), operation)
    assert denied(call, EndpointName="ep", Body=b"x") == (
        f"User: {KEY.arn} is not authorized to perform: sagemaker:InvokeEndpoint on resource: {ARN} "
        "because no identity-based policy allows the sagemaker:InvokeEndpoint action"
    )
    assert "is not authorized" in denied(call, EndpointName="absent", Body=b"x"), "nobody learns what exists"
    assert replica.requests == []


def test_an_allowed_endpoint_answers_and_an_explicit_deny_wins(house: House, held: Any) -> None:
    house.serve(echo)
    held(policy())
    runtime = house.client("sagemaker-runtime")
    assert runtime.invoke_endpoint(EndpointName="ep", Body=b"x")["Body"].read() == b"you said x"
    held(policy(), policy(Effect="Deny", Resource="*", Condition={"StringEquals": {"sagemaker:TargetModel": "m"}}))
    assert runtime.invoke_endpoint(EndpointName="ep", Body=b"x")["Body"].read() == b"you said x"
    text = denied(runtime.invoke_endpoint, EndpointName="ep", Body=b"x", TargetModel="m")
    assert text.endswith("with an explicit deny in an identity-based policy")


@pytest.mark.parametrize(
    ("condition", "scheme", "allowed"),
    [
        ({"IpAddress": {"aws:SourceIp": "127.0.0.0/8"}}, "http", True),
        ({"IpAddress": {"aws:SourceIp": "10.0.0.0/8"}}, "http", False),
        ({"Bool": {"aws:SecureTransport": "true"}}, "http", False),
        ({"Bool": {"aws:SecureTransport": "true"}}, "https", True),
        ({"StringEquals": {"aws:RequestedRegion": REGION}}, "http", True),
        ({"ArnEquals": {"aws:PrincipalArn": f"arn:aws:iam::{ACCOUNT}:role/R"}}, "http", True),
        ({"DateLessThan": {"aws:CurrentTime": "2020-01-01T00:00:00Z"}}, "http", False),
    ],
)
def test_conditions_see_the_request(
    house: House, held: Any, condition: dict[str, Any], scheme: str, allowed: bool
) -> None:
    house.serve(echo)
    held(policy(Condition=condition))
    runtime = house.client("sagemaker-runtime", scheme)
    if allowed:
        assert runtime.invoke_endpoint(EndpointName="ep", Body=b"x")["Body"].read() == b"you said x"
    else:
        assert "is not authorized" in denied(runtime.invoke_endpoint, EndpointName="ep", Body=b"x")


def test_a_bearer_token_needs_both_actions(house: House, held: Any) -> None:
    house.serve(chat)
    held(policy())
    answer = complete(house, token())
    assert answer.status_code == 403
    assert "sagemaker:CallWithBearerToken on resource: *" in answer.json()["Message"]
    held(policy(), policy(action="sagemaker:CallWithBearerToken", resource="*"))
    assert complete(house, token()).status_code == 200


def test_control_is_told_where_a_request_came_from(house: House) -> None:
    house.client("sagemaker", "https").list_endpoints()
    seen = house.control_seen[-1].headers
    assert seen["x-penstock-source-ip"] == "127.0.0.1"
    assert seen["x-penstock-secure"] == "1"
