"""Reads whatever the endpoint streams, with `penstock.client`.

penstock torture -- python examples/torture/penstock_client.py
"""

import json
import os
import sys

import boto3
from botocore.config import Config

from penstock.client import StreamError, iter_tokens

# A stream that stalls must end some time: boto3 waits 60 s for the next byte unless told otherwise.
runtime = boto3.client("sagemaker-runtime", config=Config(read_timeout=5, retries={"total_max_attempts": 2}))
response = runtime.invoke_endpoint_with_response_stream(
    EndpointName=os.environ["PENSTOCK_ENDPOINT"],
    ContentType="application/json",
    Body=json.dumps({"inputs": "what is life?", "parameters": {"max_new_tokens": 200}, "stream": True}),
)
try:
    for token in iter_tokens(response["Body"]):
        print(token.text, end="", flush=True)
except StreamError as error:
    sys.exit(f"\nthe answer broke off after {len(error.text)} characters: {error}")
