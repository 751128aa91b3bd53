"""Readers for SageMaker's response streams that survive any slicing: lines, server-sent events, JSON, tokens.

Owns the way from PayloadPart events, or any byte chunks, to whole items; needs nothing but the standard library. It must
never know Penstock: it reads streams of AWS and of any other server alike.

    import boto3
    from penstock.client import iter_tokens

    response = boto3.client("sagemaker-runtime").invoke_endpoint_with_response_stream(...)
    for token in iter_tokens(response["Body"]):
        print(token.text, end="", flush=True)
"""

from penstock.client.errors import StreamError
from penstock.client.readers import (
    KEEP,
    MAX_LINE,
    LineIterator,
    aiter_json,
    aiter_lines,
    aiter_sse,
    aiter_tokens,
    iter_json,
    iter_lines,
    iter_sse,
    iter_tokens,
)
from penstock.client.shapes import Token
from penstock.client.sse import ServerSentEvent

__all__ = [
    "KEEP",
    "MAX_LINE",
    "LineIterator",
    "ServerSentEvent",
    "StreamError",
    "Token",
    "aiter_json",
    "aiter_lines",
    "aiter_sse",
    "aiter_tokens",
    "iter_json",
    "iter_lines",
    "iter_sse",
    "iter_tokens",
]
