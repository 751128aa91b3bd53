"""IAM policies: what they cover, what outweighs what, and which documents are refused."""

from __future__ import annotations

import fnmatch
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.errors import AccessDenied
from penstock.policies import Question, authorize, decide, read_policy
from penstock.policies.conditions import MalformedPolicy
from penstock.policies.text import Text

INVOKE = "sagemaker:InvokeEndpoint"
FALCON = "arn:aws:sagemaker:us-east-1:123456789012:endpoint/falcon"


def policy(*statements: dict[str, Any], version: str | None = "2012-10-17") -> str:
    return json.dumps({**({"Version": version} if version else {}), "Statement": list(statements)})


def statement(effect: str = "Allow", **elements: Any) -> dict[str, Any]:
    rest = {"Action": INVOKE, "Resource": "*", **elements}
    for name in ("Action", "Resource"):
        if f"Not{name}" in elements:
            del rest[name]
    return {"Effect": effect, **rest}


def ask(action: str = INVOKE, resource: str = FALCON, **context: Any) -> Question:
    return Question(action, resource, {key.replace("_", ":"): value for key, value in context.items()})


@pytest.mark.parametrize(
    ("policies", "decision"),
    [
        ([], "implicitDeny"),
        ([policy(statement())], "allowed"),
        ([policy(statement(Action="*"))], "allowed"),
        ([policy(statement(Action="sagemaker:*"))], "allowed"),
        ([policy(statement(Action="SageMaker:invokeENDPOINT"))], "allowed"),
        ([policy(statement(Action=["s3:*", "sagemaker:Invoke?ndpoint"]))], "allowed"),
        ([policy(statement(Action="sagemaker:InvokeEndpointAsync"))], "implicitDeny"),
        ([policy(statement(Action="sagemaker:Describe*"))], "implicitDeny"),
        ([policy(statement(NotAction="sagemaker:Delete*"))], "allowed"),
        ([policy(statement(NotAction=["iam:*", "sagemaker:Invoke*"]))], "implicitDeny"),
        ([policy(statement(Resource=FALCON))], "allowed"),
        ([policy(statement(Resource=FALCON.replace("falcon", "Falcon")))], "implicitDeny"),
        ([policy(statement(Resource="arn:aws:sagemaker:*:*:endpoint/fal*"))], "allowed"),
        ([policy(statement(Resource="arn:aws:sagemaker:*:endpoint/falcon"))], "implicitDeny"),
        ([policy(statement(Resource="arn:aws:sagemaker:us-east-1"))], "allowed"),
        ([policy(statement(Resource="arn:aws:*"))], "allowed"),
        ([policy(statement(Resource="arn:aws:s3:::*"))], "implicitDeny"),
        ([policy(statement(NotResource="arn:aws:s3:::*"))], "allowed"),
        ([policy(statement(NotResource=[FALCON]))], "implicitDeny"),
        ([policy(statement("Deny"), statement())], "explicitDeny"),
        ([policy(statement()), policy(statement("Deny", Action="sagemaker:*"))], "explicitDeny"),
        ([policy(statement(), statement("Deny", NotResource="arn:aws:sagemaker:*:*:endpoint/falcon"))], "allowed"),
        ([policy(statement("Deny", Action="s3:*")), policy(statement())], "allowed"),
        ([policy(statement(Action="s3:*")), policy(statement(Resource="arn:aws:s3:::b"))], "implicitDeny"),
    ],
)
def test_one_deny_outweighs_every_allow_and_nothing_is_allowed_by_default(policies: list[str], decision: str) -> None:
    assert decide(policies, ask()) == decision
    assert decide(policies[::-1], ask()) == decision


CONDITIONS: list[tuple[dict[str, Any], dict[str, Any], bool]] = [
    ({"StringEquals": {"aws:x": "a"}}, {"aws_x": "a"}, True),
    ({"StringEquals": {"AWS:X": ["b", "a"]}}, {"aws_x": "a"}, True),
    ({"StringEquals": {"aws:x": "a*"}}, {"aws_x": "ab"}, False),
    ({"StringEquals": {"aws:x": "a"}}, {}, False),
    ({"StringEqualsIfExists": {"aws:x": "a"}}, {}, True),
    ({"StringEqualsIfExists": {"aws:x": "a"}}, {"aws_x": "b"}, False),
    ({"StringNotEquals": {"aws:x": ["a", "b"]}}, {"aws_x": "b"}, False),
    ({"StringNotEquals": {"aws:x": ["a", "b"]}}, {"aws_x": "c"}, True),
    ({"StringNotEquals": {"aws:x": "a"}}, {}, True),
    ({"StringEqualsIgnoreCase": {"aws:x": "GROSSE"}}, {"aws_x": "große"}, True),
    ({"StringLike": {"aws:x": "a?c*"}}, {"aws_x": "abc/d"}, True),
    ({"StringNotLike": {"aws:x": "a*"}}, {"aws_x": "abc"}, False),
    ({"StringEquals": {"aws:x": "a"}, "Bool": {"aws:y": "true"}}, {"aws_x": "a", "aws_y": "false"}, False),
    ({"StringEquals": {"aws:x": "a", "aws:y": "b"}}, {"aws_x": "a", "aws_y": "b"}, True),
    ({"StringEquals": {"aws:x": "a", "aws:y": "b"}}, {"aws_x": "a", "aws_y": "c"}, False),
    ({"NumericLessThan": {"n:n": "10"}}, {"n_n": "9.5"}, True),
    ({"NumericLessThan": {"n:n": 10}}, {"n_n": "10"}, False),
    ({"NumericGreaterThanEquals": {"n:n": "10"}}, {"n_n": "10"}, True),
    ({"NumericNotEquals": {"n:n": "10"}}, {"n_n": "10.0"}, False),
    ({"NumericEquals": {"n:n": "10"}}, {"n_n": "ten"}, False),
    ({"DateLessThan": {"aws:CurrentTime": "2026-01-31T12:00:00Z"}}, {"aws_CurrentTime": "2026-01-31T11:59:59Z"}, True),
    ({"DateLessThan": {"aws:CurrentTime": "2026-01-31T12:00:00Z"}}, {"aws_CurrentTime": "2026-01-31T12:00:00Z"}, False),
    ({"DateGreaterThan": {"aws:EpochTime": "1769860800"}}, {"aws_EpochTime": "2026-01-31T12:00:01+00:00"}, True),
    ({"Bool": {"aws:SecureTransport": True}}, {"aws_SecureTransport": "true"}, True),
    ({"Bool": {"aws:SecureTransport": "false"}}, {"aws_SecureTransport": "true"}, False),
    ({"IpAddress": {"aws:SourceIp": ["10.0.0.0/8", "::1"]}}, {"aws_SourceIp": "10.2.3.4"}, True),
    ({"IpAddress": {"aws:SourceIp": "10.0.0.0/8"}}, {"aws_SourceIp": "::1"}, False),
    ({"NotIpAddress": {"aws:SourceIp": "127.0.0.1"}}, {"aws_SourceIp": "127.0.0.1"}, False),
    ({"ArnLike": {"aws:a": "arn:aws:iam::*:role/x*"}}, {"aws_a": "arn:aws:iam::1:role/xy"}, True),
    ({"ArnEquals": {"aws:a": "arn:aws:*:role/x"}}, {"aws_a": "arn:aws:iam::1:role/x"}, False),
    ({"ArnNotLike": {"aws:a": "arn:aws:iam::*:role/x*"}}, {"aws_a": "arn:aws:iam::1:role/xy"}, False),
    ({"Null": {"aws:x": "true"}}, {}, True),
    ({"Null": {"aws:x": "true"}}, {"aws_x": "a"}, False),
    ({"Null": {"aws:x": False}}, {"aws_x": "a"}, True),
    ({"ForAllValues:StringEquals": {"aws:t": ["a", "b"]}}, {"aws_t": ["a", "b"]}, True),
    ({"ForAllValues:StringEquals": {"aws:t": ["a", "b"]}}, {"aws_t": ["a", "c"]}, False),
    ({"ForAllValues:StringEquals": {"aws:t": ["a", "b"]}}, {}, True),
    ({"ForAnyValue:StringEquals": {"aws:t": ["a", "b"]}}, {"aws_t": ["c", "a"]}, True),
    ({"ForAnyValue:StringEquals": {"aws:t": "a"}}, {}, False),
    ({"ForAnyValue:StringLike": {"aws:t": "x*"}}, {"aws_t": ["c", "a"]}, False),
]


@pytest.mark.parametrize(("condition", "context", "holds"), CONDITIONS)
def test_conditions(condition: dict[str, Any], context: dict[str, Any], holds: bool) -> None:
    text = policy(statement(Condition=condition))
    assert decide([text], ask(**context)) == ("allowed" if holds else "implicitDeny")


@pytest.mark.parametrize(
    ("resource", "version", "context", "covered"),
    [
        ("endpoint/${aws:username}", "2012-10-17", {"aws_username": "falcon"}, True),
        ("endpoint/${aws:username}", "2012-10-17", {"aws_username": "fal*"}, False),
        ("endpoint/${aws:username}", "2012-10-17", {}, False),
        ("endpoint/${aws:username, 'falcon'}", "2012-10-17", {}, True),
        ("endpoint/${aws:username}*", "2012-10-17", {"aws_username": "fal"}, True),
        ("endpoint/${*}", "2012-10-17", {}, False),
        ("endpoint/${aws:username}", None, {"aws_username": "falcon"}, False),
    ],
)
def test_variables(resource: str, version: str | None, context: dict[str, Any], covered: bool) -> None:
    text = policy(statement(Resource=f"arn:aws:sagemaker:us-east-1:123456789012:{resource}"), version=version)
    assert decide([text], ask(**context)) == ("allowed" if covered else "implicitDeny")


def test_variables_in_conditions() -> None:
    text = policy(statement(Condition={"StringEquals": {"aws:PrincipalTag/team": "${aws:username}"}}))
    context = {"aws:principaltag/TEAM": "a", "aws:username": "a"}
    assert decide([text], Question(INVOKE, FALCON, context)) == "allowed"
    assert decide([text], Question(INVOKE, FALCON, {**context, "aws:username": "b"})) == "implicitDeny"


@given(st.text("ab*?", max_size=6), st.text("ab", max_size=8))
def test_wildcards_are_those_of_a_shell(pattern: str, text: str) -> None:
    assert Text(pattern, variables=True).matches(text, {}) == fnmatch.fnmatchcase(text, pattern)


@given(st.text(max_size=30), st.text(max_size=30))
def test_any_text_is_a_pattern(pattern: str, text: str) -> None:
    for variables in (True, False):
        assert Text(pattern, variables=variables).matches(text, {}) in (True, False)
    plain = Text(text, variables=False, wild=False).plain({})
    assert plain == text


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("{", "not valid JSON"),
        ("[" * 100_000, "not valid JSON"),
        ("[]", "needs a Statement"),
        ("{}", "needs a Statement"),
        (policy(statement(), version="2020-01-01"), "Version must be"),
        (json.dumps({"Statement": ["x"]}), "must be a JSON object"),
        (policy(statement("Permit")), "Effect of a statement"),
        (policy(statement(Principal="*")), "no element Principal"),
        (policy({"Effect": "Allow", "Resource": "*"}), "either Action or NotAction"),
        (policy({**statement(), "NotAction": "*"}), "either Action or NotAction"),
        (policy({"Effect": "Allow", "Action": "*"}), "either Resource or NotResource"),
        (policy(statement(Action=[])), "Action must be a string"),
        (policy(statement(Action=[1])), "Action must be a string"),
        (policy(statement(Action="InvokeEndpoint")), "not an action: 'InvokeEndpoint'"),
        (policy(statement(Resource="falcon")), "not a resource's ARN: 'falcon'"),
        (policy(statement(Condition=[])), "a Condition must be a JSON object"),
        (policy(statement(Condition={"StringEquals": "x"})), "StringEquals must be a JSON object"),
        (policy(statement(Condition={"StringIs": {"a": "b"}})), "unknown condition operator StringIs"),
        (policy(statement(Condition={"ForNoValue:StringEquals": {"a": "b"}})), "unknown condition operator ForNoValue"),
        (policy(statement(Condition={"StringEquals": {"a": {}}})), "must be strings"),
        (policy(statement(Condition={"StringEquals": {"a": []}})), "must be strings"),
        (policy(statement(Condition={"NumericEquals": {"a": "x"}})), "cannot be compared with 'x'"),
        (policy(statement(Condition={"IpAddress": {"a": "10.0.0.0/99"}})), "cannot be compared with"),
        (policy(statement(Condition={"DateEquals": {"a": "noon"}})), "cannot be compared with 'noon'"),
    ],
)
def test_a_malformed_policy_says_what_is_wrong_and_allows_nothing(text: str, why: str) -> None:
    with pytest.raises(MalformedPolicy) as caught:
        read_policy(text)
    assert why in str(caught.value)
    assert "\n" not in str(caught.value)
    with pytest.raises(AccessDenied):
        authorize([text], ask(), "arn")


def test_the_refusal_is_in_aws_words() -> None:
    caller = "arn:aws:iam::123456789012:user/u"
    authorize([], ask(), caller)
    authorize([policy(statement())], ask(), caller)
    with pytest.raises(AccessDenied) as caught:
        authorize([policy(statement(Action="s3:*"))], ask(), caller)
    assert caught.value.message == (
        f"User: {caller} is not authorized to perform: sagemaker:InvokeEndpoint on resource: {FALCON} "
        "because no identity-based policy allows the sagemaker:InvokeEndpoint action"
    )
    with pytest.raises(AccessDenied, match="with an explicit deny in an identity-based policy"):
        authorize([policy(statement("Deny"))], ask(), caller)
