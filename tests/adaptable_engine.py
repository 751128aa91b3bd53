"""An engine process that takes adapters, and needs no library for it: the real loop round a stepper that says one token again and again.

Run it as an engine is run (`… --fd=N --parent=PID --model=DIR …`); what stands before those is ignored, so that it may also stand for
vLLM's Python. An adapter's `adapter_config.json` has its rank `r` and the `token` that it says; the model itself says PLAIN.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable
from pathlib import Path

from penstock.engines.base import AddAdapter, EngineInfo, Feature, Finish, PromptLogprobs, RemoveAdapter, Submit, Token
from penstock.engines.options import EngineOptions
from penstock.engines.process import inherited_socket, run

PLAIN = 1
MOST_RANK = 16
MOST_PINNED = 1


def write_adapter(directory: Path, token: int, rank: int = 4) -> Path:
    directory.mkdir(parents=True)
    (directory / "adapter_config.json").write_text(json.dumps({"r": rank, "token": token}))
    (directory / "adapter_model.safetensors").write_bytes(b"")
    return directory


class Sayer:
    forward_s = 0.0

    def __init__(self, options: EngineOptions) -> None:
        self._tokens: dict[str, int] = {}
        self._pinned: set[str] = set()
        self._running: dict[int, list[int]] = {}
        for name, path in json.loads(options.adapters or "{}").items():
            assert not self.change_adapter(AddAdapter(0, name, path))
        features: tuple[Feature, ...] = ("adapters",) if options.lora else ()
        self.info = EngineInfo("vllm", "cpu", "torch.float32", 512, (2,), 8, features, tuple(self._tokens))

    @property
    def busy(self) -> bool:
        return bool(self._running)

    def submit(self, request: Submit) -> Finish | None:
        adapter = request.sampling.adapter
        if adapter and adapter not in self._tokens:
            return Finish(request.id, "refused", f"there is no adapter named {adapter}")
        self._running[request.id] = [self._tokens.get(adapter, PLAIN), request.sampling.max_new_tokens]
        return None

    def cancel(self, request_id: int) -> Finish | None:
        return Finish(request_id, "cancelled") if self._running.pop(request_id, None) else None

    def step(self) -> Iterable[Token | Finish | PromptLogprobs]:
        for request_id, state in list(self._running.items()):
            yield Token(request_id, state[0], -0.5)
            state[1] -= 1
            if not state[1]:
                del self._running[request_id]
                yield Finish(request_id, "length")

    def change_adapter(self, change: AddAdapter | RemoveAdapter) -> str:
        if isinstance(change, RemoveAdapter):
            self._pinned.discard(change.name)
            return "" if self._tokens.pop(change.name, None) else f"there is no adapter named {change.name}"
        try:
            found = json.loads((Path(change.path) / "adapter_config.json").read_text())
        except OSError as error:
            return str(error)
        if found["r"] > MOST_RANK:
            return f"LoRA rank {found['r']} is greater than max_lora_rank {MOST_RANK}."
        if change.pin and len(self._pinned - {change.name}) >= MOST_PINNED:
            return "No free lora slots"
        if change.pin:
            self._pinned.add(change.name)
        self._tokens[change.name] = found["token"]
        return ""


def main() -> int:
    given = sys.argv[[argument.startswith("--fd=") for argument in sys.argv].index(True) :]
    descriptor, parent = (int(argument.partition("=")[2]) for argument in given[:2])
    sock = inherited_socket(descriptor, parent)
    return run(sock, lambda: Sayer(EngineOptions.parse(given[2:]))) if sock else 0


if __name__ == "__main__":
    sys.exit(main())
