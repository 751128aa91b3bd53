"""The bodies of `/info`, at both levels, and `/v1/models`.

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
    shared_start = [("model_id", settings.model_id), ("model_sha", settings.revision or None)]
    limits = [
        ("max_concurrent_requests", settings.max_concurrent_requests),
        ("max_best_of", settings.max_best_of),
        ("max_stop_sequences", settings.max_stop_sequences),
    ]
    end = [
        ("version", str(level)),
        ("sha", f"penstock-{__version__}-{engine.name}"),
        ("docker_label", settings.docker_label or None),
    ]
    if level.modern_info:
        return members([
            *shared_start,
            ("model_pipeline_tag", settings.pipeline_tag),
            *limits,
            ("max_input_tokens", settings.max_input_length),
            ("max_total_tokens", settings.max_total_tokens),
            ("validation_workers", settings.validation_workers),
            ("max_client_batch_size", settings.max_client_batch_size),
            ("router", "penstock"),
            *end,
        ])  # fmt: skip
    return members([
        *shared_start,
        ("model_dtype", engine.dtype),
        ("model_device_type", engine.device),
        ("model_pipeline_tag", settings.pipeline_tag),
        *limits,
        ("max_input_length", settings.max_input_length),
        ("max_total_tokens", settings.max_total_tokens),
        ("waiting_served_ratio", settings.waiting_served_ratio),
        ("max_batch_total_tokens", settings.max_batch_total_tokens or max(16000, settings.max_total_tokens)),
        ("max_waiting_tokens", settings.max_waiting_tokens),
        ("validation_workers", settings.validation_workers),
        *end,
    ])  # fmt: skip


def models_json(service: Service) -> str:
    """The one model, as OpenAI lists models."""
    name = service.settings.model_id
    model = members([("id", name), ("object", "model"), ("created", 0), ("owned_by", name)])
    return f'{{"object":"list","data":[{model}]}}'
