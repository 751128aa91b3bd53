"""What can go wrong with an invocation, in AWS's words.

Owns the runtime's errors: type, status, `ErrorCode` and text. It must never know a connection or decide when one applies.
AWS's page: "InvokeEndpointWithResponseStream", Errors; the texts are those that the service sends.
"""

from __future__ import annotations

from penstock.errors import AwsError
from penstock.routes import Endpoint

MAX_ORIGINAL = 64 * 1024
"""Bytes of a container's error body that are passed on; a longer one counts as one that could not be loaded."""


def no_such_endpoint(name: str, account: str) -> AwsError:
    return _validation(f"Endpoint {name} of account {account} not found.", "NO_SUCH_ENDPOINT")


def bad_endpoint_name(name: str) -> AwsError:
    text = (
        f"1 validation error detected: Value '{name}' at 'endpointName' failed to satisfy constraint: "
        "Member must satisfy regular expression pattern: ^[a-zA-Z0-9](-*[a-zA-Z0-9]){0,62}"
    )
    return _validation(text, "VALIDATION_ERROR")


def too_long(member: str, limit: int) -> AwsError:
    text = (
        f"1 validation error detected: Value at '{member}' failed to satisfy constraint: "
        f"Member must have length less than or equal to {limit}"
    )
    return _validation(text, "VALIDATION_ERROR")


def body_too_large(limit: int) -> AwsError:
    """AWS sends it without an error type, so that boto3 shows the code as "413"."""
    return AwsError("", f"HTTP content length exceeded {limit} bytes.", status=413)


def no_such_variant(variant: str, endpoint: str) -> AwsError:
    return _validation(f"Variant {variant} of endpoint {endpoint} not found.", "NO_SUCH_VARIANT")


def no_such_session(session: str, endpoint: str) -> AwsError:
    """Never opened, expired, closed, or lost with the instance that held it: the client must open another."""
    return _validation(f"Session {session} of endpoint {endpoint} not found.", "NO_SUCH_SESSION")


def no_new_session_here() -> AwsError:
    text = (
        "1 validation error detected: Value 'NEW_SESSION' at 'sessionId' failed to satisfy constraint: "
        "A session is opened with InvokeEndpoint."
    )
    return _validation(text, "VALIDATION_ERROR")


def invalid(text: str) -> AwsError:
    return _validation(text, "VALIDATION_ERROR")


def target_model_not_supported(endpoint: str) -> AwsError:
    text = f"Endpoint {endpoint} is not a multi-model endpoint and does not support target model header."
    return _validation(text, "TARGET_MODEL_HEADER_NOT_SUPPORTED")


def target_container_not_supported(endpoint: str) -> AwsError:
    text = (
        f"Endpoint {endpoint} is not a multi-container endpoint and does not support target container hostname header."
    )
    return _validation(text, "TARGET_CONTAINER_HOSTNAME_HEADER_NOT_SUPPORTED")


def target_model_missing(request_id: str) -> AwsError:
    return _validation(f"Request {request_id} is missing a target model header.", "TARGET_MODEL_HEADER_MISSING")


def target_container_missing(request_id: str) -> AwsError:
    text = f"Request {request_id} is missing a target container hostname header."
    return _validation(text, "TARGET_CONTAINER_HOSTNAME_HEADER_MISSING")


def no_such_container(container: str, endpoint: str) -> AwsError:
    return _validation(f"Container {container} of endpoint {endpoint} not found.", "NO_SUCH_CONTAINER")


def model_data_refused(text: str) -> AwsError:
    """The artifact of a TargetModel is missing, or is none."""
    return _validation(text, "MODEL_DATA_ERROR")


def model_not_ready() -> AwsError:
    text = (
        "Either a serverless endpoint variant's resources are still being provisioned, or a multi-model endpoint is still "
        "downloading or loading the target model. Wait and try your request again."
    )
    return AwsError("ModelNotReadyException", text, status=429, members={"ErrorCode": "MODEL_NOT_READY"})


def dependency(text: str) -> AwsError:
    """Storage of ours failed, not the request."""
    return AwsError("InternalDependencyException", text, status=530, members={"ErrorCode": "INTERNAL_DEPENDENCY"})


def inference_component_not_allowed() -> AwsError:
    text = (
        "Inference Component Name header is not allowed for endpoints to which you dont plan to deploy inference components. "
        "Please remove the Inference Component Name header and try again."
    )
    return _validation(text, "INFERENCE_COMPONENT_NAME_NOT_ALLOWED")


def inference_component_missing() -> AwsError:
    text = (
        "Inference Component Name header is required for endpoints to which you plan to deploy inference components. "
        "Please include Inference Component Name header or consider using SageMaker models."
    )
    return _validation(text, "INFERENCE_COMPONENT_NAME_MISSING")


def no_such_inference_component(name: str, endpoint: str) -> AwsError:
    return _validation(f"Inference Component {name} of endpoint {endpoint} not found.", "NO_SUCH_INFERENCE_COMPONENT")


def no_capacity() -> AwsError:
    """It has no copies, or none that is up: being created, scaled to zero, starting again."""
    text = (
        "Inference Component has no capacity to process this request. ApplicationAutoScaling may be in-progress (if "
        "configured) or try to increase the capacity by invoking UpdateInferenceComponentRuntimeConfig API."
    )
    return _validation(text, "INFERENCE_COMPONENT_NO_CAPACITY")


def _validation(text: str, code: str) -> AwsError:
    return AwsError("ValidationError", text, status=400, members={"ErrorCode": code})


def from_container(endpoint: Endpoint, container: str, status: int, body: bytes | None) -> AwsError:
    """A container answered with an error. `body` is None where it was too long or broke off."""
    kind = "client" if 400 <= status < 500 else "server"
    if not body:
        text = f"Received {kind} error ({status}) from {container} and could not load the entire response body."
        return _model_error(endpoint, text, status, "", f"{kind.upper()}_ERROR_FROM_MODEL")
    original = body.decode("utf-8", "replace")
    text = f'Received {kind} error ({status}) from {container} with message "{original}".'
    return _model_error(endpoint, text, status, original, f"{kind.upper()}_ERROR_FROM_MODEL")


def timed_out(endpoint: Endpoint, container: str) -> AwsError:
    original = (
        f"Your invocation timed out while waiting for a response from container {container}. Review the latency "
        "metrics for each container in Amazon CloudWatch, resolve the issue, and try again."
    )
    text = f'Received server error (0) from {container} with message "{original}".'
    return _model_error(endpoint, text, 0, original, "SERVER_ERROR_FROM_MODEL")


def no_response(endpoint: Endpoint) -> AwsError:
    """No replica could be reached, or the one that took the request left without an answer."""
    original = (
        f"Amazon SageMaker could not get a response from the {endpoint.name} endpoint. This can occur when CPU or "
        "memory utilization is high. To check your utilization, see Amazon CloudWatch. To fix this problem, use an "
        "instance type with more CPU capacity or memory."
    )
    text = f'Received server error (0) from model with message "{original}".'
    return _model_error(endpoint, text, 0, original, "SERVER_ERROR_FROM_MODEL")


def stream_timed_out(container: str) -> AwsError:
    text = f"Your model {container} did not complete sending the inference response in the allotted time."
    return AwsError("ModelStreamError", text, members={"ErrorCode": "ModelInvocationTimeExceeded"})


def stream_broken(container: str) -> AwsError:
    text = f"Your model {container} closed the connection before it had sent the whole inference response."
    return AwsError("ModelStreamError", text, members={"ErrorCode": "StreamBroken"})


def stream_ended_by_shutdown() -> AwsError:
    return AwsError("InternalStreamFailure", "The server is shutting down. Send the request again.", status=500)


def unavailable(text: str) -> AwsError:
    code = "ServiceUnavailable"
    return AwsError(code, text, status=503, members={"ErrorCode": "SERVICE_UNAVAILABLE"})


def internal() -> AwsError:
    text = "The server met an unexpected condition. Its log has the request's id."
    return AwsError("InternalFailure", text, status=500, members={"ErrorCode": "INTERNAL_FAILURE"})


def _model_error(endpoint: Endpoint, text: str, status: int, original: str, code: str) -> AwsError:
    region, account = endpoint.region, endpoint.account
    group = f"/aws/sagemaker/Endpoints/{endpoint.name}"
    if endpoint.components:  # of a request that reached a container: the one that it named
        group = f"/aws/sagemaker/InferenceComponents/{endpoint.components[0].name}"
    see = (
        f" See https://{region}.console.aws.amazon.com/cloudwatch/home?region={region}"
        f"#logEventViewer:group={group} in account {account} for more information."
    )
    partition = endpoint.arn.split(":")[1] if endpoint.arn.count(":") > 4 else "aws"
    members: dict[str, str | int] = {
        "ErrorCode": code,
        "OriginalStatusCode": status,
        "OriginalMessage": original,
        "LogStreamArn": f"arn:{partition}:logs:{region}:{account}:log-group:{group}",
    }
    return AwsError("ModelError", text + see, status=424, members=members)
