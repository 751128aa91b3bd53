"""Models of the transformers library, for scripts that build upon the default handler.

Owns one loaded model: a pipeline, or generation step by step. torch and transformers are the handler's own: without them `initialize` says
which packages to put into requirements.txt.
"""

from __future__ import annotations

import importlib
import json
import logging
import os
from collections.abc import Callable, Iterator
from typing import Any, Protocol

from .encode_decode import decode, encode
from .inputs import Input
from .outputs import Output
from .streaming_utils import StreamingUtils

ARCHITECTURES_2_TASK = {
    "TapasForQuestionAnswering": "table-question-answering",
    "ForQuestionAnswering": "question-answering",
    "ForTokenClassification": "token-classification",
    "ForSequenceClassification": "text-classification",
    "ForMultipleChoice": "multiple-choice",
    "ForMaskedLM": "fill-mask",
    "ForCausalLM": "text-generation",
    "ForConditionalGeneration": "text2text-generation",
    "MTModel": "text2text-generation",
    "EncoderDecoderModel": "text2text-generation",
    "GPT2LMHeadModel": "text-generation",
    "T5WithLMHeadModel": "text2text-generation",
    "BloomModel": "text-generation",
}
_GENERATING = ("text-generation", "text2text-generation")
_ONE_SET = "In order to enable dynamic batching, all input batches must have the same parameters"
_LOADING = ("device_map", "low_cpu_mem_usage", "load_in_8bit", "load_in_4bit")


def get_torch_dtype_from_str(dtype: str | None) -> Any:
    """torch's type of an `option.dtype`. Raises ValueError on another word."""
    if dtype is None or dtype == "auto":
        return dtype
    names = {"fp32": "float32", "fp16": "float16", "bf16": "bfloat16", "int8": "int8"}
    if dtype not in names:
        raise ValueError(f"Invalid data type: {dtype}")
    return getattr(library("torch"), names[dtype])


def library(name: str) -> Any:
    """torch or transformers. Raises RuntimeError that says where they have to be."""
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name != name:
            raise
        raise RuntimeError(
            f"{name} is not installed in the handler's Python: add torch and transformers to the model's requirements.txt"
        ) from error


class HuggingFaceService:
    """A model, once `initialize` has loaded it. Scripts override and call its methods."""

    engine = "Accelerate"

    def __init__(self) -> None:
        self.hf_pipeline: Callable[..., Any] | None = None
        self.initialized = False
        self.enable_streaming: str | None = None
        self.model: Any = None
        self.device: str | None = None
        self.tokenizer: Any = None
        self.trust_remote_code = os.environ.get("HF_TRUST_REMOTE_CODE", "FALSE").lower() == "true"
        self.rolling_batch_type: str | None = None
        self.model_config: Any = None
        self.output_formatter = ""

    def initialize(self, properties: dict[str, str]) -> None:
        """Load what the options name. Raises RuntimeError without the libraries, ValueError on options that can't be."""
        transformers = library("transformers")
        path = properties.get("model_id") or properties["model_dir"]
        device = int(properties.get("device_id", "-1"))
        self.device = f"cuda:{device}" if device >= 0 else None
        streaming = properties.get("enable_streaming", "false")
        self.enable_streaming = None if streaming.lower() == "false" else streaming
        self.rolling_batch_type = properties.get("rolling_batch", "").lower().replace("disable", "") or None
        self.output_formatter = properties.get("output_formatter", "")
        if "trust_remote_code" in properties:
            self.trust_remote_code = properties["trust_remote_code"].lower() == "true"
        arguments = self._loading_arguments(properties)
        self.model_config = transformers.AutoConfig.from_pretrained(path, trust_remote_code=self.trust_remote_code)
        task = properties.get("task") or self.infer_task_from_model_architecture()
        if properties.get("task", _GENERATING[0]) not in (*_GENERATING, ""):  # whose answers have no steps
            self.enable_streaming = self.rolling_batch_type = None
        if task in _GENERATING or self.enable_streaming or self.rolling_batch_type:
            self._init_model_and_tokenizer(path, **arguments)
        if not self.enable_streaming and not self.rolling_batch_type:
            self.hf_pipeline = self.get_pipeline(task, path, arguments)
        self.initialized = True

    def inference(self, inputs: Input) -> Output:
        """Answer a request, or several in one."""
        data, sizes, parameters, errors, batch = self.parse_input(inputs)
        outputs = Output()
        if not data:
            for index in range(len(batch)):
                error = json.dumps({"code": 424, "error": errors.get(index)})
                outputs.add(error, key="data", batch_index=index if inputs.is_batch() else None)
            return outputs
        if self.rolling_batch_type or self.enable_streaming:
            return self._streamed(outputs, data, parameters[0])
        assert self.hf_pipeline is not None, "initialize has made it"
        prediction = self.hf_pipeline(data, **parameters[0])
        at = 0
        for index, item in enumerate(batch):
            key = inputs.get_content().key_at(index)
            answer = errors.get(index) or prediction[at : at + sizes[index]]
            encode(outputs, answer, _accept(item), key=key)
            at += sizes[index]
        return outputs

    def parse_input(
        self, inputs: Input
    ) -> tuple[list[Any], list[int], list[dict[str, Any]], dict[int, str], list[Input]]:
        """All prompts, how many each request has, the parameters, what is wrong by request, and the requests."""
        data: list[Any] = []
        sizes: list[int] = []
        parameters: list[dict[str, Any]] = []
        errors: dict[int, str] = {}
        batch = inputs.get_batches()
        for index, item in enumerate(batch):
            before = len(data)
            try:
                prompts, given = self.read(item)
                if parameters and parameters[0] != given:
                    raise ValueError(_ONE_SET)
                parameters = parameters or [given]
                data += prompts
            except Exception as error:
                logging.exception("Parse input failed: %s", index)
                errors[index] = str(error)
            sizes.append(len(data) - before)
        return data, sizes, parameters, errors, batch

    def read(self, item: Input) -> tuple[list[Any], dict[str, Any]]:
        """One request's prompts and parameters. Raises ValueError, or what decoding raises."""
        body = decode(item, item.get_property("Content-Type"))
        if not isinstance(body, dict):
            body = {"inputs": body}
        parameters = body.pop("parameters", None) or {}
        prompts = body.pop("inputs", body)
        return prompts if isinstance(prompts, list) else [prompts], parameters

    def get_pipeline(self, task: str, model_id_or_path: str, kwargs: dict[str, Any]) -> Callable[..., Any]:
        """What answers: `generate` for text, else the library's pipeline of the task."""
        if task in _GENERATING:
            return self.wrap_text_generation_pipeline(None)
        more = {"model_kwargs": kwargs} if kwargs else {}
        make: Callable[..., Callable[..., Any]] = library("transformers").pipeline
        return make(task, model=model_id_or_path, device=self.device, trust_remote_code=self.trust_remote_code, **more)

    def wrap_text_generation_pipeline(self, hf_pipeline: Any) -> Callable[..., Any]:
        """`generate` with the parameters as keyword arguments; the prompt comes back, too."""

        def generate(inputs: list[str], **parameters: Any) -> list[dict[str, str]]:
            torch = library("torch")
            model = hf_pipeline.model if hf_pipeline is not None else self.model
            tokenizer = hf_pipeline.tokenizer if hf_pipeline is not None else self.tokenizer
            encoded = tokenizer(inputs, padding=True, return_tensors="pt")
            encoded = encoded if self.device is None else encoded.to(self.device)
            with torch.inference_mode():
                made = model.generate(input_ids=encoded.input_ids, attention_mask=encoded.attention_mask, **parameters)
            return [{"generated_text": text} for text in tokenizer.batch_decode(made, skip_special_tokens=True)]

        return generate

    def infer_task_from_model_architecture(self) -> str:
        """Raises ValueError where the model's architecture does not tell."""
        architecture = (self.model_config.architectures or ["nothing"])[0]
        task = None
        for ending, name in ARCHITECTURES_2_TASK.items():
            task = name if architecture.endswith(ending) else task
        if task is None:
            raise ValueError(f"Task couldn't be inferred from {architecture}. Please manually set `task` option.")
        return task

    def _init_model_and_tokenizer(self, model_id_or_path: str, **kwargs: Any) -> None:
        transformers = library("transformers")
        remote = {"trust_remote_code": self.trust_remote_code}
        self.tokenizer = transformers.AutoTokenizer.from_pretrained(model_id_or_path, padding_side="left", **remote)
        if not self.tokenizer.pad_token:
            self.tokenizer.pad_token = self.tokenizer.eos_token
        kind = "AutoModelForSeq2SeqLM" if self.model_config.is_encoder_decoder else "AutoModelForCausalLM"
        self.model = getattr(transformers, kind).from_pretrained(model_id_or_path, **remote, **kwargs).eval()
        if self.device and "device_map" not in kwargs:
            self.model.to(self.device)

    def _loading_arguments(self, properties: dict[str, str]) -> dict[str, Any]:
        """What `from_pretrained` is to be given. Raises ValueError on an 8- or 4-bit model without a device map."""
        found: dict[str, Any] = {}
        for name in _LOADING:
            if name in properties:
                value = properties[name]
                found[name] = value.lower() == "true" if value.lower() in ("true", "false") else value
        for name in ("load_in_8bit", "load_in_4bit"):
            if name in found and "device_map" not in found:
                raise ValueError(f"device_map should set when {name} is set")
        kind = get_torch_dtype_from_str(properties.get("dtype", properties.get("data_type")))
        if kind is not None:
            newer = int(library("transformers").__version__.partition(".")[0]) >= 5
            found["dtype" if newer else "torch_dtype"] = kind
        if "revision" in properties:
            found["revision"] = properties["revision"]
        if "device_map" in found:
            self.device = None
        return found

    def _streamed(self, outputs: Output, data: list[Any], parameters: dict[str, Any]) -> Output:
        if self.rolling_batch_type and len(data) != 1:
            return outputs.error("inputs must be one string when rolling_batch is on: send a request for each")
        if self.enable_streaming == "huggingface" and not self.rolling_batch_type:
            steps = StreamingUtils.use_hf_default_streamer(self.model, self.tokenizer, data, self.device, **parameters)
        else:
            generator = StreamingUtils.get_stream_generator(self.engine)
            steps = generator(self.model, self.tokenizer, data, self.device, **parameters)
        if self.rolling_batch_type and self.output_formatter in ("", "json"):
            outputs.add_property("content-type", "application/json")
            return outputs.add_stream_content(_fragments(steps), output_formatter=None)
        outputs.add_property("content-type", "application/jsonlines")
        return outputs.add_stream_content(steps)


def _fragments(steps: Iterator[list[str]]) -> Iterator[str]:
    """One object, a piece a step."""
    opening = '{"generated_text": "'
    for texts in steps:
        yield opening + json.dumps("".join(texts))[1:-1]
        opening = ""
    yield opening + '"}'


def _accept(item: Input) -> str:
    accept = item.get_property("Accept")
    if not accept:
        content_type = item.get_property("Content-Type") or "application/json"
        return content_type if content_type.startswith("tensor/") else "application/json"
    return "application/json" if "*/*" in accept else accept


class StandIn(HuggingFaceService):
    """The service of a library that is not used here."""

    library = ""
    """Its name, for the log."""

    def initialize(self, properties: dict[str, str]) -> None:
        logging.info("%s is not used here: the model runs through the transformers library", self.library)
        super().initialize(properties)


class Service(Protocol):
    """What answers for a model, once `initialize` has loaded it."""

    initialized: bool

    def initialize(self, properties: dict[str, str]) -> None: ...

    def inference(self, inputs: Input) -> Output: ...


def handler_of(service: Service) -> Callable[[Input], Output | None]:
    """The `handle` of a module: the first call loads the model, and one without content does no more."""

    def handle(inputs: Input) -> Output | None:
        if not service.initialized:
            service.initialize(inputs.get_properties())
        return None if inputs.is_empty() else service.inference(inputs)

    return handle


def partition_of(service: HuggingFaceService) -> Callable[[Input], None]:
    """The `partition` of a module: it loads the model, which has nothing to be cut into parts for."""

    def partition(inputs: Input) -> None:
        service.initialize(inputs.get_properties())

    return partition


handle = handler_of(HuggingFaceService())
