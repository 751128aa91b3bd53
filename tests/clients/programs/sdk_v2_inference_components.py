"""SageMaker SDK v2: `Model.deploy` with resource requirements makes an inference component on an endpoint for it; predict; delete."""

from __future__ import annotations

import json

import boto3
from sagemaker.compute_resource_requirements.resource_requirements import ResourceRequirements
from sagemaker.enums import EndpointType
from sagemaker.model import Model
from sagemaker.predictor import Predictor
from sagemaker.session import Session

ROLE = "arn:aws:iam::123456789012:role/PenstockExecutionRole"
NAME = "v2-components"

session = Session(
    sagemaker_client=boto3.client("sagemaker"), sagemaker_runtime_client=boto3.client("sagemaker-runtime")
)
model = Model(
    image_uri="penstock/scripted",
    role=ROLE,
    sagemaker_session=session,
    predictor_cls=Predictor,
    env={"PENSTOCK_SCRIPT": json.dumps({"steps": [{"echo": "body"}]})},
)
predictor = model.deploy(
    initial_instance_count=1,
    instance_type="ml.g5.2xlarge",
    endpoint_name=NAME,
    endpoint_type=EndpointType.INFERENCE_COMPONENT_BASED,
    resources=ResourceRequirements(requests={"copies": 1, "memory": 1024, "num_cpus": 1}),
)
heard = predictor.predict(b"hello").decode()
component = predictor.component_name
based = session.is_inference_component_based_endpoint(NAME)
listed = session.list_and_paginate_inference_component_names_associated_with_endpoint(endpoint_name=NAME)
session.delete_inference_component(component, wait=True)
session.delete_endpoint(NAME)
session.delete_endpoint_config(NAME)
result = {"heard": heard, "component": component, "based": based, "listed": listed, "endpoint": NAME}
print("RESULT", json.dumps(result))
