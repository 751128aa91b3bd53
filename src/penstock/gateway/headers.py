"""Which headers cross the gateway, and under which names.

Owns the runtime API's header lists in both directions, their asymmetries included. It must never touch a connection.
AWS's pages: "InvokeEndpoint" and "InvokeEndpointWithResponseStream", Request and Response Syntax; every other POST header is stripped.
"""

from __future__ import annotations

from penstock._speed import COMPILED
from penstock.gateway import failures

if COMPILED:
    from penstock._speed import native

Rule = tuple[str, str, int]
"""The member's name in AWS's messages, the name on the wire towards the container, and the longest value."""

_SHARED: dict[str, Rule] = {
    "content-type": ("contentType", "Content-Type", 1024),
    "x-amzn-sagemaker-custom-attributes": ("customAttributes", "X-Amzn-SageMaker-Custom-Attributes", 1024),
    "x-amzn-sagemaker-target-variant": ("targetVariant", "X-Amzn-SageMaker-Target-Variant", 63),
    "x-amzn-sagemaker-target-container-hostname": (
        "targetContainerHostname",
        "X-Amzn-SageMaker-Target-Container-Hostname",
        63,
    ),
    "x-amzn-sagemaker-inference-id": ("inferenceId", "X-Amzn-SageMaker-Inference-Id", 64),
    "x-amzn-sagemaker-inference-component": (
        "inferenceComponentName",
        "X-Amzn-SageMaker-Inference-Component",
        63,
    ),
    "x-amzn-sagemaker-session-id": ("sessionId", "X-Amzn-SageMaker-Session-Id", 256),
    "x-amzn-sagemaker-prefix-aware-id": ("prefixAwareId", "X-Amzn-SageMaker-Prefix-Aware-Id", 64),
}
UNARY: dict[str, Rule] = _SHARED | {
    "accept": ("accept", "Accept", 1024),
    "x-amzn-sagemaker-target-model": ("targetModel", "X-Amzn-SageMaker-Target-Model", 1024),
    "x-amzn-sagemaker-enable-explanations": ("enableExplanations", "X-Amzn-SageMaker-Enable-Explanations", 64),
}
"""What InvokeEndpoint passes to the container."""
STREAMED: dict[str, Rule] = _SHARED | {"x-amzn-sagemaker-accept": ("accept", "Accept", 1024)}
"""What the streamed call passes: its `Accept` is about the event stream, `X-Amzn-SageMaker-Accept` about the model's answer."""

OPENAI: dict[str, Rule] = {name: rule for name, rule in UNARY.items() if name != "x-amzn-sagemaker-target-model"}
"""What the OpenAI route passes."""

BIDIRECTIONAL: dict[str, Rule] = {
    name: _SHARED[name] for name in ("x-amzn-sagemaker-target-variant", "x-amzn-sagemaker-target-container-hostname")
}
"""What the bidirectional call passes with the WebSocket's handshake."""

TARGET_MODEL = "x-amzn-sagemaker-target-model"
TARGET_CONTAINER = "x-amzn-sagemaker-target-container-hostname"
PREFIX_ID = "x-amzn-sagemaker-prefix-aware-id"
INFERENCE_COMPONENT = "x-amzn-sagemaker-inference-component"
CUSTOM_ATTRIBUTES = "x-amzn-sagemaker-custom-attributes"
INVOCATION_PATH = "x-amzn-sagemaker-model-invocation-path"
QUERY_STRING = "x-amzn-sagemaker-model-query-string"
SESSION = "x-amzn-sagemaker-session-id"
NEW_SESSION = "x-amzn-sagemaker-new-session-id"
CLOSED_SESSION = "x-amzn-sagemaker-closed-session-id"


def to_container(headers: dict[str, str], rules: dict[str, Rule], length: int) -> bytes:
    """The headers that a container gets, but for Host. Raises AwsError (ValidationError) on a value longer than the API allows."""
    return (native.container_head(headers, rules, length) if COMPILED else None) or to_container_here(
        headers, rules, length
    )


def to_container_here(headers: dict[str, str], rules: dict[str, Rule], length: int) -> bytes:
    """The same in Python."""
    lines = f"Content-Length: {length}\r\n"
    for name in [one for one in rules if one in headers]:
        member, wire, limit = rules[name]
        value = headers[name]
        if len(value) > limit:
            raise failures.too_long(member, limit)
        lines += f"{wire}: {value}\r\n"
    return f"{lines}\r\n".encode("latin-1")
