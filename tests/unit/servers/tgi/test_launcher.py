"""Flags and variables of `text-generation-launcher`, in the names by which the server reads them."""

from __future__ import annotations

import pytest

from penstock.servers.tgi import settings
from penstock.servers.tgi.flags import FLAGS, unheeded
from penstock.servers.tgi.launcher import environment, ignored, parser
from penstock.servers.tgi.level import Level


def given(*arguments: str, **environ: str) -> dict[str, str]:
    return dict(environment(vars(parser().parse_args(arguments)), environ))


def test_without_a_word() -> None:
    assert given() == {
        "HF_MODEL_ID": "bigscience/bloom-560m",
        "SAGEMAKER_BIND_TO_PORT": "3000",
        "PENSTOCK_SERVER_VERSION": "3.3.7",
    }


def test_a_flag_wins_over_its_variable_and_that_over_sagemaker_s() -> None:
    names = {"MODEL_ID": "/variable", "HF_MODEL_ID": "/sagemaker"}
    assert given("--model-id", "/flag", **names)["HF_MODEL_ID"] == "/flag"
    assert given(**names)["HF_MODEL_ID"] == "/variable"
    assert given(HF_MODEL_ID="/sagemaker")["HF_MODEL_ID"] == "/sagemaker"
    assert given("-p", "8080", PORT="9")["SAGEMAKER_BIND_TO_PORT"] == "8080"


def test_a_container_s_hostname_is_not_an_address() -> None:
    assert "PENSTOCK_BIND_HOST" not in given(HOSTNAME="d0c5e7")
    assert given("--hostname", "127.0.0.1")["PENSTOCK_BIND_HOST"] == "127.0.0.1"


def test_every_flag_is_read_or_said_to_change_nothing() -> None:
    for flag in FLAGS:
        value = {"number": "7", "real": "7.5", "switch": None, "bool": "true"}.get(flag.kind, "word")
        value = flag.choices[0] if flag.choices else value
        arguments = [f"--{flag.name}", *([value] if value else [])]
        found = environment(vars(parser().parse_args(arguments)), {})
        said = ignored(vars(parser().parse_args(arguments)))
        assert (found.get(flag.becomes) == (value or "true"), said) == (
            bool(flag.becomes),
            [] if flag.becomes else [flag.name],
        )


def test_variables_that_change_nothing_are_known() -> None:
    environ = {"ROPE_SCALING": "dynamic", "CUDA_GRAPHS": "", "MAX_BEST_OF": "3", "PATH": "/bin", "API_KEY": "k"}
    assert unheeded(environ) == ["ROPE_SCALING"]
    assert settings.too_new(environ, Level.parse("1.0.3")) == ["API_KEY"]
    assert settings.too_new(environ, Level.parse("3.3.7")) == []
    between = {"MESSAGES_API_ENABLED": "true"}
    assert [settings.too_new(between, Level.parse(each)) for each in ("1.0.3", "2.0.0")] == [
        ["MESSAGES_API_ENABLED"],
        [],
    ]


def test_what_the_server_makes_of_it() -> None:
    flags = (
        "--model-id=/m",
        "--max-total-tokens=99",
        "--api-key=k",
        "--disable-grammar-support",
        "--quantize=gptq",
        "--speculate=3",
        "--lora-adapters=sql=/a",
    )
    read = settings.read(given(*flags), "3.3.7")
    assert (read.model_id, read.max_total_tokens, read.api_key, read.disable_grammar_support) == ("/m", 99, "k", True)
    assert (read.asked.quantize, read.speculate) == ("gptq", 3)
    assert [adapter.name for adapter in read.adapters] == ["sql"]


@pytest.mark.parametrize("arguments", [["--port=x"], ["--dtype=int3"], ["--max-best"], ["--sharded"], ["--nothing=1"]])
def test_what_is_refused(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        parser().parse_args(arguments)
    assert caught.value.code == 2
    assert "text-generation-launcher: error:" in capsys.readouterr().err
