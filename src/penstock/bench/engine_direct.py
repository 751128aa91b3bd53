"""The engine library called directly, in its own process: what the endpoint is measured against.

`python -m penstock.bench.engine_direct MODEL` reads one JSON line a job (`{"prompts": [[ids]], "tokens": 64, "logprobs": false}`) and
writes one (`{"seconds": s, "first": [s]}`). The pipeline has the settings that the product gives it (`penstock.engines.openvino`), and is
asked for log-probabilities where the endpoint's format tells them; what it leaves out is everything else: processes, sockets, text, HTTP.
Nothing of ours runs while it steps but reading the new tokens.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import openvino
import openvino_genai as genai

from penstock.engines.openvino import OpenVino
from penstock.engines.options import EngineOptions


def main(model: str, *options: str) -> int:
    engine = OpenVino(EngineOptions.parse([f"--model={Path(model)}", *options])).library
    run(engine, [[1, 2, 3]], 2, logprobs=False)
    print("ready", flush=True)
    for line in sys.stdin:
        job = json.loads(line)
        seconds, first = run(engine, job["prompts"], job["tokens"], logprobs=job["logprobs"])
        print(json.dumps({"seconds": seconds, "first": first}), flush=True)
    return 0


def run(engine: Any, prompts: list[list[int]], tokens: int, *, logprobs: bool) -> tuple[float, list[float]]:
    """Seconds until the last token, and until each request's first."""
    config = genai.GenerationConfig(max_new_tokens=tokens, ignore_eos=True, logprobs=int(logprobs))
    config.set_eos_token_id(0)  # the library takes none for -1, which it then refuses
    config.stop_token_ids = {0}
    begin = time.perf_counter()
    handles = [
        engine.add_request(number, openvino.Tensor(np.array([prompt], np.int64)), config)
        for number, prompt in enumerate(prompts)
    ]
    first = [0.0] * len(handles)
    read = 0
    while engine.has_non_finished_requests():
        engine.step()
        for number, handle in enumerate(handles):
            while handle.can_read():
                read += sum(len(output.generated_ids) for output in handle.read().values())
                first[number] = first[number] or time.perf_counter() - begin
    seconds = time.perf_counter() - begin
    if read != tokens * len(prompts):
        raise RuntimeError(f"{read} tokens came, not {tokens * len(prompts)}")
    return seconds, first


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
