"""Settings of the whole server, from `SERVING_*` and a few of SageMaker's variables.

Owns their names, defaults and checks. It must never know a model's settings (`settings.py`).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field

from penstock.servers.lmi.replies import MAX_BODY
from penstock.servers.lmi.settings import max_request_size
from penstock.servers.lmi.words import SettingsError

CACHE_CAPACITY = 1000
"""Answers to asynchronous requests that are kept where `SERVING_MEMORY_CACHE_CAPACITY` does not say; the original keeps all."""
_DURATION = re.compile(r"P(?:(\d+)D)?(?:T(?:(\d+)H)?(?:(\d+)M)?(?:(\d+(?:\.\d+)?)S)?)?")


@dataclass(frozen=True, slots=True)
class Rate:
    """So many errors in so many seconds; one more is too many."""

    most: int
    seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Codes:
    """The statuses that an inference request's own errors get."""

    bad_request: int = 400
    timeout: int = 400
    throttle: int = 503
    wlm: int = 503
    server: int = 500


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerConfig:
    """One server. `error_rates` are by kind: wlm, server, model, any."""

    version: tuple[int, int] = (0, 23)
    max_body: int = MAX_BODY
    codes: Codes = Codes()
    error_rates: Mapping[str, Rate] = field(default_factory=dict)
    allow_multi_status: bool = False
    unhealthy_fails: bool = False
    wait_model_loading: bool = True
    prometheus: bool = False
    cache_capacity: int = CACHE_CAPACITY
    request_id_header: str = "x-request-id"


def read(environ: Mapping[str, str], version: tuple[int, int] = (0, 23)) -> ServerConfig:
    """Raises SettingsError, naming the variable."""
    return ServerConfig(
        version=version,
        max_body=max_request_size(environ, version, MAX_BODY),
        codes=Codes(
            bad_request=_status(environ, "SERVING_BAD_REQUEST_HTTP_CODE", 400),
            timeout=_status(environ, "SERVING_TIMEOUT_HTTP_CODE", 400),
            throttle=_status(environ, "SERVING_THROTTLE_ERROR_HTTP_CODE", 503),
            wlm=_status(environ, "SERVING_WLM_ERROR_HTTP_CODE", 503),
            server=_status(environ, "SERVING_SERVER_ERROR_HTTP_CODE", 500),
        ),
        error_rates={
            kind: _rate(name, environ[name])
            for kind in ("wlm", "server", "model", "any")
            if environ.get(name := f"SERVING_ERROR_RATE_{kind.upper()}")
        },
        allow_multi_status=_flag(environ, "SERVING_ALLOW_MULTI_STATUS"),
        unhealthy_fails=_flag(environ, "SAGEMAKER_HEALTH_CHECK_OVERRIDE"),
        wait_model_loading=environ.get("SERVING_WAIT_MODEL_LOADING", "true").lower() != "false",
        prometheus=_flag(environ, "SERVING_PROMETHEUS"),
        cache_capacity=_whole(environ, "SERVING_MEMORY_CACHE_CAPACITY", CACHE_CAPACITY, 1, 1_000_000),
        request_id_header=environ.get("SERVING_REQUEST_ID_HEADER_KEY", "x-request-id").lower(),
    )


def _flag(environ: Mapping[str, str], name: str) -> bool:
    return environ.get(name, "").lower() == "true"


def _status(environ: Mapping[str, str], name: str, default: int) -> int:
    return _whole(environ, name, default, 400, 599)


def _whole(environ: Mapping[str, str], name: str, default: int, least: int, most: int) -> int:
    text = environ.get(name, "")
    if not text:
        return default
    if not text.isdecimal() or not least <= int(text) <= most:
        raise SettingsError(f"{name} must be a whole number from {least} to {most}, not {text!r}")
    return int(text)


def _rate(name: str, text: str) -> Rate:
    """`10` is so many a minute, `10/PT5M` so many in an ISO 8601 duration."""
    count, _, duration = text.partition("/")
    match = _DURATION.fullmatch(duration or "PT1M")
    if not count.isdecimal() or match is None or not any(match.groups()):
        raise SettingsError(f"{name} must be a number of errors and a duration, as in 10/PT1M, not {text!r}")
    days, hours, minutes, seconds = (float(part or 0) for part in match.groups())
    total = ((days * 24 + hours) * 60 + minutes) * 60 + seconds
    if total <= 0:
        raise SettingsError(f"{name} must have a duration above 0, not {text!r}")
    return Rate(int(count), total)
