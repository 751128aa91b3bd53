"""Reads TGI's events, and takes each part for whole UTF-8 text.

penstock torture -- python examples/torture/part_is_text.py
"""

import json
import os

import boto3

response = boto3.client("sagemaker-runtime").invoke_endpoint_with_response_stream(
    EndpointName=os.environ["PENSTOCK_ENDPOINT"],
    ContentType="application/json",
    Body=json.dumps({"inputs": "what is life?", "parameters": {"max_new_tokens": 200}, "stream": True}),
)
text = ""
for event in response["Body"]:
    text += event["PayloadPart"]["Bytes"].decode("utf-8")
    *whole, text = text.split("\n")
    for line in whole:
        if line.startswith("data:"):
            print(json.loads(line[len("data:") :])["token"]["text"], end="", flush=True)
