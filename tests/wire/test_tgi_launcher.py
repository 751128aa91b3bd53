"""`text-generation-launcher` starts a server that does as its flags say, and its help and errors come at once."""

from __future__ import annotations

import subprocess
from pathlib import Path

from tests.tgi_server import LAUNCHER, SRC, running


def call(*arguments: str, **environ: str) -> subprocess.CompletedProcess[str]:
    env = {"PYTHONPATH": str(SRC), **environ}
    return subprocess.run([*LAUNCHER, *arguments], capture_output=True, text=True, timeout=30, check=False, env=env)


def test_a_server_as_the_flags_say(tmp_path: Path, tiny_model: Path) -> None:
    flags = ["--model-id", str(tiny_model), "--max-best-of=5", "--max-input-tokens", "100", "--dtype", "float32"]
    flags += ["--enable-prefill-logprobs", "--speculate=2", "--cuda-graphs=1"]
    with running(tmp_path, tmp_path, flags=flags, MAX_BEST_OF="3", MAX_STOP_SEQUENCES="7") as server:
        info = server.get("/info").json()
        assert (info["model_id"], info["version"]) == (str(tiny_model), "3.3.7")
        assert (info["max_best_of"], info["max_stop_sequences"], info["max_input_tokens"]) == (5, 7, 100)
        parameters = {"decoder_input_details": True, "max_new_tokens": 1}
        details = server.ask({"inputs": " one", "parameters": parameters}, path="/generate").json()["details"]
        assert [item["text"] for item in details["prefill"]] == [" one"]
        assert "--cuda-graphs changes nothing here" in server.log


def test_what_it_says_without_starting_anything() -> None:
    assert call("--version").stdout == "text-generation-launcher 3.3.7\n"
    help_ = call("--help").stdout
    assert "--max-batch-prefill-tokens" in help_
    assert "[env: MAX_BATCH_PREFILL_TOKENS]" in help_
    shown = call("--env", MAX_BEST_OF="9", API_KEY="secret").stdout
    assert "MAX_BEST_OF: 9" in shown
    assert "secret" not in shown
    wrong = call("--max-best-of", "many")
    assert (wrong.returncode, "invalid int value: 'many'" in wrong.stderr) == (2, True)
