"""The operations of the SageMaker API, by AWS's names."""

from __future__ import annotations

import functools
from collections.abc import Mapping

from penstock.control.sagemaker import endpoint, endpoint_config, inference_component, model, tags
from penstock.control.sagemaker.context import Context
from penstock.control.service import Operation


def operations(context: Context) -> Mapping[str, Operation]:
    """Each operation, ready to be called with the caller and the request."""
    served = {
        "CreateModel": model.create,
        "DescribeModel": model.describe,
        "ListModels": model.list_,
        "DeleteModel": model.delete,
        "CreateEndpointConfig": endpoint_config.create,
        "DescribeEndpointConfig": endpoint_config.describe,
        "ListEndpointConfigs": endpoint_config.list_,
        "DeleteEndpointConfig": endpoint_config.delete,
        "CreateEndpoint": endpoint.create,
        "DescribeEndpoint": endpoint.describe,
        "ListEndpoints": endpoint.list_,
        "UpdateEndpoint": endpoint.update,
        "UpdateEndpointWeightsAndCapacities": endpoint.update_weights,
        "DeleteEndpoint": endpoint.delete,
        "CreateInferenceComponent": inference_component.create,
        "DescribeInferenceComponent": inference_component.describe,
        "ListInferenceComponents": inference_component.list_,
        "UpdateInferenceComponent": inference_component.update,
        "UpdateInferenceComponentRuntimeConfig": inference_component.update_runtime_config,
        "DeleteInferenceComponent": inference_component.delete,
        "AddTags": tags.add,
        "ListTags": tags.list_,
        "DeleteTags": tags.delete,
    }
    return {name: functools.partial(operation, context) for name, operation in served.items()}
