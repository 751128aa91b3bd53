"""The API that handlers import."""

from __future__ import annotations

import datetime
import io
import json
import struct

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from penstock.servers.lmi.djl_python import Input, Output, PairList
from penstock.servers.lmi.djl_python.encode_decode import decode, encode
from penstock.servers.lmi.djl_python.np_util import from_nd_list, to_nd_list


def given_input(content: dict[str, bytes], **properties: str) -> Input:
    found = Input()
    found.properties = {name.replace("_", "-"): value for name, value in properties.items()}
    for key, value in content.items():
        found.content.add(key, bytearray(value))
    return found


def test_pair_lists() -> None:
    pairs = PairList(pair_map={"a": 1})
    pairs.add("b", 2)
    pairs.add(key="first", value=0, index=0)
    pairs.add(pair=("a", 3))
    pairs.add("nothing", None)
    assert pairs.get_keys() == ["first", "a", "b", "a"]
    assert pairs.get_values() == [0, 1, 2, 3]
    assert (pairs.get("a"), pairs.get("x"), pairs.size(), pairs.key_at(2), pairs.value_at(3)) == (1, None, 4, "b", 3)
    more = PairList(["k"], ["v"])
    more.add_all(pairs)
    assert more.size() == 5
    assert PairList().is_empty()
    with pytest.raises(ValueError, match="size mismatch"):
        PairList(["a"], [1, 2])


def test_input_by_content_type() -> None:
    assert given_input({"data": b'{"a": 1}'}, Content_Type="application/json; charset=utf-8").get_data() == {"a": 1}
    assert given_input({"data": b"h\xc3\xa9"}, content_type="text/plain").get_data() == "hé"
    assert given_input({"data": b"raw"}).get_data() == b"raw"
    assert given_input({}).get_data() is None
    archive = io.BytesIO()
    np.savez(archive, np.ones(2))
    assert given_input({"data": archive.getvalue()}, content_type="tensor/npz").get_data()[0].tolist() == [1, 1]
    assert given_input({"d": bytes(to_nd_list(np.ones(2)))}, content_type="tensor/ndlist").get_data()[0].tolist() == [
        1,
        1,
    ]


def test_input_by_key() -> None:
    found = given_input({"x": b"1", "data": b"2"}, Accept="*/*")
    assert (found.get_as_bytes(), found.get_as_string("x"), found.get_as_json("x")) == (b"2", "1", 1)
    assert found.get_property("ACCEPT") == "*/*"
    assert found.get_property("none") is None
    assert found.contains_key("x")
    assert not found.contains_key("y")
    with pytest.raises(KeyError, match="requested data for key:y"):
        found.get_as_bytes("y")
    assert given_input({"q": b"a,b\n1,2\n"}).get_as_csv() == [{"a": "1", "b": "2"}]
    assert given_input({"only": b"first"}).get_as_bytes() == b"first"


def test_batches() -> None:
    found = given_input({"batch_0.data": b"0", "batch_1.data": b"1", "batch_1.x": b"2"})
    found.properties = {"batch_size": "2", "batch_1.Accept": "text/csv", "model_dir": "/m"}
    zero, one = found.get_batches()
    assert (zero.get_as_string(), one.get_as_string(), one.get_as_string("x")) == ("0", "1", "2")
    assert (zero.get_properties(), one.get_property("accept")) == ({}, "text/csv")
    assert found.is_batch()
    assert found.get_batch_size() == 2
    single = given_input({"data": b"x"})
    assert single.get_batches() == [single]
    found.content.add("stray", b"")
    with pytest.raises(ValueError, match="Unexpected key in batch input: stray"):
        found.get_batches()


def test_output_json_knows_numpy_and_dates() -> None:
    value = {"i": np.int64(1), "f": np.float32(0.5), "a": np.arange(2), "d": datetime.datetime(2023, 9, 1), "é": None}
    body = Output().add(value).content.get(None)
    assert json.loads(body) == {"i": 1, "f": 0.5, "a": [0, 1], "d": "2023-09-01 00:00:00", "é": None}
    assert body.startswith(b'{\n  "i":1,\n')
    with pytest.raises(ValueError, match="JSON"):
        Output().add({"x": float("nan")})


def test_output_is_fluent() -> None:
    out = Output().set_code(201).set_message("made").add("text", key=5, batch_index=2).add_property("a", "b")
    assert (out.code, out.message, out.properties) == (201, "made", {"a": "b"})
    assert out.content.get("batch_2.5") == b"text"
    assert json.loads(str(out))["content"] == {"batch_2.5": "type: <class 'bytearray'>"}
    failed = Output().error("why")
    assert (failed.code, failed.message) == (424, "prediction failure")
    assert json.loads(failed.content.get(None)) == {"code": 424, "message": "prediction failure", "error": "why"}


def test_streamed_items() -> None:
    assert Output().add_stream_content(iter(())).stream_piece(["é"]) == b'{"outputs": ["\\u00e9"]}\n'
    raw = Output().add_stream_content(iter(()), output_formatter=None)
    assert [raw.stream_piece(item) for item in ("é", b"b", bytearray(b"c"), [1])] == [
        "é".encode(),
        b"b",
        b"c",
        b"[\n  1\n]",
    ]


def test_finalize() -> None:
    seen: list[int] = []
    Output().finalize(seen.append, 7).execute_finalize()
    Output().execute_finalize()
    assert seen == [7]


@given(
    hnp.arrays(
        st.sampled_from(["<f4", "<f8", "<i4", "<i8", "u1", "?", ">f4"]),
        hnp.array_shapes(min_dims=0, max_dims=4, max_side=3),
    )
)
def test_arrays_come_back(array: np.ndarray) -> None:
    first, second = from_nd_list(bytes(to_nd_list([array, np.arange(3)])))
    np.testing.assert_array_equal(first, array)
    assert first.shape == array.shape
    assert second.tolist() == [0, 1, 2]


def test_the_bytes_of_an_array() -> None:
    encoded = bytes(to_nd_list(np.array([1.0], dtype="float32")))
    head = struct.pack(">i", 1) + b"\x00\x04NDAR" + struct.pack(">ib", 3, 0) + b"\x00\x07default" + b"\x00\x07FLOAT32"
    assert encoded == head + struct.pack(">iqi", 1, 1, 1) + b"\x00?" + b"<" + struct.pack(">i", 4) + struct.pack(
        "<f", 1.0
    )


@pytest.mark.parametrize("cut", [1, 6, 10, 30])
def test_broken_arrays_are_told(cut: int) -> None:
    encoded = bytes(to_nd_list(np.arange(4)))
    with pytest.raises(ValueError, match="breaks off"):
        from_nd_list(encoded[:cut])
    with pytest.raises(ValueError, match="magic number is not NDAR"):
        from_nd_list(encoded.replace(b"NDAR", b"XXXX"))


def test_decode() -> None:
    assert decode(given_input({"data": b'{"inputs": "a"}'}), None) == {"inputs": "a"}
    assert decode(given_input({"data": b"plain"}), "text/plain") == {"inputs": ["plain"]}
    assert decode(given_input({"data": b"inputs\na\nb\n"}), "text/csv") == {"inputs": ["a", "b"]}
    assert decode(given_input({"data": b"question,context\nq,c\n"}), "text/csv") == {
        "inputs": [{"question": "q", "context": "c"}]
    }
    assert decode(given_input({"data": b"\x00"}), "audio/wav") == {"inputs": b"\x00"}
    with pytest.raises(ValueError, match="header line"):
        decode(given_input({"data": b"a\n1\n"}), "text/csv")


@pytest.mark.parametrize(
    ("accept", "media"),
    [
        (None, "application/json"),
        ("*/*", "application/json"),
        ("text/csv", "text/csv"),
        ("tensor/npz", "tensor/npz"),
        ("text/plain", "tensor/ndlist"),
    ],
)
def test_encode(accept: str | None, media: str) -> None:
    out = Output()
    prediction = [{"a": 1}] if media in ("application/json", "text/csv") else [np.ones(1)]
    encode(out, prediction, accept)
    assert out.properties == {"Content-Type": media}
    if media == "text/csv":
        assert out.content.get(None) == b"a\r\n1\r\n"
