"""Scripts that name TensorRT-LLM find its service here; the model runs through the transformers library, and the log says so."""

from __future__ import annotations

from .huggingface import StandIn, handler_of, partition_of


class TRTLLMService(StandIn):
    """The same requests and answers; a plain text is one prompt, and a list of JSON is prompts."""

    engine = "Accelerate"
    library = "TensorRT-LLM"


_service = TRTLLMService()
partition = partition_of(_service)
handle = handler_of(_service)
