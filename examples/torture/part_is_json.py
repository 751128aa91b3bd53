"""Reads LMI's JSON lines, and takes each part for one whole JSON text; what is none is skipped as noise.

penstock torture -- python examples/torture/part_is_json.py
"""

import json
import os

import boto3

response = boto3.client("sagemaker-runtime").invoke_endpoint_with_response_stream(
    EndpointName=os.environ["PENSTOCK_ENDPOINT"],
    ContentType="application/json",
    Body=json.dumps({"inputs": "what is life?", "parameters": {"max_new_tokens": 200}}),
)
for event in response["Body"]:
    try:
        piece = json.loads(event["PayloadPart"]["Bytes"])
    except ValueError:
        continue
    print(piece["outputs"][0], end="", flush=True)
