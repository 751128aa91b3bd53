"""Scripts that name FasterTransformer find its service here; the model runs through the transformers library, and the log says so."""

from __future__ import annotations

import logging

from .huggingface import HuggingFaceService
from .inputs import Input
from .outputs import Output


class FasterTransformerService(HuggingFaceService):
    """The same requests and answers; a plain text is one prompt, and a list of JSON is prompts."""

    engine = "Accelerate"

    def initialize(self, properties: dict[str, str]) -> None:
        logging.info("FasterTransformer is not used here: the model runs through the transformers library")
        super().initialize(properties)


_service = FasterTransformerService()


def partition(inputs: Input) -> None:
    """Load the model, which has nothing to be cut into parts for."""
    _service.initialize(inputs.get_properties())


def handle(inputs: Input) -> Output | None:
    if not _service.initialized:
        _service.initialize(inputs.get_properties())
    return None if inputs.is_empty() else _service.inference(inputs)
