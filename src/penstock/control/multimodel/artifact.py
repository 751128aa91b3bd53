"""Where a TargetModel's artifact lies below the prefix of its variant.

Pure. AWS's page: "Invoke a Multi-Model Endpoint": the model's path is the prefix and TargetModel, joined.
"""

from __future__ import annotations

from penstock.placement.base import ModelData


def model_data(prefix: str, target_model: str) -> ModelData:
    """A tar.gz, or with a slash at the end the objects below that prefix, as they are."""
    url = f"{prefix.rstrip('/')}/{target_model.lstrip('/')}"
    return ModelData(url, "prefix" if url.endswith("/") else "tar.gz")


def not_there(url: str) -> str:
    """The text for a model whose artifact does not exist."""
    bucket, _, key = url.removeprefix("s3://").partition("/")
    return (
        f"Failed to download model data(bucket: {bucket}, key: {key}). Please ensure that there is an object located at the URL and "
        "that the role passed to CreateModel has permissions to download the model."
    )
