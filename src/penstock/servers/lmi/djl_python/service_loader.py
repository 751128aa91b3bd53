"""Finding a script's functions."""

from __future__ import annotations

import importlib
import importlib.util
import os
import sys
from collections.abc import Callable
from types import ModuleType
from typing import Any


class ModelService:
    """A script and the directory of its model."""

    def __init__(self, module: ModuleType, model_dir: str) -> None:
        self.module = module
        self.model_dir = model_dir

    def invoke_handler(self, function_name: str, inputs: Any) -> Any:
        inputs.properties["model_dir"] = self.model_dir
        return getattr(self.module, function_name)(inputs)

    async def invoke_handler_async(self, function_name: str, inputs: Any) -> Any:
        inputs.properties["model_dir"] = self.model_dir
        return await getattr(self.module, function_name)(inputs)


def load_model_service(model_dir: str, entry_point: str, device_id: Any, namespace: str | None = None) -> ModelService:
    """Import a script: a file of the model, an absolute one, or a module. Raises ValueError where there is none.

    A TorchServe archive (`MAR-INF`) is refused: ValueError.
    """
    if os.path.exists(os.path.join(model_dir, "MAR-INF", "MANIFEST.json")):
        raise ValueError(f"{model_dir} is a TorchServe archive, which is not supported: write a model.py")
    if not entry_point.endswith(".py"):
        return ModelService(importlib.import_module(entry_point), model_dir)
    file = os.path.join(model_dir, entry_point)  # an absolute entry point stays what it is
    if not os.path.exists(file):
        raise ValueError(f"entry-point file not found {file}.")
    name = f"ns_{namespace.replace('-', '_').replace('.', '_')}" if namespace else os.path.basename(file)[: -len(".py")]
    spec = importlib.util.spec_from_file_location(name, file)
    if spec is None or spec.loader is None:
        raise ValueError(f"Unable to load entry_point {file}")
    module = sys.modules[name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return ModelService(module, model_dir)


def has_function_in_module(module: ModuleType, function_name: str) -> bool:
    return callable(getattr(module, function_name, None))


def find_decorated_function(module: ModuleType, decorator_attribute: str) -> Callable[..., Any] | None:
    """The function that a decorator of this package has marked, such as `is_output_formatter`."""
    for name in dir(module):
        function = getattr(module, name)
        if callable(function) and getattr(function, decorator_attribute, False) is True:
            return function  # type: ignore[no-any-return]
    return None


def get_annotated_function(
    model_dir: str, decorator_attribute: str, namespace: str | None = None
) -> Callable[..., Any] | None:
    """The marked function of the model's model.py; None without either."""
    if not os.path.exists(os.path.join(model_dir, "model.py")):
        return None
    return find_decorated_function(load_model_service(model_dir, "model.py", -1, namespace).module, decorator_attribute)
