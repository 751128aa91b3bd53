"""The `djl_python` that the handler sees: the very classes, so that an Output of the handler's is one of ours."""

from __future__ import annotations

import importlib
from typing import Any

_djl_python = importlib.import_module("djl_python")

Input: Any = _djl_python.Input
Output: Any = _djl_python.Output
_encode_decode = importlib.import_module("djl_python.encode_decode")
decode: Any = _encode_decode.decode
encode: Any = _encode_decode.encode
find_decorated: Any = importlib.import_module("djl_python.service_loader").find_decorated_function
create_request: Any = importlib.import_module("djl_python.test_model").create_request
