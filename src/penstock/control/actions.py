"""Which IAM actions a control operation needs, and on which resources.

Owns that table. Pure: it must never decide (`policies` does) or look anything up.
AWS: "Actions, resources, and condition keys for Amazon SageMaker", and the same pages of the other services.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any
from urllib.parse import unquote

Asked = tuple[str, str]
"""An IAM action, and the ARN of what it is to be done to."""

_SAGEMAKER_NOUNS = (
    ("EndpointConfigName", "endpoint-config"),
    ("EndpointName", "endpoint"),
    ("ModelName", "model"),
    ("InferenceComponentName", "inference-component"),
)
_OF_BOTH = frozenset({"CreateEndpoint", "UpdateEndpoint"})
"""These two need to be allowed on the endpoint and on the config that it takes."""

_S3_ACTIONS = {
    "HeadBucket": "ListBucket",
    "ListBuckets": "ListAllMyBuckets",
    "ListObjects": "ListBucket",
    "ListObjectsV2": "ListBucket",
    "HeadObject": "GetObject",
    "CopyObject": "PutObject",
    "CreateMultipartUpload": "PutObject",
    "UploadPart": "PutObject",
    "UploadPartCopy": "PutObject",
    "CompleteMultipartUpload": "PutObject",
    "ListParts": "ListMultipartUploadParts",
    "ListMultipartUploads": "ListBucketMultipartUploads",
}
"""Where an S3 operation's action has another name than the operation."""


def asked(service: str, operation: str, params: Mapping[str, Any], region: str, account: str) -> Iterator[Asked]:
    """Every (action, resource) that must be allowed. GetCallerIdentity needs nothing: whoever signs may know who it is."""
    match service:
        case "sagemaker":
            yield from _sagemaker(operation, params, region, account)
        case "s3":
            yield from _s3(operation, params)
        case "iam":
            yield f"iam:{operation}", _role(params, account)
        case "logs":
            yield f"logs:{operation}", _log_group(params, region, account)
        case "sts":
            return
        case _:
            yield f"{service}:{operation}", "*"


def _sagemaker(operation: str, params: Mapping[str, Any], region: str, account: str) -> Iterator[Asked]:
    action, found = f"sagemaker:{operation}", False
    if "ResourceArn" in params:
        yield action, params["ResourceArn"]
        return
    if not operation.startswith("List"):
        for member, word in _SAGEMAKER_NOUNS:
            if member not in params or (found and operation not in _OF_BOTH):
                continue
            if operation in _OF_BOTH or _is_about(operation, word):
                found = True
                name = params[member].lower()
                yield action, f"arn:aws:sagemaker:{region}:{account}:{word}/{name}"
    if not found:
        yield action, "*"


def _is_about(operation: str, word: str) -> bool:
    """Whether `DescribeEndpointConfig` speaks of an `endpoint-config`: `UpdateEndpointWeightsAndCapacities` does of an `endpoint`."""
    noun = "".join(part.capitalize() for part in word.split("-"))
    return operation.endswith((noun, f"{noun}WeightsAndCapacities", f"{noun}RuntimeConfig"))


def _s3(operation: str, params: Mapping[str, Any]) -> Iterator[Asked]:
    action = f"s3:{_S3_ACTIONS.get(operation, operation)}"
    if "Bucket" not in params:
        yield action, "*"
        return
    bucket = f"arn:aws:s3:::{params['Bucket']}"
    if operation == "DeleteObjects":
        for listed in params["Delete"].get("Objects", ()):
            yield "s3:DeleteObject", f"{bucket}/{listed.get('Key', '')}"
        return
    yield action, f"{bucket}/{params['Key']}" if "Key" in params else bucket
    if operation in ("CopyObject", "UploadPartCopy"):
        source = unquote(params["CopySource"].partition("?")[0]).removeprefix("/")
        yield "s3:GetObject", f"arn:aws:s3:::{source}"


def _role(params: Mapping[str, Any], account: str) -> str:
    if "RoleName" in params:
        return f"arn:aws:iam::{account}:role{params.get('Path', '/')}{params['RoleName']}"
    return str(params.get("PolicySourceArn", "*"))


def _log_group(params: Mapping[str, Any], region: str, account: str) -> str:
    named = params.get("logGroupName") or params.get("logGroupIdentifier") or "*"
    group = named.rpartition(":log-group:")[2].removesuffix(":*")
    arn = f"arn:aws:logs:{region}:{account}:log-group:{group}"
    return f"{arn}:log-stream:{params['logStreamName']}" if "logStreamName" in params else f"{arn}:*"
