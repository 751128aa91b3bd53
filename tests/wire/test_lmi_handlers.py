"""A user's own model.py over real sockets: inputs, outputs, streams, batches, requirements."""

from __future__ import annotations

import base64
import hashlib
import io
import sys
import textwrap
import zipfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from penstock import aliases
from penstock.servers.lmi.djl_python import np_util
from tests.lmi_server import Server, failing, running
from tests.waiting import until

HANDLER = """
import os
import sys
from djl_python import Input, Output, PairList
from djl_python.encode_decode import decode, encode
from djl_python.inputs import Input as TheSame
import helper

assert Input is TheSame
print("handler imported")
options = None


class Tokens:
    def __init__(self, count):
        self.left = count

    def __iter__(self):
        return self

    def __next__(self):
        if self.left == 0:
            raise StopIteration
        self.left -= 1
        return "é" + str(self.left)


def broken():
    yield "one"
    raise RuntimeError("no more")


def finish(path):
    open(path, "w").close()


def handle(inputs: Input):
    global options
    if inputs.is_empty():
        options = dict(inputs.get_properties())
        return None
    if inputs.is_batch():
        out = Output()
        for i, item in enumerate(inputs.get_batches()):
            out.add({"got": item.get_as_json(), "of": inputs.get_batch_size()}, batch_index=i)
        return out
    what = inputs.get_as_json().get("do")
    if what == "options":
        return Output().add(options)
    if what == "properties":
        return Output().add(inputs.get_properties())
    if what == "content":
        return Output().add({k: v.decode() for k, v in zip(inputs.get_content().get_keys(), inputs.get_content().get_values())})
    if what == "where":
        return Output().add({"cwd": os.getcwd(), "helper": helper.NAME, "pid": os.getpid(), "path": sys.path[0]})
    if what == "stream":
        return Output().add_property("Content-Type", "application/jsonlines").add_stream_content(Tokens(3))
    if what == "raw":
        return Output().add_stream_content(iter(["a", b"b", {"c": "é"}]), output_formatter=None)
    if what == "broken":
        return Output().add_stream_content(broken())
    if what == "list":
        return Output().add_stream_content(["not", "an", "iterator"])
    if what == "raise":
        raise ValueError("wrông")
    if what == "none":
        return None
    if what == "string":
        return "not an Output"
    if what == "created":
        return Output(code=201).add_property("x-own", "1").add("other", key="b").add("text", key="data")
    if what == "own error":
        return Output().error("by hand", code=418, message="teapot")
    if what == "numpy":
        import numpy
        return Output().add_as_numpy([numpy.arange(6).reshape(2, 3)]).add_property("Content-Type", "tensor/ndlist")
    if what == "encode":
        out = Output()
        encode(out, decode(inputs, inputs.get_property("content-type")), inputs.get_property("accept"))
        return out
    if what == "finalize":
        return Output().add("done").finalize(finish, inputs.get_as_json()["path"])
    if what == "import":
        import penstock_test_package
        return Output().add(penstock_test_package.VALUE)
    return Output().add(inputs.get_as_json())
"""


def write_handler(directory: Path, properties: str = "", handler: str = HANDLER) -> Path:
    directory.mkdir(parents=True, exist_ok=True)
    (directory / "model.py").write_text(textwrap.dedent(handler))
    (directory / "helper.py").write_text("NAME = 'beside it'\n")
    (directory / "serving.properties").write_text(properties)
    return directory


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    home = tmp_path_factory.mktemp("handler")
    properties = "engine=Python\noption.greeting = hello\noption.model_id=some/model\noption.env=A=1,B=2\n"
    aliases.write(home / "models", "some/model", home)
    with running(home, write_handler(home / "model", properties), OPTION_FROM_ENV="there") as server:
        yield server


def do(server: Server, what: str, **more: str) -> object:
    return server.ask({"do": what, **more}).json()


def test_the_first_call_has_the_options(server: Server) -> None:
    options = do(server, "options")
    assert isinstance(options, dict)
    assert options["greeting"] == "hello"
    assert options["from_env"] == "there"
    assert options["device_id"] == "-1"
    assert options["tensor_parallel_degree"] == "1"
    assert options["model_dir"].endswith("/model")
    assert options["model_dir"] == f"{options['model_id']}/model", "an alias is given as its directory"
    assert "env" not in options


def test_a_body_of_json_comes_back_pretty(server: Server) -> None:
    answer = server.ask({"ä": [1, 2]})
    assert answer.status == 200
    assert answer.body == '{\n  "ä":[\n    1,\n    2\n  ]\n}'.encode()


def test_headers_attributes_and_the_query(server: Server) -> None:
    properties = server.ask({"do": "properties"}, X_Amzn_SageMaker_Custom_Attributes="k=v;k2=v 2", X_Own="1").json()
    assert properties["k"] == "v"
    assert properties["k2"] == "v 2"
    assert properties["x-own"] == "1"
    assert properties["model_dir"].endswith("/model")
    assert server.ask({"do": "content"}, path="/invocations?a=1").json() == {"a": "1", "data": '{"do": "content"}'}


def test_it_runs_in_a_process_of_its_own_in_the_models_directory(server: Server) -> None:
    where = do(server, "where")
    assert isinstance(where, dict)
    assert where["cwd"] == where["path"]
    assert where["cwd"].endswith("/model")
    assert where["helper"] == "beside it"
    assert where["pid"] in server.children()
    assert "handler imported" in server.log


def test_a_stream_is_one_chunk_an_item(server: Server) -> None:
    answer = server.ask({"do": "stream"})
    assert answer.headers["content-type"] == "application/jsonlines"
    assert answer.chunks == [b'{"outputs": "\\u00e9%d"}\n' % left for left in (2, 1, 0)]
    assert answer.complete


def test_raw_items_without_a_formatter(server: Server) -> None:
    assert server.ask({"do": "raw"}).chunks == [b"a", b"b", '{\n  "c":"é"\n}'.encode()]


def test_an_exception_in_the_stream_is_its_last_chunk(server: Server) -> None:
    answer = server.ask({"do": "broken"})
    assert (answer.status, answer.complete) == (200, True)
    assert answer.chunks == [b'{"outputs": "one"}\n', b"no more"]
    assert server.ask({"do": "list"}).chunks == [b"'list' object is not an iterator"]


def test_answers_that_are_no_success(server: Server) -> None:
    raised = server.ask({"do": "raise"})
    assert raised.status == 424
    assert raised.json() == {"code": 424, "message": "prediction failure", "error": "wrông"}
    none = server.ask({"do": "none"})
    assert (none.status, none.body) == (204, b"")
    assert server.ask({"do": "string"}).json()["error"] == "Invalid output type: <class 'str'>"
    own = server.ask({"do": "own error"})
    assert (own.status, own.json()["message"]) == (418, "teapot")


def test_code_headers_and_which_content_is_sent(server: Server) -> None:
    answer = server.ask({"do": "created"})
    assert (answer.status, answer.headers["x-own"], answer.body) == (201, "1", b"text")


def test_arrays(server: Server) -> None:
    answer = server.ask({"do": "numpy"})
    assert answer.headers["content-type"] == "tensor/ndlist"
    (array,) = np_util.from_nd_list(answer.body)
    assert np.array_equal(array, np.arange(6).reshape(2, 3))


def test_encode_and_decode(server: Server) -> None:
    assert server.ask({"do": "encode"}, Accept="*/*").headers["content-type"] == "application/json"
    assert server.ask({"do": "encode"}, Accept="text/csv").status == 424, "a mapping has no rows"


def test_finalize_runs_after_the_answer(server: Server, tmp_path: Path) -> None:
    assert server.ask({"do": "finalize", "path": str(tmp_path / "done")}).body == b"done"
    assert until(lambda: (tmp_path / "done").exists())


def test_requests_wait_for_the_one_process(server: Server) -> None:
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda number: server.ask({"n": number}).json(), range(40)))
    assert answers == [{"n": number} for number in range(40)]


def test_batches(tmp_path: Path) -> None:
    directory = write_handler(tmp_path / "model", "batch_size=4\nmax_batch_delay=1000\n")
    with running(tmp_path, directory) as server:
        with ThreadPoolExecutor(4) as pool:
            answers = list(pool.map(lambda number: server.ask({"n": number}).json(), range(4)))
        assert [answer["got"]["n"] for answer in answers] == [0, 1, 2, 3]
        assert {answer["of"] for answer in answers} == {4}
        assert server.ask({"n": 9}).json() == {"n": 9}, "one alone is no batch"


def test_workers_by_settings_and_by_management(tmp_path: Path) -> None:
    with running(tmp_path, write_handler(tmp_path / "model", "minWorkers=2\n")) as server:
        assert len(server.children()) == 2
        assert server.ask(path="/models/model?min_worker=3", method="PUT").status == 200
        assert len(server.children()) == 3
        server.ask(path="/models/model?min_worker=1", method="PUT")
        until(lambda: len(server.children()) == 1)
        assert server.ask({"a": 1}).status == 200


def wheel(directory: Path, value: str) -> None:
    """A package that holds one value, as pip wants it."""
    directory.mkdir()
    name, info = "penstock_test_package", "penstock_test_package-1.0.dist-info"
    files = {
        f"{name}.py": f"VALUE = {value!r}\n",
        f"{info}/METADATA": "Metadata-Version: 2.1\nName: penstock-test-package\nVersion: 1.0\n",
        f"{info}/WHEEL": "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    record = io.StringIO()
    with zipfile.ZipFile(directory / f"{name}-1.0-py3-none-any.whl", "w") as archive:
        for path, text in files.items():
            archive.writestr(path, text)
            digest = base64.urlsafe_b64encode(hashlib.sha256(text.encode()).digest()).rstrip(b"=").decode()
            record.write(f"{path},sha256={digest},{len(text)}\n")
        record.write(f"{info}/RECORD,,\n")
        archive.writestr(f"{info}/RECORD", record.getvalue())


def test_requirements_go_into_an_environment_of_the_model(tmp_path: Path) -> None:
    directory = write_handler(tmp_path / "model", "option.offline=true\n")
    (directory / "requirements.txt").write_text("# one\npenstock-test-package==1.0\n")
    wheel(directory / "requirements", "from the wheel")
    with running(tmp_path, directory) as server:
        assert server.ask({"do": "import"}).body == b"from the wheel"
        assert server.ask({"do": "numpy"}).status == 200, "our own packages are still there"
        assert "installing requirements.txt" in server.log
    with running(tmp_path, directory) as server:
        assert server.ask({"do": "import"}).body == b"from the wheel"
        assert "installing requirements.txt" not in server.log, "equal contents are installed once"


def test_a_failing_installation_fails_the_load_with_its_line(tmp_path: Path) -> None:
    directory = write_handler(tmp_path / "model", "option.offline=true\n")
    (directory / "requirements.txt").write_text("penstock-no-such-package==9\n")
    (directory / "requirements").mkdir()
    status, message, _ = failing(tmp_path, directory)
    assert status != 0
    assert "requirements.txt can't be installed: ERROR: Could not find a version" in message
    assert [path.name for path in (tmp_path / "models/venvs").iterdir() if not path.name.startswith(".")] == []
    (directory / "serving.properties").write_text("option.offline=true\noption.requirements_warn_only=true\n")
    with running(tmp_path, directory) as server:
        assert server.ask({"a": 1}).status == 200
        assert "the model is loaded without it" in server.log


def test_entry_points(tmp_path: Path) -> None:
    directory = tmp_path / "model"
    (directory / "package").mkdir(parents=True)
    (directory / "package/__init__.py").write_text("")
    code = "from djl_python import Output\ndef run(inputs):\n    return None if inputs.is_empty() else Output().add('ran')\n"
    (directory / "package/inner.py").write_text(code)
    for entry in ("package.inner", "package/inner.py"):
        (directory / "serving.properties").write_text(f"option.entryPoint={entry}\noption.handler=run\n")
        with running(tmp_path, directory) as server:
            assert server.ask(b"x").body == b"ran"


def engine_environment(home: Path, engine: str, **modules: str) -> None:
    """What looks like an engine's environment: an interpreter's name, and packages."""
    place = home / "engines" / engine
    packages = place / f"lib/python{sys.version_info.major}.{sys.version_info.minor}/site-packages"
    packages.mkdir(parents=True)
    (place / "bin").mkdir()
    (place / "bin/python").symlink_to(sys.executable)
    for name, source in modules.items():
        (packages / f"{name}.py").write_text(source)


TRANSFORMERS = """
__version__ = "4.30.0"


class AutoConfig:
    from_pretrained = staticmethod(lambda path, **more: AutoConfig())


def pipeline(task, model, **more):
    return lambda inputs, **parameters: [{"label": f"{task} of {text}", **parameters} for text in inputs]
"""


def test_a_task_that_is_no_text_generation_is_a_pipeline(tmp_path: Path) -> None:
    engine_environment(tmp_path, "transformers", transformers=TRANSFORMERS, torch="")
    directory = tmp_path / "model"
    directory.mkdir()
    (directory / "serving.properties").write_text(f"option.model_id={directory}\noption.task=text-classification\n")
    with running(tmp_path, directory) as server:
        answer = server.ask({"inputs": ["one", "two"], "parameters": {"top_k": 1}})
        assert answer.json() == [{"label": f"text-classification of {word}", "top_k": 1} for word in ("one", "two")]
        assert "is served by the handler djl_python.huggingface" in server.log


TELLING = """
import {module}
from djl_python import Output


def handle(inputs):
    return None if inputs.is_empty() else Output().add({module}.WHOSE)
"""


def test_a_handler_finds_the_libraries_of_an_engines_environment(tmp_path: Path) -> None:
    engine_environment(tmp_path, "transformers", only_there="WHOSE = 'of transformers'")
    engine_environment(tmp_path, "vllm", vllm="WHOSE = 'of vllm'")
    for name, whose in (("only_there", b"of transformers"), ("vllm", b"of vllm")):
        directory = tmp_path / name
        directory.mkdir()
        (directory / "model.py").write_text(TELLING.format(module=name))
        with running(tmp_path, directory) as server:
            assert server.ask({}).body == whose


@pytest.mark.parametrize("late", [False, True], ids=["at the top", "in the first call"])
def test_a_library_of_awss_image_is_named_with_what_to_do(tmp_path: Path, late: bool) -> None:
    (tmp_path / "model").mkdir()
    script = (
        "def handle(inputs):\n    import deepspeed\n" if late else "import deepspeed\n\ndef handle(inputs):\n    pass\n"
    )
    (tmp_path / "model/model.py").write_text(script)
    status, message, _ = failing(tmp_path, tmp_path / "model")
    assert status == 1
    assert "No module named 'deepspeed' (deepspeed: it needs an NVIDIA GPU" in message
    assert len(message.strip().splitlines()) == 1
