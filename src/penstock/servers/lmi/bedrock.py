"""`option.bedrock_compat`: the body of a request as Amazon Bedrock hands it on.

Owns its keys and defaults, and the header that says whether the answer is streamed. It must never know what an answer looks like
(`laterformatters.py`).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from penstock.servers.lmi.parameters import BadInput, Given, TextParameters
from penstock.servers.lmi.requests import Invocation

FORWARDED_API = "X-Amzn-SageMaker-Forwarded-Api"
STREAMS = "InvokeEndpointWithResponseStream"


def body_of(request: Invocation) -> Mapping[str, Any]:
    """The body as an object. Raises BadInput."""
    try:
        value = request.document()
    except (ValueError, RecursionError) as error:
        raise BadInput(str(error)) from error
    if not isinstance(value, dict):
        raise BadInput("the body must be a JSON object with the key prompt")
    return value


def read(body: Mapping[str, Any], request: Invocation) -> tuple[str, TextParameters, bool]:
    """The prompt, the parameters, and whether the answer is streamed. Raises BadInput."""
    given = Given(body)
    if not (prompt := given.text("prompt", "")):
        raise BadInput("prompt must be a string that is not empty")
    temperature = given.real("temperature", 0.5, least=0.0)
    parameters = TextParameters(
        max_new_tokens=given.whole("max_gen_len", 512, least=1),
        do_sample=temperature > 0,
        temperature=temperature or 1.0,
        top_p=given.real("top_p", 0.9, above=0.0, most=1.0) if temperature else 1.0,
        return_full_text=True,
        details=True,
    )
    return prompt, parameters, request.attribute(FORWARDED_API) == STREAMS
