"""STS and IAM as boto3 and the SageMaker SDK call them."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import boto3
import pytest
from botocore.config import Config
from botocore.exceptions import ClientError, ParamValidationError

from penstock.config import Settings
from penstock.control.datapoints import Datapoints
from penstock.control.neighbours.s3.store import ObjectStore
from penstock.control.neighbours.services import make_neighbours
from tests.wire.serving import ACCOUNT, SECRET, application, serve

TRUST = json.dumps({"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Action": "sts:AssumeRole"}]})


@pytest.fixture(scope="module")
def settings(tmp_path_factory: pytest.TempPathFactory) -> Settings:
    return Settings(home=tmp_path_factory.mktemp("home"))


@pytest.fixture(scope="module")
def port(settings: Settings) -> Iterator[int]:
    services = make_neighbours(
        settings, ObjectStore(settings.paths.buckets), secrets=lambda access_key: None, datapoints=Datapoints()
    )
    with serve(application({name: service.handle for name, service in services.items()})) as port:
        yield port


def client(port: int, service: str, key: str = "AKIATEST", **config: Any) -> Any:
    return boto3.client(
        service,
        endpoint_url=f"http://127.0.0.1:{port}",
        region_name="us-east-1",
        aws_access_key_id=key,
        aws_secret_access_key=SECRET,
        config=Config(retries={"total_max_attempts": 1}, **config),
    )


@pytest.fixture(scope="module")
def iam(port: int) -> Any:
    return client(port, "iam")


def code(error: pytest.ExceptionInfo[ClientError]) -> tuple[str, int]:
    return error.value.response["Error"]["Code"], error.value.response["ResponseMetadata"]["HTTPStatusCode"]


def test_the_caller_is_an_assumed_role_that_exists(port: int, iam: Any, settings: Settings) -> None:
    """What `sagemaker.get_execution_role()` does: role name out of the ARN, then its own ARN from IAM."""
    identity = client(port, "sts").get_caller_identity()
    assert (identity["Account"], identity["Arn"]) == (ACCOUNT, settings.caller_arn)
    assert identity["UserId"].startswith("AROA")
    assert identity["UserId"].endswith(":penstock")
    assert identity["ResponseMetadata"]["RequestId"] == "00000000-0000-0000-0000-00000000cafe"
    role = iam.get_role(RoleName=identity["Arn"].split("/")[1])["Role"]
    assert role["Arn"] == settings.role_arn
    assert role["AssumeRolePolicyDocument"]["Statement"][0]["Principal"] == {"Service": "sagemaker.amazonaws.com"}
    assert role["RoleId"] == identity["UserId"].split(":")[0]


def test_a_role_is_created_kept_and_deleted(port: int, iam: Any, settings: Settings) -> None:
    made = iam.create_role(
        RoleName="mine",
        AssumeRolePolicyDocument=TRUST,
        Path="/team/",
        Description="d",
        Tags=[{"Key": "k", "Value": "v"}],
    )["Role"]
    assert made["Arn"] == f"arn:aws:iam::{ACCOUNT}:role/team/mine"
    got = iam.get_role(RoleName="mine")["Role"]
    assert got == made
    assert (got["AssumeRolePolicyDocument"], got["Tags"]) == (json.loads(TRUST), [{"Key": "k", "Value": "v"}])
    assert settings.paths.roles.stat().st_mode & 0o777 == 0o600
    with pytest.raises(ClientError) as caught:
        iam.create_role(RoleName="mine", AssumeRolePolicyDocument=TRUST)
    assert code(caught) == ("EntityAlreadyExists", 409)
    assert [r["RoleName"] for r in iam.list_roles()["Roles"]] == ["PenstockExecutionRole", "mine"]
    assert [r["RoleName"] for r in iam.list_roles(PathPrefix="/team/")["Roles"]] == ["mine"]
    with pytest.raises(ClientError) as caught:
        client(port, "iam", key="AKIAOTHER").get_role(RoleName="mine")
    assert code(caught) == ("NoSuchEntity", 404)
    policy = "arn:aws:iam::aws:policy/AmazonSageMakerFullAccess"
    iam.attach_role_policy(RoleName="mine", PolicyArn=policy)
    attached = iam.list_attached_role_policies(RoleName="mine")["AttachedPolicies"]
    assert attached == [{"PolicyName": "AmazonSageMakerFullAccess", "PolicyArn": policy}]
    with pytest.raises(ClientError) as caught:
        iam.delete_role(RoleName="mine")
    assert code(caught) == ("DeleteConflict", 409)
    iam.detach_role_policy(RoleName="mine", PolicyArn=policy)
    iam.delete_role(RoleName="mine")
    with pytest.raises(ClientError) as caught:
        iam.get_role(RoleName="mine")
    assert code(caught) == ("NoSuchEntity", 404)
    assert caught.value.response["Error"]["Message"] == "The role with name mine cannot be found."


def test_the_role_that_was_always_there_can_be_changed(iam: Any) -> None:
    policy = "arn:aws:iam::aws:policy/AmazonSageMakerFullAccess"
    iam.attach_role_policy(RoleName="PenstockExecutionRole", PolicyArn=policy)
    assert len(iam.list_attached_role_policies(RoleName="PenstockExecutionRole")["AttachedPolicies"]) == 1
    iam.detach_role_policy(RoleName="PenstockExecutionRole", PolicyArn=policy)
    with pytest.raises(ClientError) as caught:
        iam.detach_role_policy(RoleName="PenstockExecutionRole", PolicyArn=policy)
    assert code(caught) == ("NoSuchEntity", 404)


def test_every_action_is_allowed_page_by_page(iam: Any, settings: Settings) -> None:
    actions = [f"ecr:Action{i}" for i in range(5)]
    pages = list(
        iam.get_paginator("simulate_principal_policy").paginate(
            PolicySourceArn=settings.role_arn, ActionNames=actions, PaginationConfig={"PageSize": 2}
        )
    )
    assert [len(page["EvaluationResults"]) for page in pages] == [2, 2, 1]
    results = [result for page in pages for result in page["EvaluationResults"]]
    assert [r["EvalActionName"] for r in results] == actions
    assert {(r["EvalDecision"], r["EvalResourceName"]) for r in results} == {("allowed", "*")}


def test_what_iam_refuses(port: int, iam: Any) -> None:
    loose = client(port, "iam", parameter_validation=False)
    for call, arguments, expected in (
        (loose.get_role, {}, ("ValidationError", 400)),
        (loose.create_role, {"RoleName": "a b", "AssumeRolePolicyDocument": TRUST}, ("ValidationError", 400)),
        (iam.create_role, {"RoleName": "r", "AssumeRolePolicyDocument": "not json"}, ("MalformedPolicyDocument", 400)),
        (iam.create_role, {"RoleName": "r", "AssumeRolePolicyDocument": "{}"}, ("MalformedPolicyDocument", 400)),
        (iam.list_roles, {"Marker": "x"}, ("ValidationError", 400)),
        (iam.list_users, {}, ("NotImplemented", 501)),
    ):
        with pytest.raises(ClientError) as caught:
            call(**arguments)
        assert code(caught) == expected, arguments
    with pytest.raises(ParamValidationError):
        iam.get_role()


def test_a_form_that_is_too_large(port: int, iam: Any) -> None:
    with pytest.raises(ClientError) as caught:
        iam.create_role(RoleName="r", AssumeRolePolicyDocument="x" * 9 * 1024 * 1024)
    assert code(caught) == ("RequestEntityTooLarge", 413)


def test_a_crash_leaves_the_old_roles(settings: Settings, iam: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    iam.create_role(RoleName="kept", AssumeRolePolicyDocument=TRUST)

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr("penstock.control.neighbours.roles.os.fsync", full)
        with pytest.raises(ClientError) as caught:
            iam.create_role(RoleName="lost", AssumeRolePolicyDocument=TRUST)
    assert code(caught) == ("InternalFailure", 500)
    names = [role["RoleName"] for role in iam.list_roles()["Roles"]]
    assert "kept" in names
    assert "lost" not in names
    assert [path.name for path in Path(settings.home).glob("roles.json*")] == ["roles.json"]
