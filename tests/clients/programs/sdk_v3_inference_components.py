"""SageMaker SDK v3, `sagemaker.core` resources: two inference components on one endpoint, from creation to deletion."""

from __future__ import annotations

import json

import boto3
from sagemaker.core.resources import Endpoint, EndpointConfig, InferenceComponent, Model
from sagemaker.core.shapes import (
    ContainerDefinition,
    InferenceComponentComputeResourceRequirements,
    InferenceComponentContainerSpecification,
    InferenceComponentRuntimeConfig,
    InferenceComponentSpecification,
    InferenceComponentStartupParameters,
    ProductionVariant,
)

ROLE = "arn:aws:iam::123456789012:role/PenstockExecutionRole"
NAME = "v3-components"
needs = InferenceComponentComputeResourceRequirements(min_memory_required_in_mb=1024, number_of_cpu_cores_required=1)
startup = InferenceComponentStartupParameters(container_startup_health_check_timeout_in_seconds=120)


def says(word: str) -> dict[str, str]:
    return {"PENSTOCK_SCRIPT": json.dumps({"steps": [{"send": word}]})}


config = EndpointConfig.create(
    endpoint_config_name=NAME,
    execution_role_arn=ROLE,
    production_variants=[
        ProductionVariant(variant_name="AllTraffic", instance_type="ml.g5.2xlarge", initial_instance_count=1)
    ],
)
endpoint = Endpoint.create(endpoint_name=NAME, endpoint_config_name=NAME)
endpoint.wait_for_status("InService", poll=1)

model = Model.create(
    model_name=NAME,
    execution_role_arn=ROLE,
    primary_container=ContainerDefinition(image="penstock/scripted", environment=says("of a model")),
)
specifications = {
    f"{NAME}-model": InferenceComponentSpecification(
        model_name=NAME, startup_parameters=startup, compute_resource_requirements=needs
    ),
    f"{NAME}-image": InferenceComponentSpecification(
        container=InferenceComponentContainerSpecification(image="penstock/scripted", environment=says("of an image")),
        compute_resource_requirements=needs,
    ),
}
components = [
    InferenceComponent.create(
        inference_component_name=name,
        endpoint_name=NAME,
        variant_name="AllTraffic",
        specification=specification,
        runtime_config=InferenceComponentRuntimeConfig(copy_count=1),
    )
    for name, specification in specifications.items()
]
for component in components:
    component.wait_for_status("InService", poll=1)

runtime = boto3.client("sagemaker-runtime")


def invoke(name: str) -> str:
    answer = runtime.invoke_endpoint(EndpointName=NAME, InferenceComponentName=name, Body=b"x")
    return str(answer["Body"].read().decode())


heard = {name: invoke(name) for name in specifications}
answer = endpoint.invoke(body="x", inference_component_name=f"{NAME}-image")
by_the_resource = answer.body.read().decode()

first = components[0]
first.update_runtime_configs(desired_runtime_config=InferenceComponentRuntimeConfig(copy_count=2))
first.wait_for_status("InService", poll=1)
scaled = first.runtime_config.current_copy_count
components[1].update(specification=InferenceComponentSpecification(model_name=NAME))
components[1].wait_for_status("InService", poll=1)
updated = invoke(f"{NAME}-image")
listed = sorted(one.inference_component_name for one in InferenceComponent.get_all(endpoint_name_equals=NAME))

for component in components:
    component.delete()
for component in components:
    component.wait_for_delete(poll=1)
endpoint.delete()
endpoint.wait_for_delete(poll=1)
config.delete()
model.delete()
result = {"heard": heard, "by_the_resource": by_the_resource, "scaled": scaled, "updated": updated, "listed": listed}
print("RESULT", json.dumps(result))
