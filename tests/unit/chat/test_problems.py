"""Every error says what happened and what to do."""

from __future__ import annotations

from typing import Any

import pytest
from botocore.exceptions import ClientError, EndpointConnectionError, ReadTimeoutError, SSLError

from penstock.chat.problems import Problem, problem_of
from penstock.client import StreamError


def refusal(code: str, message: str, **members: Any) -> ClientError:
    return ClientError({"Error": {"Code": code, "Message": message}, **members}, "InvokeEndpointWithResponseStream")


@pytest.mark.parametrize(
    ("error", "title", "detail"),
    [
        (
            SSLError(endpoint_url="https://a", error="self-signed"),
            "The server's certificate is not trusted.",
            "AWS_CA_BUNDLE",
        ),
        (EndpointConnectionError(endpoint_url="https://a"), "Nothing answers there.", "https://a"),
        (ReadTimeoutError(endpoint_url="https://a"), "The endpoint kept silent for too long.", "https://a"),
        (refusal("ModelError", "m", OriginalStatusCode=0), "The endpoint's model server does not answer.", "m"),
        (refusal("ExpiredTokenException", "m"), "These AWS credentials are not accepted.", "ExpiredTokenException"),
        (
            refusal("AccessDeniedException", "no InvokeEndpoint"),
            "These AWS credentials may not do that.",
            "no InvokeEndpoint",
        ),
        (refusal("ThrottlingException", "m"), "The endpoint is busy. Try again in a moment.", "m"),
        (refusal("ValidationError", "odd"), "The endpoint refused the request: ValidationError.", "odd"),
        (StreamError("500", "OOM", origin="container"), "The model server reported an error: 500.", "OOM"),
        (StreamError("X", "m", origin="connection"), "The connection broke in the middle of the answer.", "m (X)"),
        (StreamError("Truncated", "m"), "The answer is not complete.", "m (Truncated)"),
        (ValueError("odd"), "The request failed: ValueError.", "odd"),
    ],
)
def test_titles_and_details(error: Exception, title: str, detail: str) -> None:
    problem = problem_of(error)
    assert problem.title == title
    assert detail in problem.detail
    assert isinstance(problem, Problem)
