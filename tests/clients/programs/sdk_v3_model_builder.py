"""SageMaker SDK v3, `ModelBuilder(image_uri=…).build().deploy()`, streaming with boto3.."""

from __future__ import annotations

import json

import boto3
from sagemaker.serve.model_builder import ModelBuilder

IMAGE = "763104351884.dkr.ecr.us-east-1.amazonaws.com/huggingface-pytorch-tgi-inference:2.0.1-tgi1.0.3-gpu-py39-cu118-ubuntu20.04"
NAME = "v3-model-builder"

builder = ModelBuilder(
    image_uri=IMAGE, env_vars={"HF_MODEL_ID": "tiiuae/falcon-7b-instruct"}, instance_type="ml.g5.2xlarge"
)
builder.build()
endpoint = builder.deploy(endpoint_name=NAME, initial_instance_count=1, instance_type="ml.g5.2xlarge")

question = {"inputs": "what is life?", "parameters": {"max_new_tokens": 16, "return_full_text": False}}
whole = endpoint.invoke(body=json.dumps(question), content_type="application/json")
stream = boto3.client("sagemaker-runtime").invoke_endpoint_with_response_stream(
    EndpointName=NAME, Body=json.dumps({**question, "stream": True}), ContentType="application/json"
)
parts = [event["PayloadPart"]["Bytes"].decode() for event in stream["Body"]]
endpoint.delete()
print(
    "RESULT", json.dumps({"whole": json.loads(whole.body.read()), "parts": parts, "endpoint": endpoint.endpoint_name})
)
