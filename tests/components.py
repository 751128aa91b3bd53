"""Inference components for tests: the requests that make an endpoint for them, and one."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

ROLE = "arn:aws:iam::123456789012:role/r"
NEEDS = {"MinMemoryRequiredInMb": 1024, "NumberOfCpuCoresRequired": 1.0}


def hosting(name: str = "e", *variants: str, **more: Any) -> dict[str, Any]:
    """CreateEndpointConfig of an endpoint that takes components."""
    listed = [
        {"VariantName": variant, "InstanceType": "ml.g5.2xlarge", "InitialInstanceCount": 1}
        for variant in variants or ("AllTraffic",)
    ]
    return {"EndpointConfigName": name, "ExecutionRoleArn": ROLE, "ProductionVariants": listed, **more}


def scripted(script: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """A Specification of the scripted server."""
    environment = {} if script is None else {"PENSTOCK_SCRIPT": json.dumps(script)}
    return {
        "Container": {"Image": "penstock/scripted", "Environment": environment},
        "ComputeResourceRequirements": NEEDS,
    }


def component(name: str, endpoint: str = "e", *, copies: int = 1, **specification: Any) -> dict[str, Any]:
    """CreateInferenceComponent."""
    return {
        "InferenceComponentName": name,
        "EndpointName": endpoint,
        "VariantName": "AllTraffic",
        "Specification": specification or scripted(),
        "RuntimeConfig": {"CopyCount": copies},
    }
