"""`penstock keys`: a key with a policy may do just that, in every service, from when it is made until it is removed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import boto3
import pytest
from botocore.config import Config
from botocore.exceptions import ClientError

from tests.running import Penstock, cli

POLICY = {
    "Version": "2012-10-17",
    "Statement": [
        {"Effect": "Allow", "Action": "sagemaker:Describe*", "Resource": "arn:aws:sagemaker:*:*:endpoint/team-*"},
        {"Effect": "Allow", "Action": "s3:*", "Resource": ["arn:aws:s3:::team", "arn:aws:s3:::team/*"]},
    ],
}


def client(penstock: Penstock, key: dict[str, str], service: str) -> Any:
    variables = penstock.environment()
    return boto3.client(
        service,
        region_name="us-east-1",
        endpoint_url=variables["AWS_ENDPOINT_URL"],
        verify=variables["AWS_CA_BUNDLE"],
        aws_access_key_id=key["AccessKeyId"],
        aws_secret_access_key=key["SecretAccessKey"],
        config=Config(retries={"total_max_attempts": 1}, proxies={}),
    )


def error_of(call: Any, **arguments: Any) -> tuple[str, int, str]:
    with pytest.raises(ClientError) as caught:
        call(**arguments)
    response = caught.value.response
    return response["Error"]["Code"], response["ResponseMetadata"]["HTTPStatusCode"], response["Error"]["Message"]


def test_a_key_lives_under_its_policy_until_it_is_removed(penstock: Penstock, tmp_path: Path) -> None:
    file = tmp_path / "policy.json"
    file.write_text(json.dumps(POLICY))
    key = json.loads(penstock.cli("keys", "create", "--policy", str(file), "--name", "team", "--json").stdout)
    kept = penstock.home / "access-keys.json"
    assert kept.stat().st_mode & 0o777 == 0o600

    arn = client(penstock, key, "sts").get_caller_identity()["Arn"]
    assert arn.endswith(":assumed-role/PenstockExecutionRole/team")

    sagemaker = client(penstock, key, "sagemaker")
    code, _, text = error_of(sagemaker.describe_endpoint, EndpointName="team-a")
    assert (code, text[:23]) == ("ValidationException", "Could not find endpoint")
    code, status, text = error_of(sagemaker.describe_endpoint, EndpointName="Other")
    assert (code, status) == ("AccessDeniedException", 400)
    assert text.startswith(
        f"User: {arn} is not authorized to perform: sagemaker:DescribeEndpoint on resource: arn:aws:"
    )
    assert "endpoint/other because" in text
    assert error_of(sagemaker.list_models)[0] == "AccessDeniedException"
    assert error_of(client(penstock, key, "iam").get_role, RoleName="R")[:2] == ("AccessDenied", 403)
    assert error_of(client(penstock, key, "logs").describe_log_groups)[0] == "AccessDeniedException"

    s3 = client(penstock, key, "s3")
    s3.create_bucket(Bucket="team")
    s3.put_object(Bucket="team", Key="a/b", Body=b"ours")
    assert s3.get_object(Bucket="team", Key="a/b")["Body"].read() == b"ours"
    assert error_of(s3.create_bucket, Bucket="theirs")[:2] == ("AccessDenied", 403)
    assert error_of(s3.list_buckets)[:2] == ("AccessDenied", 403)
    source = {"Bucket": "theirs", "Key": "x"}
    assert "s3:GetObject" in error_of(s3.copy_object, Bucket="team", Key="c", CopySource=source)[2]

    runtime = client(penstock, key, "sagemaker-runtime")
    assert error_of(runtime.invoke_endpoint, EndpointName="team-a", Body=b"")[:2] == ("AccessDeniedException", 403)

    listed = json.loads(penstock.cli("keys", "ls", "--json").stdout)["AccessKeys"]
    assert [(k["Name"], k["AccessKeyId"]) for k in listed] == [("team", key["AccessKeyId"])]
    assert key["SecretAccessKey"] not in penstock.cli("keys", "ls").stdout
    penstock.cli("keys", "rm", "team")
    assert error_of(client(penstock, key, "sts").get_caller_identity)[0] == "InvalidClientTokenId"
    logs = "".join(p.read_text(errors="replace") for p in (penstock.home / "logs").rglob("*") if p.is_file())
    assert key["SecretAccessKey"] not in logs + penstock.output.read_text(errors="replace")


def test_keys_need_no_server_and_a_damaged_policy_makes_none(tmp_path: Path) -> None:
    home, file = tmp_path / "home", tmp_path / "policy.json"
    file.write_text('{"Statement": [{"Effect": "Perhaps"}]}')
    refused = cli("keys", "create", "--policy", str(file), home=home, check=False)
    assert (refused.returncode, refused.stderr) == (
        1,
        "penstock: the policy can't be used: the Effect of a statement must be Allow or Deny\n",
    )
    assert json.loads(cli("keys", "ls", "--json", home=home).stdout) == {"AccessKeys": []}
    cli("keys", "create", "--name", "ci", home=home)
    again = cli("keys", "create", "--name", "ci", home=home, check=False)
    assert again.stderr == "penstock: there is a key ci already; see: penstock keys ls\n"
    gone = cli("keys", "rm", "nobody", home=home, check=False)
    assert gone.stderr == "penstock: no key nobody; see: penstock keys ls\n"


def test_a_service_that_is_not_served_is_told_so_in_its_protocol(penstock: Penstock) -> None:
    variables = penstock.environment()
    key = {"AccessKeyId": variables["AWS_ACCESS_KEY_ID"], "SecretAccessKey": variables["AWS_SECRET_ACCESS_KEY"]}
    for service, call in (("sns", "list_topics"), ("dynamodb", "list_tables"), ("cloudformation", "list_stacks")):
        code, status, text = error_of(getattr(client(penstock, key, service), call))
        assert (code, status) == ("UnknownOperationException", 404), service
        assert text == f"Penstock does not serve the service {service}."


def test_metrics_are_there_for_prometheus(penstock: Penstock) -> None:
    import urllib.request

    with urllib.request.urlopen(f"http://127.0.0.1:{penstock.port('http')}/metrics", timeout=10) as answer:
        assert answer.headers["content-type"].startswith("text/plain")
        assert b"# TYPE FirstChunkLatency histogram" in answer.read()
