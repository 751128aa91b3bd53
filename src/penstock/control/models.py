"""Loads AWS's service models from the data files of the botocore package.

Owns where they lie and which version is taken. botocore itself is not imported: only its JSON is read (see `wire/shapes.py`).
"""

from __future__ import annotations

import functools
import gzip
import importlib.util
from pathlib import Path

from penstock.wire.shapes import ServiceModel, read_model


@functools.cache
def load(service: str, served: frozenset[str]) -> ServiceModel:
    """The newest model of `service` (botocore's folder name: `sagemaker`, `logs` …), with the operations in `served`.

    Takes 10 to 60 ms. Raises FileNotFoundError without botocore, ValueError for an operation that the model lacks.
    """
    spec = importlib.util.find_spec("botocore")
    if spec is None or spec.origin is None:
        raise FileNotFoundError("the package botocore is not installed")
    versions = sorted(Path(spec.origin).parent.joinpath("data", service).glob("*/service-2.json*"))
    if not versions:
        raise FileNotFoundError(f"botocore has no service {service}")
    content = versions[-1].read_bytes()
    return read_model(service, gzip.decompress(content) if versions[-1].suffix == ".gz" else content, served)
