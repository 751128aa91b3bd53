"""Penstock as the engine's benchmark measures it: `penstock up`, endpoints deployed through the API, requests that are signed.

Owns starting it on a home of its own, deploying, and asking an endpoint over TLS. It must never compute a figure.
"""

from __future__ import annotations

import contextlib
import json
import ssl
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from penstock.bench import engine_load
from penstock.bench.engine_load import EVENT_STREAM, Sample
from penstock.bench.engine_models import POSITIONS
from penstock.bench.engine_peers import System
from penstock.bench.start import pss_mb, start, tree
from penstock.cli import endpoints
from penstock.cli.endpoints import Deployment
from penstock.cli.server import Server, running

LMI, TGI = "penstock/lmi:0.23.0", "penstock/tgi:1.0.3"


@dataclass(frozen=True, slots=True)
class Penstock:
    """A running one."""

    server: Server
    pid: int

    def deploy(self, name: str, image: str, model: Path, *, quantize: str = "") -> float:
        """Seconds from CreateEndpoint to InService. `quantize` is how weights are kept, in the servers' words."""
        begin = time.monotonic()
        smaller = {"HF_MODEL_QUANTIZE": quantize} if quantize else {}
        endpoints.create(self.server, Deployment(name, image, {**settings(image, model), **smaller}))
        seen = endpoints.wait(self.server, name, lambda _: None, deadline_s=600.0)
        if seen["EndpointStatus"] != "InService":
            raise RuntimeError(f"{name}: {seen.get('FailureReason')}")
        return time.monotonic() - begin

    def remove(self, name: str) -> None:
        endpoints.remove(self.server, name)

    def converted(self) -> set[Path]:
        """The models that have been converted for the engine."""
        return set(self.server.settings.paths.models.glob("openvino/*/"))

    def system(self, name: str, endpoint: str, image: str) -> System:
        """The endpoint, asked through the gateway over TLS."""
        server = self.server
        tls = ssl.create_default_context(cafile=str(server.settings.paths.ca_certificate))

        def ask(prompts: Sequence[str], tokens: int) -> Sample:
            path = f"/endpoints/{endpoint}/invocations-response-stream"
            requests = [
                engine_load.signed(
                    path, body(image, prompt, tokens), server.access_key, server.secret_key, server.settings.region
                )
                for prompt in prompts
            ]
            return engine_load.burst(server.https, requests, tokens, EVENT_STREAM, tls=tls)

        return System(name, ask, serving=tuple(pid for pid in tree(self.pid) if not _is_engine(pid)))

    @property
    def memory_mb(self) -> float:
        """Of the gateway, the control process and all endpoints."""
        return sum(pss_mb(pid) for pid in tree(self.pid))


def _is_engine(pid: int) -> bool:
    return b"penstock.engines" in Path(f"/proc/{pid}/cmdline").read_bytes()


def settings(image: str, model: Path) -> Mapping[str, str]:
    """The server's environment: the model, what it answers with, and nothing else that is not a default."""
    if image == LMI:
        return {"OPTION_MODEL_ID": str(model), "OPTION_OUTPUT_FORMATTER": "jsonlines", "OPTION_ROLLING_BATCH": "auto"}
    return {"HF_MODEL_ID": str(model)}


def body(image: str, prompt: str, tokens: int) -> bytes:
    parameters: dict[str, object] = {"max_new_tokens": tokens, "do_sample": False}
    if image == LMI:
        # 0.23 keeps the last 1,000 tokens of a prompt where it is not told otherwise.
        return json.dumps({"inputs": prompt, "parameters": parameters | {"truncate": POSITIONS}}).encode()
    return json.dumps({"inputs": prompt, "parameters": parameters, "stream": True}).encode()


@contextlib.contextmanager
def penstock(home: Path, converter: Path) -> Iterator[Penstock]:
    """`penstock up` on free ports, with the converter that the suite has made."""
    home.mkdir(mode=0o700)
    (home / "converter").symlink_to(converter.parents[1])  # where a replica looks for it
    child, _ = start(home)
    try:
        yield Penstock(running(home), child.pid)
    finally:
        child.terminate()
        child.wait(timeout=90)
