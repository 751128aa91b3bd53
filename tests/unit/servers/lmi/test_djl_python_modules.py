"""The modules of `djl_python` that scripts import beside Input and Output."""

from __future__ import annotations

import importlib
import subprocess
import sys
from pathlib import Path

import pytest

from penstock.servers.lmi.djl_python import Output, output_formatter, request_io, service_loader, test_model, utils
from penstock.servers.lmi.djl_python.input_parser import format_input
from penstock.servers.lmi.scripts import only_formats

SRC = Path(__file__).parents[4] / "src"
IMPORTS = """
from djl_python import Input, Output, PairList, SessionManager
from djl_python.inputs import Input
from djl_python.outputs import Output
from djl_python.pair_list import PairList
from djl_python.encode_decode import decode, encode
from djl_python.np_util import from_nd_list, to_nd_list
from djl_python.streaming_utils import StreamingUtils
from djl_python.service_loader import load_model_service, has_function_in_module, get_annotated_function
from djl_python.huggingface import HuggingFaceService, get_torch_dtype_from_str
from djl_python.deepspeed import DeepSpeedService
from djl_python.fastertransformer import FasterTransformerService
from djl_python.tensorrt_llm import TRTLLMService
from djl_python.async_utils import create_non_stream_output, create_stream_chunk_output, handle_streaming_response
from djl_python.transformers_neuronx import TransformersNeuronXService
from djl_python.request_io import RequestInput, RequestOutput, TextGenerationOutput, TextInput, Token
from djl_python.input_parser import init_handler, input_formatter, prediction_handler
from djl_python.output_formatter import TextGenerationOutput, output_formatter
from djl_python.session_manager import SessionManager
from djl_python.test_model import create_text_request, extract_output_as_bytes
from djl_python.utils import find_model_file
"""


def in_a_worker(code: str) -> str:
    """Run code as a handler's process would, without torch."""
    start = (
        "import sys; from penstock.servers.lmi.worker import handler\nsys.meta_path.insert(0, handler.DjlPython())\n"
    )
    start += "sys.meta_path.append(handler.NotPart())\nsys.modules.update(torch=None, transformers=None)\n"
    done = subprocess.run(
        [sys.executable, "-c", start + code], env={"PYTHONPATH": str(SRC)}, capture_output=True, text=True, check=False
    )
    return done.stdout + done.stderr


def test_what_published_examples_import_is_there_without_torch() -> None:
    assert in_a_worker(IMPORTS + "print('all of it')") == "all of it\n"


def test_a_module_that_is_not_there_is_named() -> None:
    said = in_a_worker("import djl_python.rolling_batch")
    assert "djl_python.rolling_batch is not part of Penstock's djl_python" in said


def test_without_the_libraries_it_says_where_they_belong() -> None:
    code = "from djl_python.huggingface import HuggingFaceService\nHuggingFaceService().initialize({'model_dir': '.'})"
    assert "add torch and transformers to the model's requirements.txt" in in_a_worker(code)


def test_tokens_are_walked_through() -> None:
    output = request_io.TextGenerationOutput(1, request_io.TextInput(input_text="a", parameters={}))
    sequence = output.sequences[output.best_sequence_index]
    assert sequence.get_next_token() == (None, False, False)
    output.set_next_token(request_io.Token(5, " b", -0.5))
    output.set_next_token(request_io.Token(6, "", -1.0, True), is_last_token=True, finish_reason="eos_token")
    token, first, last = sequence.get_next_token()
    assert (token.id, first, last, sequence.has_next_token()) == (5, True, False, True)
    token, first, last = sequence.get_next_token()
    assert (token.as_dict(), first, last) == (
        {"id": 6, "text": "", "log_prob": -1.0, "special_token": True},
        False,
        True,
    )
    assert (sequence.cumulative_log_prob, sequence.finish_reason) == (-1.5, "eos_token")
    assert output.get_tokens_as_dict()[0] == {"id": 5, "text": " b", "log_prob": -0.5}
    assert output_formatter.get_generated_text(sequence, output) == " b"
    output.input.parameters["return_full_text"] = output.input.tgi_compat = True
    assert output_formatter.get_generated_text(sequence, output) == "a b"
    assert output.get_tokens_as_dict()[1] == {"id": 6, "text": "", "logprob": -1.0, "special": True}


def test_a_request_without_a_formatter_of_its_own() -> None:
    request = test_model.create_request(['{"inputs": "x", "parameters": {"a": 1}, "stream": true}'])
    found = format_input(request)
    assert (found.input_text, found.parameters) == ("x", {"a": 1, "stream": True})
    with pytest.raises(ValueError, match="specifying the 'inputs' field"):
        format_input(test_model.create_request(['{"x": 1}']))


def test_scripts_are_found_and_looked_through(tmp_path: Path) -> None:
    (tmp_path / "model.py").write_text(
        "def mark(f):\n    f.is_output_formatter = True\n    return f\n@mark\ndef a(): pass\n"
    )
    service = service_loader.load_model_service(str(tmp_path), "model.py", -1, namespace="a-b")
    assert service_loader.has_function_in_module(service.module, "a")
    assert not service_loader.has_function_in_module(service.module, "handle")
    assert service_loader.find_decorated_function(service.module, "is_output_formatter") is service.module.a
    assert service_loader.get_annotated_function(str(tmp_path / "none"), "is_output_formatter") is None
    with pytest.raises(ValueError, match="entry-point file not found"):
        service_loader.load_model_service(str(tmp_path), "other.py", -1)
    (tmp_path / "MAR-INF").mkdir()
    (tmp_path / "MAR-INF" / "MANIFEST.json").write_text("{}")
    with pytest.raises(ValueError, match="TorchServe archive"):
        service_loader.load_model_service(str(tmp_path), "model.py", -1)


def test_requests_to_try_a_handler_with(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text("[1]")
    request = test_model.create_request([f"data={tmp_path / 'a.json'}"], ["k=v=w"])
    assert (request.get_as_json(), request.get_property("k")) == ([1], "v=w")
    assert request.get_property("content-type") == "application/json"
    assert test_model.create_request(["plain text"]).get_as_string() == "plain text"
    assert test_model.create_text_request("x").get_as_string() == "x"
    numpy = importlib.import_module("numpy")
    for make in (test_model.create_numpy_request, test_model.create_npz_request):
        (array,) = make([numpy.arange(3)]).get_data()
        assert array.tolist() == [0, 1, 2]
    output = Output().add_as_numpy([numpy.arange(2)])
    assert test_model.extract_output_as_numpy(output)[0].tolist() == [0, 1]
    assert test_model.extract_output_as_string(Output().add("x")) == "x"
    with pytest.raises(ValueError, match="Invalid model parameter: k"):
        test_model.create_request([], ["k"])


def test_small_questions(tmp_path: Path) -> None:
    counter = utils.IdCounter()
    assert [counter.next_id(), counter.next_id(), counter.get_id()] == [0, 1, 2]
    assert utils.is_streaming({"stream": True})
    assert utils.wait_till_generation_finished({"num_beams": 2})
    assert not utils.wait_till_generation_finished({"n": 1, "best_of": None})
    assert utils.find_model_file(str(tmp_path), ["skops"]) is None
    (tmp_path / "a.skops").touch()
    assert utils.find_model_file(str(tmp_path), ["skops"]) == str(tmp_path / "a.skops")
    (tmp_path / "b.skops").touch()
    with pytest.raises(ValueError, match="Multiple model files"):
        utils.find_model_file(str(tmp_path), ["skops"])


@pytest.mark.parametrize(
    ("script", "formats"),
    [
        ("@input_formatter\ndef a(x): pass", True),
        ("import d\n@d.output_formatter\nasync def a(x): pass", True),
        ("@output_formatter\ndef a(x): pass\ndef handle(x): pass", False),
        ("@output_formatter\ndef a(x): pass\nfrom other import handle", False),
        ("@output_formatter\ndef a(x): pass\nfrom other import *", False),
        ("@output_formatter\ndef a(x): pass\nhandle = a", False),
        ("@input_formatter\ndef a(x): pass\n@prediction_handler\ndef b(x, m): pass", False),
        ("@input_formatter\ndef a(x): pass\ndef model_fn(d): pass", False),
        ("def handle(x): pass", False),
        ("def other(x): pass", False),
        ("@input_formatter\ndef (:", False),
        ("", False),
        ("\x00", False),
    ],
)
def test_what_a_script_is(script: str, formats: bool, tmp_path: Path) -> None:
    (tmp_path / "model.py").write_text(script)
    assert only_formats(tmp_path / "model.py") is formats
    assert not only_formats(tmp_path / "none.py")


def test_a_handler_is_tried_without_a_server(tmp_path: Path) -> None:
    (tmp_path / "model.py").write_text(
        "from djl_python import Output\n"
        "def handle(inputs):\n"
        "    return None if inputs.is_empty() else Output().add({'k': inputs.get_property('k'), **inputs.get_as_json()})\n"
        "def fail(inputs):\n"
        "    raise ValueError('no')\n"
    )

    def tried(*arguments: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "penstock.servers.lmi.worker.trial", "-m", str(tmp_path), *arguments]
        return subprocess.run(command, env={"PYTHONPATH": str(SRC)}, capture_output=True, text=True, check=False)

    done = tried("-i", '{"a": 1}', "-p", "k=v")
    assert done.returncode == 0, done.stderr
    assert '"k":"v"' in done.stdout
    assert '"a":1' in done.stdout
    failed = tried("-i", "{}", "-f", "fail")
    assert (failed.returncode, '"error":"no"' in failed.stdout) == (1, True)
