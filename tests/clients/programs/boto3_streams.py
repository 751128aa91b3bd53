"""Any boto3 since July 2023: stream from an LMI and a TGI endpoint, invoke without a stream, meet the errors.."""

from __future__ import annotations

import json
import sys

import boto3
import botocore
from botocore.config import Config
from botocore.exceptions import ClientError


def main(lmi: str, tgi: str) -> None:
    runtime = boto3.client("sagemaker-runtime", config=Config(retries={"total_max_attempts": 1}))
    question = {"inputs": "what is life?", "parameters": {"max_new_tokens": 12, "return_full_text": False}}

    answer = runtime.invoke_endpoint_with_response_stream(
        EndpointName=lmi, Body=json.dumps(question), ContentType="application/json", CustomAttributes="accept_eula=true"
    )
    lmi_parts = [event["PayloadPart"]["Bytes"].decode() for event in answer["Body"]]

    streamed = runtime.invoke_endpoint_with_response_stream(
        EndpointName=tgi, Body=json.dumps({**question, "stream": True}), ContentType="application/json", Accept="*/*"
    )
    tgi_parts = [event["PayloadPart"]["Bytes"].decode() for event in streamed["Body"]]

    whole = runtime.invoke_endpoint(EndpointName=tgi, Body=json.dumps(question), ContentType="application/json")
    errors = {}
    for case, name, body in (("unknown", "no-such-endpoint", "{}"), ("malformed", tgi, "{not json")):
        try:
            runtime.invoke_endpoint(EndpointName=name, Body=body, ContentType="application/json")
        except ClientError as error:
            errors[case] = {
                "code": error.response["Error"]["Code"],
                "message": error.response["Error"]["Message"],
                "status": error.response["ResponseMetadata"]["HTTPStatusCode"],
                "original": error.response.get("OriginalStatusCode"),
            }
    print(
        "RESULT",
        json.dumps(
            {
                "botocore": botocore.__version__,
                "lmi_parts": lmi_parts,
                "lmi_content_type": answer["ContentType"],
                "variant": answer["InvokedProductionVariant"],
                "tgi_parts": tgi_parts,
                "tgi_content_type": streamed["ContentType"],
                "whole": json.loads(whole["Body"].read()),
                "errors": errors,
            }
        ),
    )


main(*sys.argv[1:])
