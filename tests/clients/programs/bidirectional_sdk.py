"""Hold a conversation with AWS's own SDK for bidirectional streams; it needs Python 3.12."""

from __future__ import annotations

import asyncio
import json
import sys

from aws_sdk_sagemaker_runtime_http2.client import AsyncSageMakerRuntimeHTTP2Client
from aws_sdk_sagemaker_runtime_http2.config import AsyncSageMakerRuntimeHTTP2Config
from aws_sdk_sagemaker_runtime_http2.models import (
    InputValidationError,
    InvokeEndpointWithBidirectionalStreamInput,
    RequestPayloadPart,
    RequestStreamEventPayloadPart,
)
from smithy_http.aio.crt import AWSCRTHTTPClient


async def main(endpoint: str) -> dict[str, object]:
    config = await AsyncSageMakerRuntimeHTTP2Config.resolve(transport=AWSCRTHTTPClient())
    client = AsyncSageMakerRuntimeHTTP2Client(config=config)
    stream = await client.invoke_endpoint_with_bidirectional_stream(
        InvokeEndpointWithBidirectionalStreamInput(endpoint_name=endpoint)
    )
    heard: list[list[str | None]] = []
    _, answers = await stream.await_output()
    for text in ("one", "two"):
        part = RequestPayloadPart(bytes_=text.encode(), data_type="UTF8", completion_state="COMPLETE")
        await stream.input_stream.send(RequestStreamEventPayloadPart(part))
    while sum(len(piece or "") for _, piece in heard) < len("onetwo"):
        event = await answers.receive()
        heard.append([event.value.data_type, event.value.bytes_.decode()])
    await stream.input_stream.close()
    await stream.close()
    refused = ""
    try:
        unknown = InvokeEndpointWithBidirectionalStreamInput(endpoint_name="nobody")
        await (await client.invoke_endpoint_with_bidirectional_stream(unknown)).await_output()
    except InputValidationError as error:
        refused = error.error_code or ""
    return {
        "heard": "".join(piece or "" for _, piece in heard),
        "types": sorted({kind or "" for kind, _ in heard}),
        "refused": refused,
    }


print("RESULT", json.dumps(asyncio.run(main(sys.argv[1]))))
