"""REST-JSON errors as SageMaker's runtime tells them.

Owns that shape: capitalised members, and the type in a header, where the SDKs look for it. It must never do I/O.
"""

from __future__ import annotations

import json

from penstock.errors import AwsError
from penstock.wire.messages import WireResponse


def render_error(error: AwsError, request_id: str) -> WireResponse:
    """`{"ErrorCode": …, "Message": …}` with `x-amzn-errortype`, which is left out where the error has no code."""
    headers = {"x-amzn-requestid": request_id, "content-type": "application/json"}
    if error.code:
        headers["x-amzn-errortype"] = error.code
    return WireResponse(error.status, headers, json.dumps({**error.members, "Message": error.message}).encode())
