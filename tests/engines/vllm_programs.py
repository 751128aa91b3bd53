"""Programs for the interpreter that has vLLM, which has nothing of ours. There is no test in this file.

    python vllm_programs.py families DIRECTORY NAME ...   # one line of JSON for each family: what our stepper answers
    python vllm_programs.py adapter MODEL DIRECTORY       # a random LoRA adapter, with what transformers answers with it merged

Importing vLLM takes longer than all else, so the families share one import: each is loaded in a fork, and nothing of it remains.
"""

from __future__ import annotations

import importlib.machinery
import importlib.util
import json
import math
import os
import sys
from pathlib import Path
from typing import Any

RANK, ALPHA = 4, 16
ROOT = Path(__file__).parents[2]


def find_ours() -> None:
    """Make `penstock` and our tests importable, and none of our environment's other packages."""
    spec = importlib.machinery.ModuleSpec("penstock", None, is_package=True)
    spec.submodule_search_locations = [str(ROOT / "src" / "penstock")]
    sys.modules["penstock"] = importlib.util.module_from_spec(spec)
    sys.path.insert(0, str(ROOT))


def families(root: Path, names: list[str]) -> None:
    from penstock.engines.options import EngineOptions
    from penstock.engines.vllm_engine import Vllm
    from penstock.engines.vllm_settings import prepare

    # In this process and not only in the forks: the variables count when the libraries are imported.
    prepare(os.environ, EngineOptions(model=root))
    import vllm.v1.engine.llm_engine  # noqa: F401

    for name in names:
        sys.stdout.flush()
        child = os.fork()
        if child == 0:
            options = EngineOptions(model=root / name, engine="vllm", dtype="float32", kv_cache_gb=1)
            print(json.dumps({"family": name, **answers(Vllm(options), root / name)}), flush=True)
            os._exit(0)
        os.waitpid(child, 0)


def answers(stepper: Any, model: Path) -> dict[str, Any]:
    """What the stepper says to the oracle's prompts, all at once."""
    from penstock.engines.base import Finish, PromptLogprobs, Sampling, Submit, Token
    from tests.engines.families import NEW_TOKENS, TOP, read_oracle

    oracle = read_oracle(model)
    asked = [*oracle.plain, oracle.long, oracle.repetition]
    for number, right in enumerate(asked):
        penalty = 1.5 if right is oracle.repetition else 1.0
        sampling = Sampling(
            max_new_tokens=NEW_TOKENS,
            ignore_eos=True,
            top_n_tokens=TOP,
            repetition_penalty=penalty,
            prompt_logprobs=True,
        )
        assert stepper.submit(Submit(number, right.prompt, sampling)) is None
    said = [{"tokens": [], "logprobs": [], "top": [], "prompt_logprobs": [], "finish": ""} for _ in asked]
    while stepper.busy:
        for event in stepper.step():
            answer: Any = said[event.id]
            match event:
                case Token():
                    answer["tokens"].append(event.token)
                    answer["logprobs"].append(event.logprob)
                    answer["top"].append(event.top)
                case PromptLogprobs():
                    answer["prompt_logprobs"] += event.logprobs
                case Finish():
                    answer["finish"] = event.reason
    return {"dtype": stepper.info.dtype, "positions": stepper.info.max_positions, "answers": said}


def adapter(model: Path, directory: Path) -> None:
    import torch
    from safetensors.torch import save_file
    from transformers import AutoModelForCausalLM

    from tests.engines.families import SEED, greedy, read_oracle

    torch.manual_seed(SEED)
    whole = AutoModelForCausalLM.from_pretrained(model, dtype=torch.float32).eval()
    weights = {}
    for name, module in whole.named_modules():
        if not name.endswith(("q_proj", "v_proj", "down_proj")):
            continue
        a = torch.randn(RANK, module.in_features) / math.sqrt(module.in_features)
        b = torch.randn(module.out_features, RANK) / math.sqrt(RANK)
        weights[f"base_model.model.{name}.lora_A.weight"] = a
        weights[f"base_model.model.{name}.lora_B.weight"] = b
        with torch.no_grad():
            module.weight += b @ a * (ALPHA / RANK)
    directory.mkdir(parents=True, exist_ok=True)
    save_file(weights, directory / "adapter_model.safetensors")
    settings = {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "r": RANK,
        "lora_alpha": ALPHA,
        "target_modules": ["q_proj", "v_proj", "down_proj"],
        "bias": "none",
    }
    (directory / "adapter_config.json").write_text(json.dumps(settings))
    right = greedy(whole, read_oracle(model).plain[0].prompt, encoder=False)
    (directory / "oracle.json").write_text(json.dumps(right.tokens))


if __name__ == "__main__":
    find_ours()
    if sys.argv[1] == "families":
        families(Path(sys.argv[2]), sys.argv[3:])
    else:
        adapter(Path(sys.argv[2]), Path(sys.argv[3]))
