"""The words that a model's settings may have: keys, and the values of those that take one of a list.

Owns the lists, as the originals have them, and the error that refuses a word. It must never know what a word does.
"""


class SettingsError(Exception):
    """A key whose value can't be served; the message is one line that names the key."""


EMBEDDING_ENGINES = ("Rust", "OnnxRuntime")
"""Those by which AWS's images turn texts into vectors."""
ENGINES = (
    "Python", "MPI", "DeepSpeed", "FasterTransformer", "PyTorch", "OpenVINO", "vLLM", "transformers", *EMBEDDING_ENGINES,
)  # fmt: skip
ROLLING_BATCHES = (
    "auto", "scheduler", "lmi-dist", "vllm", "trtllm", "neuron", "transformers-neuronx", "tnx", "deepspeed", "openvino",
    "transformers", "disable",
)  # fmt: skip
FORMATTERS = ("json", "jsonlines", "none")
LATER_FORMATTERS = (*FORMATTERS, "sse", "json_chat", "jsonlines_chat", "sse_chat", "3p", "3p_stream")
QUANTIZERS = (
    "bitsandbytes", "bitsandbytes4", "bitsandbytes8", "bitsandbytes-nf4", "bitsandbytes-fp4", "gptq", "awq", "marlin", "gptq_marlin",
    "awq_marlin", "exl2", "eetq", "squeezellm", "deepspeedfp", "fp8", "compressed-tensors", "static_int8", "dynamic_int8",
    "smoothquant", "int8", "int4", "int8_sym", "int8_asym", "int4_sym", "int4_asym",
)  # fmt: skip
DTYPES = ("auto", "fp32", "fp16", "bf16", "int8")
DTYPE_NAMES = {"float32": "fp32", "f32": "fp32", "float16": "fp16", "f16": "fp16", "bfloat16": "bf16"}
"""What vLLM and the compilers of AWS's own chips call them."""
NO_PIPELINES = ("custom",)
"""Tasks that the transformers library has no pipeline for."""
EMBEDDING_KEYS = ("pooling", "normalize")
KEYS = frozenset({
    *EMBEDDING_KEYS, "translatorFactory",
    "engine", "job_queue_size", "batch_size", "max_batch_delay", "max_idle_time", "retry_threshold", "load_on_devices",
    "log_model_metric", "metrics_aggregation", *(
        f"{device}{key}" for device in ("", "cpu.", "gpu.")
        for key in ("minWorkers", "maxWorkers", "required_memory_mb", "reserved_memory_mb")
    ),
})  # fmt: skip
"""Those of a model, which have no `option.` before them."""
TASKS = (
    "", "text-generation", "text2text-generation", "conversational", "summarization", "translation", "auto", "generate",
    "image-text-to-text",
)  # fmt: skip
"""Of the original's default handlers, those whose answer is text that a model generates; the last three are vLLM's."""
