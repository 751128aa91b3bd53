"""Random and damaged inputs for every parser that reads what strangers send: none crashes it, hangs it or makes it believe.

`PENSTOCK_FUZZ_INPUTS` says how many inputs each parser gets in `make soak` (1,000,000); the plain suite sends a few hundred.
"""

from __future__ import annotations

import gc
import importlib.util
import os
import subprocess
import sys
import tracemalloc
from pathlib import Path

import pytest
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st

from tests.conftest import SEED
from tests.fuzz.targets import SEEDS, TARGETS
from tests.replicas import PYTHONPATH

INPUTS = int(os.environ.get("PENSTOCK_FUZZ_INPUTS", "1000000"))
BATCH = 1_000
"""Examples for which hypothesis keeps its records at a time; one is often a hundred inputs."""
LEAK = 512 * 1024
"""Bytes that may have come to stay over a whole run: caches that fill."""

_TOKENS = {
    "http": (
        b"\r\n",
        b"\n",
        b"\r",
        b": ",
        b" ",
        b"\t",
        b"0",
        b"chunked",
        b"Transfer-Encoding",
        b"Content-Length",
        b",",
        b"\0",
        b"HTTP/1.1",
    ),
    "http2": (
        b"\0\0\0\4\0\0\0\0\0",
        b"\0\0\1\0\0\0\0\0\1x",
        b"\0\0\0\x09\4\0\0\0\1",
        b"\xff\xff",
        b"\x82\x84\x87",
        b"\x3f\xe1\x1f",
    ),
    "eventstream": (b"\0\0\0\x10", b"\0\0\0\0", b"\x07", b"\xff\xff\xff\xff", b"\x08", b"\x09"),
    "signature": (
        b"\n",
        b":",
        b"/",
        b"%",
        b"%2F",
        b";",
        b",",
        b"=",
        b"&",
        b"?",
        b"X-Amz-Signature=",
        b"\xff",
        b"host",
        b"AKIDEXAMPLE",
    ),
    "awschunked": (
        b"\r\n",
        b";",
        b"chunk-signature=",
        b"0",
        b"ffffffffffff",
        b":",
        b"\n",
        b"-1",
        b"x-amz-trailer-signature:",
    ),
}


def damaged(name: str) -> st.SearchStrategy[list[bytes]]:
    """One kind of damage done at every place of a seed, or one heap of pieces, or bytes of no sense."""
    piece = st.sampled_from([*SEEDS[name], *_TOKENS[name]]) | st.binary(max_size=12)
    everywhere = st.tuples(st.sampled_from(SEEDS[name]), piece, st.integers(0, 30)).map(
        lambda given: [given[0][:at] + given[1] + given[0][at + given[2] :] for at in range(len(given[0]) + 1)]
    )
    heap = st.lists(piece, max_size=12).map(b"".join) | st.binary(max_size=300)
    return everywhere | heap.map(lambda data: [data])


def attack(name: str, inputs: int) -> int:
    """Sends at least so many inputs, in batches of a seed each; how many it were."""
    target, sent = TARGETS[name], 0
    while sent < inputs:

        def all_of_them(damage: list[bytes]) -> None:
            nonlocal sent
            for data in damage:
                sent += 1
                target(data)

        quiet = settings(
            max_examples=min(BATCH, inputs - sent),
            database=None,
            deadline=None,
            suppress_health_check=list(HealthCheck),
            phases=[Phase.generate, Phase.shrink],
        )
        seed(SEED + sent)(quiet(given(damaged(name))(all_of_them)))()
    return sent


@pytest.mark.parametrize("name", TARGETS)
def test_a_few_hundred_inputs(name: str) -> None:
    assert attack(name, 300) >= 300


@pytest.mark.parametrize("name", TARGETS)
def test_seeds_pass(name: str) -> None:
    for data in SEEDS[name]:
        TARGETS[name](data)
        for end in range(len(data)):
            TARGETS[name](data[:end])


@pytest.mark.soak
@pytest.mark.timeout(0)
@pytest.mark.parametrize("name", TARGETS)
def test_a_million_inputs(name: str) -> None:
    attack(name, 5_000)
    gc.collect()
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        for data in SEEDS[name] * 200:
            TARGETS[name](data)
        gc.collect()
        assert tracemalloc.get_traced_memory()[0] - before < LEAK
    finally:
        tracemalloc.stop()
    assert attack(name, INPUTS) >= INPUTS


@pytest.mark.soak
@pytest.mark.timeout(0)
@pytest.mark.skipif(
    importlib.util.find_spec("atheris") is None, reason="atheris has no wheel here: pip install 'penstock[fuzz]'"
)
@pytest.mark.parametrize("name", TARGETS)
def test_a_million_inputs_by_coverage(name: str, tmp_path: Path) -> None:
    corpus = tmp_path / "corpus"
    corpus.mkdir()
    for number, data in enumerate(SEEDS[name]):
        (corpus / str(number)).write_bytes(data)
    command = [sys.executable, "-m", "tests.fuzz.by_coverage", name, str(corpus), f"-runs={INPUTS}", f"-seed={SEED}"]
    command += ["-max_len=2048", "-rss_limit_mb=1024", "-timeout=10", f"-artifact_prefix={tmp_path}/"]
    done = subprocess.run(command, env={**os.environ, "PYTHONPATH": PYTHONPATH}, capture_output=True, text=True)
    assert done.returncode == 0, f"{done.stdout[-2000:]}\n{done.stderr[-4000:]}"
    assert f"Done {INPUTS} runs" in done.stderr
