"""The engine's benchmark, as far as it needs no engine: models, files, clients and figures."""

from __future__ import annotations

import json
import random
import socket
import struct
import threading
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
from tokenizers import Tokenizer

from penstock.bench import engine, engine_figures, engine_gguf, engine_load, engine_models, engine_peers
from penstock.bench.engine import Bench
from penstock.bench.engine_figures import Values
from penstock.bench.engine_load import Broken, Sample, Wire, burst
from penstock.bench.engine_models import FALCON, LLAMA, Shape
from penstock.bench.relay_peers import Absent

SMALL = Shape(
    "llama",
    LLAMA.config,
    (
        ("model.embed_tokens.weight", (6, 4)),
        ("model.layers.0.self_attn.q_proj.weight", (engine_models.HEADS * 4, 4)),
        ("model.norm.weight", (4,)),
    ),
)


def test_the_shapes_have_the_weights_they_are_named_for() -> None:
    assert (LLAMA.parameters, LLAMA.read) == (124_668_672, 100_092_672)
    assert FALCON.parameters == FALCON.read == 96_554_496


def test_a_prompt_is_exactly_as_many_tokens_as_asked_and_never_the_same() -> None:
    tokens, merges = engine_models.vocabulary()
    assert len(tokens) == len(set(tokens)) == engine_models.VOCABULARY
    tokenizer = Tokenizer.from_str(json.dumps(engine_models.tokenizer_json(tokens, merges)))
    texts = engine_models.prompts(20, 128, seed=1)
    assert [len(tokenizer.encode(text).ids) for text in texts] == [128] * 20
    assert all(tokenizer.decode(tokenizer.encode(text).ids) == text for text in texts)
    assert len({*texts, *engine_models.prompts(20, 128, seed=2)}) == 40


def test_bfloat16_is_rounded_to_the_nearest_even() -> None:
    numbers = np.array([1.0, -2.0, 1.00390625, 1.01171875, 3.14159274], np.float32)
    back = (engine_models.bfloat16(numbers).astype(np.uint32) << 16).view(np.float32)
    assert back.tolist() == [1.0, -2.0, 1.0, 1.015625, 3.140625]


def test_the_weights_file_is_read_back_by_its_own_header(tmp_path: Path) -> None:
    engine_models.write(SMALL, tmp_path / "model")
    data = (tmp_path / "model" / "model.safetensors").read_bytes()
    (length,) = struct.unpack_from("<Q", data)
    header = json.loads(data[8 : 8 + length])
    assert len(data) == 8 + length + 2 * SMALL.parameters
    for name, expected in engine_models.values(SMALL):
        begin, end = header[name]["data_offsets"]
        found = np.frombuffer(data[8 + length :][begin:end], np.uint16).reshape(header[name]["shape"])
        assert (found == expected).all()
    assert json.loads((tmp_path / "model" / "config.json").read_text())["eos_token_id"] is None


def test_the_gguf_file_holds_the_same_weights_under_llama_cpps_names(tmp_path: Path) -> None:
    data = engine_gguf.write(SMALL, tmp_path / "m.gguf").read_bytes()
    assert struct.unpack_from("<4sIQQ", data) == (b"GGUF", 3, 3, len(engine_gguf.metadata(SMALL)))
    query = dict(engine_models.values(SMALL))["model.layers.0.self_attn.q_proj.weight"]
    assert (
        data.count(b"blk.0.attn_q.weight") == data.count(b"token_embd.weight") == data.count(b"output_norm.weight") == 1
    )
    # The last two tensors, at the file's end: each begins at a multiple of 32 bytes.
    assert data[-32:-16] == np.ones(4, np.float32).tobytes()
    assert data[-32 - query.nbytes : -32] == engine_gguf.rotary(query, engine_models.HEADS).tobytes()


def test_rotary_rows_alternate_between_the_halves_of_a_head() -> None:
    weight = np.arange(8, dtype=np.uint16).reshape(8, 1)
    assert engine_gguf.rotary(weight, heads=2).ravel().tolist() == [0, 2, 1, 3, 4, 6, 5, 7]


MARKED = Wire(b"MARK", every=True)
HEAD = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"


def answer(tokens: int) -> bytes:
    return HEAD + b"6\r\nMARK!\n\r\n" * tokens + b"0\r\n\r\n"


def served(data: Callable[[], bytes], sizes: Callable[[], int], clients: int) -> int:
    """A server that answers each of its clients with `data`, cut into pieces of `sizes`. Returns its port."""
    listener = socket.create_server(("127.0.0.1", 0), backlog=clients)

    def serve() -> None:
        with listener:
            for _ in range(clients):
                sock, _address = listener.accept()
                threading.Thread(target=talk, args=(sock,)).start()

    def talk(sock: socket.socket) -> None:
        with sock:
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            sock.recv(65536)
            left = data()
            while left:
                size = sizes()
                sock.sendall(left[:size])
                left = left[size:]
            sock.recv(1)

    threading.Thread(target=serve).start()
    port: int = listener.getsockname()[1]
    return port


@pytest.mark.parametrize("most", [1, 7, 40, 100_000])
def test_tokens_are_counted_however_the_answer_is_sliced(most: int) -> None:
    seed = random.randrange(1 << 32)
    print("seed", seed)
    source = random.Random(seed)
    port = served(lambda: answer(64), lambda: source.randint(1, most), clients=3)
    sample = burst(port, [engine_load.plain("/", {})] * 3, 64, MARKED)
    assert sample.tokens == 3 * 64
    assert all(0 < first <= sample.seconds for first in sample.first)


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (answer(63), "63 tokens came, not 64"),
        (answer(3)[:-5], "the connection ended"),
        (b"HTTP/1.1 503 Busy\r\nContent-Length: 0\r\n\r\n", "503 Busy"),
    ],
)
def test_an_answer_that_is_none_breaks_the_burst(data: bytes, said: str) -> None:
    listener = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        sock, _address = listener.accept()
        with listener, sock:
            sock.recv(65536)
            sock.sendall(data)

    thread = threading.Thread(target=serve)
    thread.start()
    with pytest.raises(Broken, match=said):
        burst(listener.getsockname()[1], [engine_load.plain("/", {})], 64, MARKED)
    thread.join()


def test_a_rate_is_tokens_over_the_time_to_the_last_answers_end() -> None:
    assert Sample(128, 4.0, (0.5, 1.0)).rate == 32.0


def test_figures_are_ratios_of_one_round_and_say_nothing_of_who_is_absent() -> None:
    values = Values()
    for size, ours, others in ((1, (50.0, 60.0), (25.0, 20.0)), (16, (200.0, 300.0), (100.0, 100.0))):
        for one, other in zip(ours, others, strict=True):
            values.keep(f"rate/llama/endpoint/{size}", one)
            values.keep(f"rate/llama/vllm/{size}", other)
    values.keep("rate/llama/int8/1", 100.0)
    found = {figure.name: figure for figure in engine_figures.figures(values)}
    assert found["vs_vllm_cpu_llama_1"].values == (2.0, 3.0)
    assert found["vs_vllm_cpu_llama_16"].median == 2.5
    assert found["batching_gain_llama"].values == pytest.approx((200 / 55, 300 / 55))
    assert found["int8_gain_llama"].values == (2.0,)
    assert not [name for name in found if "transformers" in name or "llamacpp" in name or "falcon" in name]


def test_each_figure_of_the_plan_has_its_target() -> None:
    values = Values()
    for shape in ("llama", "falcon"):
        for system in ("endpoint", "engine", "int8", "transformers", "vllm", "llamacpp"):
            for size in (1, 4, 16, 32):
                values.keep(f"rate/{shape}/{system}/{size}", 1.0)
            values.keep(f"first/{shape}/{system}/1", 1.0)
    targets = {figure.name: figure.target for figure in engine_figures.figures(values) if figure.target}
    expected = {
        "endpoint_vs_engine": ("≥ 0.95", (1, 4, 16, 32)),
        "vs_transformers_cb": ("≥ 2.0", (1, 4, 16, 32)),
        "vs_vllm_cpu": ("≥ 1.5", (1, 4, 16, 32)),
        "vs_llamacpp": ("≥ 2.0", (4, 16, 32)),
        "ttft_vs_vllm_cpu": ("≤ 1.0", (1,)),
    }
    wanted = {
        f"{name}_{shape}_{size}": target
        for name, (target, sizes) in expected.items()
        for shape in ("llama", "falcon")
        for size in sizes
    }
    for shape in ("llama", "falcon"):
        wanted |= {f"batching_gain_{shape}": "≥ 4.5", f"int8_gain_{shape}": "≥ 1.3"}
    assert targets == wanted


def test_the_page_says_who_was_left_out_and_why() -> None:
    text = "\n".join(engine_figures.notes("float32", {1: 3}, 2, ["vllm (llama): PENSTOCK_BENCH_VLLM=0"], 0.5, 700))
    assert "Left out: vllm (llama): PENSTOCK_BENCH_VLLM=0." in text
    assert "float32" in text


def test_a_peer_that_is_not_wanted_is_absent(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PENSTOCK_BENCH_VLLM", "0")
    with pytest.raises(Absent, match="PENSTOCK_BENCH_VLLM=0"):
        engine_peers.install_vllm()


def test_an_environment_that_the_user_names_is_taken_as_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "python").touch()
    monkeypatch.setenv("PENSTOCK_BENCH_CONVERTER", str(tmp_path))
    assert engine_peers.converter() == tmp_path / "bin" / "python"


def test_what_can_not_be_made_says_its_last_line() -> None:
    with pytest.raises(Absent, match="thing can't be made: no room"):
        engine_peers.command(["sh", "-c", "echo first >&2; echo no room >&2; exit 1"], "thing")


def test_a_burst_has_prompts_of_the_length_that_is_measured(tmp_path: Path) -> None:
    asked: list[list[str]] = []

    def ask(prompts: Sequence[str], tokens: int) -> Sample:
        asked.append(list(prompts))
        return Sample(tokens * len(prompts), 1.0, (0.5,) * len(prompts))

    bench = Bench(tmp_path, {1: 1}, 1, "float32")
    for tokens in (128, 512):
        assert bench.measure(LLAMA, engine_peers.System("engine", ask), 2, tokens)
    assert [[text.count(" ") for text in prompts] for prompts in asked] == [[128, 128], [512, 512]]


def test_a_pair_that_lacks_one_side_is_not_kept_and_the_others_take_turns(tmp_path: Path) -> None:
    asked: list[str] = []

    def system(name: str, breaks_at: int = 0) -> engine_peers.System:
        def ask(prompts: Sequence[str], tokens: int) -> Sample:
            asked.append(name)
            if asked.count(name) == breaks_at:
                raise Broken("gone")
            return Sample(tokens * len(prompts), 2.0, (0.5,) * len(prompts))

        return engine_peers.System(name, ask)

    bench = Bench(tmp_path, {1: 1}, 3, "float32")
    engine._pairs(bench, LLAMA, [system("endpoint"), system("engine-llama", breaks_at=2)])
    assert asked == ["engine-llama", "endpoint", "endpoint", "engine-llama", "engine-llama", "endpoint"]
    assert bench.values["rate/llama/endpoint/1"] == bench.values["rate/llama/engine/1"] == (32.0, 32.0)
    assert bench.absent == ["engine-llama (llama, 1 at once): gone"]
