"""vLLM on a processor: every family answers like transformers, ranks really share a model, and nothing is left behind.

It needs an environment of its own: `.venv/engines/vllm`, made by `scripts/vllm_environment.py`, or the one whose Python
`PENSTOCK_VLLM_PYTHON` names. A start takes a quarter of a minute on a quiet machine, so few are made.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import re
import shutil
import signal
import subprocess
import time
from collections.abc import AsyncIterator
from contextlib import aclosing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import psutil
import pytest
import pytest_asyncio

from penstock.engines import apart
from penstock.engines.base import EngineError, EngineGone, Finish, Grammar, PromptLogprobs, Sampling, Token
from penstock.engines.client import EngineProcess, LoadFailed
from penstock.engines.options import EngineOptions
from penstock.engines.tokenizer import TextTokenizer
from penstock.servers.lmi import load as lmi
from penstock.servers.lmi import settings as lmi_settings
from penstock.servers.lmi.requests import Invocation
from penstock.servers.lmi.text import RollingBatch
from penstock.servers.tgi import __main__ as tgi
from penstock.servers.tgi import settings as launcher
from penstock.servers.tgi.chat_schema import CompletionRequest
from penstock.servers.tgi.errors import ValidationError
from penstock.servers.tgi.openai import OpenAi
from penstock.servers.tgi.schema import Parameters, Request
from tests.engines import families, vllm_programs
from tests.engines.conftest import ENVIRONMENTS, vllm_python
from tests.engines.families import END, NEW_TOKENS, Oracle
from tests.waiting import until_async

pytestmark = [pytest.mark.engines, pytest.mark.timeout(900), pytest.mark.asyncio(loop_scope="module")]
GREEDY = Sampling(max_new_tokens=NEW_TOKENS, ignore_eos=True)
TOLERANCE = {"bloom": 2e-3}
"""Of log-probabilities. vLLM computes BLOOM's GELU by the error function, where the original takes the tanh that comes close to it."""


@pytest.fixture(scope="module")
def python() -> Path:
    return vllm_python()


@pytest.fixture(scope="module")
def models(python: Path) -> Path:
    """Every family's model, kept under a name that follows from what makes them."""
    program = Path(families.__file__)
    root = ENVIRONMENTS / "cache" / f"vllm-{hashlib.blake2b(program.read_bytes(), digest_size=8).hexdigest()}"
    missing = [name for name in families.NAMES if not (root / name).is_dir()]
    if missing:
        run(python, program, root, *missing)
    return root


@pytest.fixture(scope="module")
def adapter(python: Path, models: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("adapter")
    run(python, Path(vllm_programs.__file__), "adapter", models / "llama", directory)
    return directory


@pytest.fixture(scope="module")
def answers(python: Path, models: Path) -> dict[str, Any]:
    """What every family answers, by name."""
    said = run(python, Path(vllm_programs.__file__), "families", models, *families.DECODERS)
    lines = [json.loads(line) for line in said.splitlines() if line.startswith('{"family"')]
    return {line["family"]: line for line in lines}


@pytest.fixture(scope="module")
def oracle(models: Path) -> Oracle:
    return families.read_oracle(models / "llama")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def engine(python: Path, models: Path, adapter: Path) -> AsyncIterator[EngineProcess]:
    engine = await started(python, models / "llama", adapters=json.dumps({"other": str(adapter)}))
    yield engine
    await engine.close()


def run(python: Path, *words: object) -> str:
    done = subprocess.run([python, *map(str, words)], check=False, capture_output=True, text=True, timeout=800)
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


async def started(python: Path, model: Path, **more: Any) -> EngineProcess:
    options = EngineOptions(model=model, engine="vllm", dtype="float32", kv_cache_gb=1, max_queue=32, **more)
    began = time.monotonic()
    engine = await EngineProcess.start(options, command=apart.command(python))
    print(f"{model.name} {more}: started in {time.monotonic() - began:.1f} s")
    return engine


@dataclass(frozen=True, slots=True)
class Answered:
    tokens: tuple[int, ...]
    prompt_logprobs: tuple[PromptLogprobs, ...]
    finish: Finish


async def ask(engine: EngineProcess, prompt: tuple[int, ...], sampling: Sampling) -> Answered:
    events = [event async for event in engine.generate(prompt, sampling)]
    finish = events.pop()
    assert isinstance(finish, Finish)
    tokens = tuple(event.token for event in events if isinstance(event, Token))
    return Answered(tokens, tuple(event for event in events if isinstance(event, PromptLogprobs)), finish)


@pytest.mark.parametrize("name", families.DECODERS)
async def test_a_family_answers_like_transformers(answers: dict[str, Any], models: Path, name: str) -> None:
    said, oracle, close = answers[name], families.read_oracle(models / name), TOLERANCE.get(name, 2e-4)
    assert said["dtype"] == "torch.float32"
    assert said["positions"] == 2048
    for got, right in zip(said["answers"], [*oracle.plain, oracle.long, oracle.repetition], strict=True):
        assert got["tokens"] == list(right.tokens)
        assert got["finish"] == "length"
        assert got["logprobs"] == pytest.approx(right.logprobs, abs=close)
        assert got["prompt_logprobs"] == pytest.approx(
            right.prompt_logprobs or got["prompt_logprobs"], abs=close, nan_ok=True
        )
        for mine, theirs in zip(got["top"], right.top, strict=True):
            assert [value for _, value in mine] == pytest.approx([value for _, value in theirs], abs=close)
            assert mine[0][0] == theirs[0][0]


async def test_it_says_what_it_can_do(engine: EngineProcess, oracle: Oracle) -> None:
    assert engine.info.name == "vllm"
    assert engine.info.device == "cpu"
    assert engine.info.eos_token_ids == (END, oracle.end)
    assert set(engine.info.features) == {"grammar", "prompt_logprobs", "top_n_tokens"}
    assert engine.info.adapters == ("other",)


async def test_many_at_once_are_as_each_alone(engine: EngineProcess, oracle: Oracle) -> None:
    prompts = [right.prompt for right in (*oracle.plain, oracle.long)]
    prompts += [prompt[:count] for prompt in prompts for count in (1, 7, 33)]
    alone = [(await ask(engine, prompt, GREEDY)).tokens for prompt in prompts]
    together = await asyncio.gather(*(ask(engine, prompt, GREEDY) for prompt in prompts))
    assert [answer.tokens for answer in together] == alone


async def test_prompt_logprobs_are_known_whatever_is_cached(engine: EngineProcess, oracle: Oracle) -> None:
    right = oracle.long
    await ask(engine, right.prompt, GREEDY)
    answer = await ask(engine, right.prompt, replace(GREEDY, prompt_logprobs=True))
    (known,) = answer.prompt_logprobs
    assert known.logprobs == pytest.approx(right.prompt_logprobs, abs=2e-4, nan_ok=True)


async def test_an_end_token_ends_unless_it_is_ignored(engine: EngineProcess, oracle: Oracle) -> None:
    right = oracle.plain[0]
    longer = GREEDY.max_new_tokens + 5  # its last token would be the end, and then the length is told
    ended = await ask(engine, right.prompt, replace(GREEDY, ignore_eos=False, max_new_tokens=longer))
    assert ended.tokens == right.tokens[: right.tokens.index(oracle.end) + 1]
    assert ended.finish.reason == "eos_token"
    assert (await ask(engine, right.prompt, GREEDY)).finish.reason == "length"


async def test_cancelling_one_leaves_its_neighbours_alone(engine: EngineProcess, oracle: Oracle) -> None:
    neighbour = asyncio.create_task(ask(engine, oracle.plain[0].prompt, GREEDY))
    async with aclosing(engine.generate(oracle.plain[1].prompt, replace(GREEDY, max_new_tokens=1500))) as events:
        for _ in range(5):
            await anext(events)
    assert (await neighbour).tokens == oracle.plain[0].tokens
    assert (await ask(engine, oracle.plain[2].prompt, GREEDY)).tokens == oracle.plain[2].tokens
    assert engine.load == (0, 0)
    assert engine.pid is not None
    process = psutil.Process(engine.pid)
    before = process.cpu_times()
    await asyncio.sleep(0.5)  # long enough to see an engine that goes on with a request that nobody wants
    after = process.cpu_times()
    assert after.user + after.system - before.user - before.system < 0.25


async def test_a_seed_repeats_whatever_runs_beside_it(engine: EngineProcess, oracle: Oracle) -> None:
    prompt = oracle.plain[0].prompt
    lively = replace(GREEDY, do_sample=True, temperature=1.5, seed=2**64 - 1)
    alone = await ask(engine, prompt, lively)
    again, other, _ = await asyncio.gather(
        ask(engine, prompt, lively),
        ask(engine, prompt, replace(lively, seed=5)),
        ask(engine, oracle.plain[1].prompt, GREEDY),
    )
    assert again.tokens == alone.tokens
    assert other.tokens != alone.tokens


async def test_filters_leave_what_they_must(engine: EngineProcess, oracle: Oracle) -> None:
    right = oracle.plain[0]
    lively = replace(GREEDY, do_sample=True, temperature=2.0, seed=3)
    assert (await ask(engine, right.prompt, replace(lively, top_k=1))).tokens == right.tokens
    assert (await ask(engine, right.prompt, replace(lively, top_p=1e-6))).tokens == right.tokens
    async with aclosing(engine.generate(right.prompt, replace(lively, top_k=2, top_n_tokens=5))) as events:
        async for event in events:
            if isinstance(event, Token):
                assert len(event.top) == 2, "those that top_k removed are not among the likeliest"
                assert event.token in [token for token, _ in event.top]
    long = replace(GREEDY, max_new_tokens=60)
    plain = await ask(engine, right.prompt, long)
    for penalised in (replace(long, frequency_penalty=1.8), replace(long, presence_penalty=1.8)):
        less = await ask(engine, right.prompt, penalised)
        assert len(set(less.tokens)) > len(set(plain.tokens)), penalised


async def test_an_answer_keeps_to_its_grammar(engine: EngineProcess, models: Path, oracle: Oracle) -> None:
    tokenizer = TextTokenizer.load(models / "llama")
    schema = json.dumps({"type": "object", "properties": {"n": {"enum": ["a", "b"]}}, "required": ["n"]})
    sampling = Sampling(max_new_tokens=60, grammar=Grammar("json_schema", schema))
    regex = replace(sampling, grammar=Grammar("regex", "(one|two) [0-9]{3}"))
    json_answer, regex_answer, free = await asyncio.gather(
        ask(engine, oracle.plain[0].prompt, sampling),
        ask(engine, oracle.plain[0].prompt, regex),
        ask(engine, oracle.plain[1].prompt, GREEDY),
    )
    assert json_answer.finish.reason == "eos_token"
    assert json.loads(tokenizer.decode(json_answer.tokens[:-1]))["n"] in {"a", "b"}
    assert re.fullmatch("(one|two) [0-9]{3}", tokenizer.decode(regex_answer.tokens[:-1]))
    assert free.tokens == oracle.plain[1].tokens
    broken = await ask(engine, (5, 6), replace(sampling, grammar=Grammar("regex", "(")))
    assert broken.finish.reason == "refused"
    assert "\n" not in broken.finish.error


async def test_an_adapter_answers_like_its_merged_weights(engine: EngineProcess, adapter: Path, oracle: Oracle) -> None:
    right = oracle.plain[0]
    merged = tuple(json.loads((adapter / "oracle.json").read_text()))
    assert merged != right.tokens
    with_it, without = await asyncio.gather(
        ask(engine, right.prompt, replace(GREEDY, adapter="other")), ask(engine, right.prompt, GREEDY)
    )
    assert with_it.tokens == merged
    assert without.tokens == right.tokens
    assert (await ask(engine, right.prompt, GREEDY)).tokens == right.tokens, "after an adapter was used"
    missing = await ask(engine, right.prompt, replace(GREEDY, adapter="nobody"))
    assert missing.finish.reason == "refused"
    assert missing.finish.error == "there is no adapter named nobody"


async def test_tgi_serves_the_adapters_that_its_settings_name(
    python: Path, models: Path, adapter: Path, oracle: Oracle, tmp_path: Path
) -> None:
    """From LORA_ADAPTERS to the answer: nothing but the environment says a word."""
    environ = {
        "HF_MODEL_ID": str(models / "llama"),
        "LORA_ADAPTERS": f"other={adapter}",
        "DTYPE": "float32",
        "PENSTOCK_VLLM_PYTHON": str(python),
        "PENSTOCK_MODELS": str(tmp_path / "models"),
        "PATH": os.environ["PATH"],
    }
    service = await tgi.start(launcher.read(environ, "3.3.7"), environ)
    try:
        engine, right = service.generation.engine, oracle.plain[0]
        assert (engine.info.name, engine.info.adapters) == ("vllm", ("other",))
        events = [event async for event in engine.generate(right.prompt, replace(GREEDY, adapter="other"))]
        merged = tuple(json.loads((adapter / "oracle.json").read_text()))
        assert tuple(event.token for event in events if isinstance(event, Token)) == merged
        text = service.generation.tokenizer.decode(right.prompt)
        texts = []
        for name in (None, "other"):
            request = Request(inputs=text, parameters=Parameters(max_new_tokens=NEW_TOKENS, adapter_id=name))
            texts.append((await service.whole(request)).best.finish.generated_text)
        assert texts[0] != texts[1]
        openai = OpenAi(service, time.time)
        for name, said in (("tgi", texts[0]), ("other", texts[1])):
            asked = CompletionRequest(model=name, prompts=(text,), max_tokens=NEW_TOKENS, temperature=0.0)
            assert json.loads((await openai.complete(asked)).json)["choices"][0]["text"] == said
        with pytest.raises(ValidationError, match="`adapter_id` must be one of LORA_ADAPTERS, which names other"):
            await service.whole(Request(inputs=text, parameters=Parameters(max_new_tokens=1, adapter_id="nobody")))
    finally:
        await service.generation.engine.close()


async def test_lmi_serves_the_adapters_that_lie_beside_its_settings(
    python: Path, models: Path, adapter: Path, tmp_path: Path
) -> None:
    (tmp_path / "m/adapters").mkdir(parents=True)
    shutil.copytree(adapter, tmp_path / "m/adapters/other")
    lines = (
        f"option.model_id={models / 'llama'}",
        "option.enable_lora=true",
        "option.max_lora_rank=64",
        "option.dtype=fp32",
    )
    (tmp_path / "m/serving.properties").write_text("\n".join(lines))
    environ = {
        "PENSTOCK_VLLM_PYTHON": str(python),
        "PENSTOCK_MODELS": str(tmp_path / "models"),
        "PATH": os.environ["PATH"],
        "OPTION_SESSIONS_PATH": str(tmp_path / "sessions"),
    }
    served = await lmi.load(lmi_settings.read("m", tmp_path / "m", environ, (0, 36)), environ)
    try:
        assert isinstance(served, RollingBatch)
        assert served.generation.engine.info.adapters == ("other",)
        said = []
        for more in ({}, {"adapters": "other"}, {"adapters": "nobody"}):
            asked = {"inputs": "one two", "parameters": {"max_new_tokens": NEW_TOKENS, "do_sample": False}, **more}
            body = (("data", json.dumps(asked).encode()),)
            reply = await served.predict(Invocation((("Content-Type", "application/json"),), body))
            assert isinstance(reply.body, bytes)
            said.append((reply.status, json.loads(reply.body)))
        assert [status for status, _ in said] == [200, 200, 424]
        assert said[0][1]["generated_text"] != said[1][1]["generated_text"]
        assert "LoRA adapter nobody not found in registry. Available adapters: ['other']" in said[2][1]["error"]
    finally:
        await served.close()


async def test_adapters_come_and_go_while_it_runs(
    python: Path, models: Path, adapter: Path, oracle: Oracle, tmp_path: Path
) -> None:
    """Their answers are exact, also where a name comes again with other weights; what can't be taken harms nothing."""
    right, merged = oracle.plain[0], tuple(json.loads((adapter / "oracle.json").read_text()))
    nothing = changed(adapter, tmp_path / "nothing", lora_alpha=0)
    engine = await started(python, models / "llama", lora=True, max_loras=2)

    async def said(name: str) -> tuple[int, ...] | str:
        answer = await ask(engine, right.prompt, replace(GREEDY, adapter=name))
        return answer.tokens or answer.finish.error

    try:
        assert (names(engine), "adapters" in engine.info.features) == ((), True)
        await engine.add_adapter("later", str(adapter))
        assert (await said("later"), await said("")) == (merged, right.tokens)
        await engine.add_adapter("later", str(nothing), preload=False)
        assert await said("later") == right.tokens, "nothing is kept of what had the name before"
        await engine.add_adapter("other", str(adapter), pin=True)
        assert await said("other") == merged

        for path, error in (
            (changed(adapter, tmp_path / "third"), "No free lora slots: 2 adapters are loaded"),
            (changed(adapter, tmp_path / "big", r=64), "LoRA rank 64 is greater than max_lora_rank 16"),
            (tmp_path / "none", "does not tell its rank"),
        ):
            with pytest.raises(EngineError, match=error):
                await engine.add_adapter("bad", str(path))
        assert names(engine) == ("later", "other")

        running = engine.generate(right.prompt, replace(GREEDY, adapter="other"))
        first = await anext(running)
        assert isinstance(first, Token)
        await engine.remove_adapter("other")
        rest = [event.token async for event in running if isinstance(event, Token)]
        assert (first.token, *rest) == merged, "a request that runs goes on"
        assert await said("other") == "there is no adapter named other"
        await engine.add_adapter("third", str(tmp_path / "third"), pin=True)
        (tmp_path / "empty").mkdir()
        shutil.copy(adapter / "adapter_config.json", tmp_path / "empty")
        with pytest.raises(EngineError):
            await engine.add_adapter("later", str(tmp_path / "empty"))

        before = engine.pid
        assert before is not None
        os.kill(before, signal.SIGKILL)
        await until_async(lambda: engine.pid not in (before, None), deadline_s=200)
        assert (await said("later"), await said("third"), await said("")) == (right.tokens, merged, right.tokens)
    finally:
        await engine.close()


def names(engine: EngineProcess) -> tuple[str, ...]:
    return engine.info.adapters


def changed(adapter: Path, directory: Path, **settings: int) -> Path:
    """A copy of an adapter with other settings."""
    shutil.copytree(adapter, directory)
    file = directory / "adapter_config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), **settings}))
    return directory


async def test_the_number_of_tokens_in_a_step_may_be_vllms_own(python: Path, models: Path, oracle: Oracle) -> None:
    engine = await started(python, models / "llama", max_batched_tokens=0)
    try:
        assert (await ask(engine, oracle.long.prompt, GREEDY)).tokens == oracle.long.tokens
    finally:
        await engine.close()


async def test_what_can_not_be_generated_is_an_error(engine: EngineProcess) -> None:
    for prompt, count, reason in (((), 1, "no tokens"), ((2,) * 2040, 9, "positions"), ((384,), 1, "vocabulary")):
        answer = await ask(engine, prompt, Sampling(max_new_tokens=count))
        assert answer.finish.reason == "error"
        assert reason in answer.finish.error


async def test_what_vllm_does_not_take_is_refused_and_hurts_nobody(engine: EngineProcess, oracle: Oracle) -> None:
    wrong = replace(GREEDY, do_sample=True, temperature=3.0)
    neighbour, refused = await asyncio.gather(
        ask(engine, oracle.plain[0].prompt, GREEDY), ask(engine, oracle.plain[1].prompt, wrong)
    )
    assert neighbour.tokens == oracle.plain[0].tokens
    assert refused.finish.reason == "refused"
    assert refused.finish.error == "temperature must be in [0, 2], got 3.0."


async def test_a_killed_engine_fails_its_requests_and_is_replaced(engine: EngineProcess, oracle: Oracle) -> None:
    right = oracle.plain[0]
    running = engine.generate(right.prompt, replace(GREEDY, max_new_tokens=1500))
    await anext(running)
    assert engine.pid is not None
    children = psutil.Process(engine.pid).children(recursive=True)
    os.kill(engine.pid, signal.SIGKILL)
    with pytest.raises(EngineGone, match="SIGKILL"):
        async for _ in running:
            pass
    await until_async(lambda: all(gone(child) for child in children), what="the end of the engine's processes")
    await until_async(lambda: engine.ready, deadline_s=300, what="another engine")
    assert (await ask(engine, right.prompt, GREEDY)).tokens == right.tokens


async def test_two_ranks_share_a_model_and_end_with_it(python: Path, models: Path, oracle: Oracle) -> None:
    if len(os.sched_getaffinity(0)) < 2:
        pytest.skip("two ranks need two processor cores")
    engine = await started(python, models / "llama", tensor_parallel=2)
    try:
        asked = [*oracle.plain, oracle.long]
        said = await asyncio.gather(*(ask(engine, right.prompt, GREEDY) for right in asked))
        assert [answer.tokens for answer in said] == [right.tokens for right in asked]
        everybody = processes_of(engine)
        # The engine, the guard and what gives memory back do not compute.
        workers = [child for child in everybody if child.memory_info().rss > 200e6]
        assert len(workers) == 2
        workers[1].kill()
        await until_async(lambda: all(gone(worker) for worker in workers), deadline_s=60, what="the end of the other")
        answer = await ask(engine, oracle.plain[0].prompt, replace(GREEDY, max_new_tokens=1500))
        assert answer.finish.reason == "error"
        assert "failed in a step" in answer.finish.error
        await until_async(lambda: all(gone(child) for child in everybody), what="the end of the engine")
        await until_async(lambda: engine.ready, deadline_s=300, what="another engine")
        everybody = processes_of(engine)
        running = engine.generate(oracle.plain[0].prompt, replace(GREEDY, max_new_tokens=1500))
        await anext(running)
        shared = {found for process in everybody for found in shared_memory_of(process)}
        assert shared, "ranks and engine talk through shared memory"
        assert engine.pid is not None
        os.kill(engine.pid, signal.SIGKILL)
        with pytest.raises(EngineGone, match="SIGKILL"):
            async for _ in running:
                pass
        await until_async(lambda: all(gone(child) for child in everybody), what="the end of the ranks")
    finally:
        await engine.close()
    await until_async(lambda: not any(path.exists() for path in shared), what="shared memory given back")


async def test_more_ranks_than_cores_are_refused_in_one_line(python: Path, models: Path) -> None:
    with pytest.raises(LoadFailed) as caught:
        await started(python, models / "llama", tensor_parallel=64)
    assert "tensor_parallel is 64, and this machine has" in str(caught.value)
    assert "\n" not in str(caught.value)


async def test_an_encoder_decoder_is_sent_to_another_engine(python: Path, models: Path) -> None:
    with pytest.raises(LoadFailed, match="no encoder-decoders such as t5; use the transformers engine"):
        await started(python, models / "t5")


def processes_of(engine: EngineProcess) -> list[psutil.Process]:
    assert engine.pid is not None
    return list(psutil.Process(engine.pid).children(recursive=True))


def shared_memory_of(process: psutil.Process) -> set[Path]:
    lines = Path(f"/proc/{process.pid}/maps").read_text().splitlines()
    found = {Path(line.split(maxsplit=5)[5]) for line in lines if "/dev/shm/" in line}
    return {path for path in found if path.exists()}


def gone(process: psutil.Process) -> bool:
    try:
        return bool(process.status() == psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return True
