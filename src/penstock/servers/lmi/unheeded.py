"""Which options change nothing for the server's own text generation, so that the log can say so.

Owns their opposite, the list of those that it reads. A handler of the user's is given every option, and may read any of them.
"""

from __future__ import annotations

from collections.abc import Mapping

READ = frozenset({
    "engine", "model_id", "s3url", "revision", "task", "entrypoint", "handler", "model_dir", "async_mode",
    "rolling_batch", "max_rolling_batch_size", "max_rolling_batch_prefill_tokens", "output_formatter", "enable_streaming",
    "tgi_compat", "bedrock_compat", "enable_auto_tool_choice", "tool_call_parser", "chat_template", "enable_reasoning",
    "reasoning_parser", "enable_stateful_sessions", "sessions_expiration", "sessions_path", "sessions_s3url", "dtype", "data_type",
    "quantize", "load_in_8bit", "load_in_4bit", "tensor_parallel_degree", "max_model_len", "trust_remote_code",
    "speculative_draft_model", "speculative_length", "num_speculative_tokens", "enable_lora", "adapters", "max_loras",
    "max_lora_rank", "gpu_memory_utilization", "model_loading_timeout", "predict_timeout",
})  # fmt: skip


def unheeded(options: Mapping[str, str], *, with_script: bool) -> list[str]:
    """The options that a file or a variable gives and nothing reads, by name. `with_script`: a model.py formats, and is given all."""
    if with_script:
        return []
    return sorted(name for name in options if name.lower() not in READ)
