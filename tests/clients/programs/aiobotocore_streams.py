"""aiobotocore: two streams at once on one event loop.."""

from __future__ import annotations

import asyncio
import json
import sys

from aiobotocore.session import get_session


async def stream(runtime, name: str, body: dict) -> list[str]:  # type: ignore[no-untyped-def, type-arg]
    answer = await runtime.invoke_endpoint_with_response_stream(
        EndpointName=name, Body=json.dumps(body), ContentType="application/json"
    )
    return [event["PayloadPart"]["Bytes"].decode() async for event in answer["Body"]]


async def main(lmi: str, tgi: str) -> None:
    body = {"inputs": "what is life?", "parameters": {"max_new_tokens": 12, "return_full_text": False}}
    async with get_session().create_client("sagemaker-runtime") as runtime:
        lmi_parts, tgi_parts = await asyncio.gather(
            stream(runtime, lmi, body), stream(runtime, tgi, {**body, "stream": True})
        )
    print("RESULT", json.dumps({"lmi_parts": lmi_parts, "tgi_parts": tgi_parts}))


asyncio.run(main(*sys.argv[1:]))
