"""SageMaker SDK v3, `sagemaker.core` resources: create, wait, invoke, stream with boto3, delete.."""

from __future__ import annotations

import json

import boto3
from sagemaker.core.resources import Endpoint, EndpointConfig, Model
from sagemaker.core.shapes import ContainerDefinition, ProductionVariant

IMAGE = "763104351884.dkr.ecr.us-east-1.amazonaws.com/huggingface-pytorch-tgi-inference:2.0.1-tgi1.0.3-gpu-py39-cu118-ubuntu20.04"
ROLE = "arn:aws:iam::123456789012:role/PenstockExecutionRole"
NAME = "v3-resources"

container = ContainerDefinition(image=IMAGE, environment={"HF_MODEL_ID": "tiiuae/falcon-7b-instruct"})
model = Model.create(model_name=NAME, primary_container=container, execution_role_arn=ROLE)
config = EndpointConfig.create(
    endpoint_config_name=NAME,
    production_variants=[
        ProductionVariant(
            variant_name="AllTraffic", model_name=NAME, instance_type="ml.g5.2xlarge", initial_instance_count=1
        )
    ],
)
endpoint = Endpoint.create(endpoint_name=NAME, endpoint_config_name=NAME)
endpoint.wait_for_status("InService", poll=1)

question = {"inputs": "what is life?", "parameters": {"max_new_tokens": 16, "return_full_text": False}}
answer = endpoint.invoke(body=json.dumps(question), content_type="application/json")
whole = json.loads(answer.body.read())

# The SDK's own Endpoint.invoke_with_response_stream takes the stream for a dict (3.27.0), so its users stream with boto3.
stream = boto3.client("sagemaker-runtime").invoke_endpoint_with_response_stream(
    EndpointName=NAME, Body=json.dumps({**question, "stream": True}), ContentType="application/json"
)
parts = [event["PayloadPart"]["Bytes"].decode() for event in stream["Body"]]

status = Endpoint.get(endpoint_name=NAME).endpoint_status
endpoint.delete()
endpoint.wait_for_delete(poll=1)
config.delete()
model.delete()
print("RESULT", json.dumps({"whole": whole, "parts": parts, "status": status}))
