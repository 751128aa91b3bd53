"""The bodies of `/info`, at every level, and `/v1/models`.

Owns their keys and their order.
"""

from __future__ import annotations

from penstock import __version__
from penstock.servers.tgi.service import Service
from penstock.servers.tgi.shapes import members


def info_json(service: Service) -> str:
    """What the server says of itself. `version` is the level it speaks; `sha` says whose work it is, and by which engine."""
    settings, engine = service.settings, service.generation.engine.info
    level = settings.level
    said: list[tuple[str, object, bool]] = [
        ("model_id", settings.model_id, True),
        ("model_sha", settings.revision or None, True),
        ("model_dtype", engine.dtype, not level.info_without_types),
        ("model_device_type", engine.device, not level.info_without_types),
        ("model_pipeline_tag", settings.pipeline_tag, True),
        ("max_concurrent_requests", settings.max_concurrent_requests, True),
        ("max_best_of", settings.max_best_of, True),
        ("max_stop_sequences", settings.max_stop_sequences, True),
        ("max_input_tokens" if level.says_input_tokens else "max_input_length", settings.max_input_length, True),
        ("max_total_tokens", settings.max_total_tokens, True),
        ("waiting_served_ratio", settings.waiting_served_ratio, not level.info_without_types),
        (
            "max_batch_total_tokens",
            settings.max_batch_total_tokens or max(16000, settings.max_total_tokens, settings.max_batch_prefill_tokens),
            not level.info_without_types,
        ),
        ("max_waiting_tokens", settings.max_waiting_tokens, not level.info_without_types),
        (
            "max_batch_size",
            settings.max_batch_size or None,
            level.info_max_batch_size and not level.info_without_types,
        ),
        ("validation_workers", settings.validation_workers, True),
        ("max_client_batch_size", settings.max_client_batch_size, level.info_max_client_batch_size),
        ("router", "penstock", level.info_router),
        ("version", str(level), True),
        ("sha", f"penstock-{__version__}-{engine.name}", True),
        ("docker_label", settings.docker_label or None, True),
    ]
    return members((name, value) for name, value, is_said in said if is_said)


def models_json(service: Service) -> str:
    """The one model, as OpenAI lists models."""
    name = service.settings.model_id
    model = members([("id", name), ("object", "model"), ("created", 0), ("owned_by", name)])
    return f'{{"object":"list","data":[{model}]}}'
