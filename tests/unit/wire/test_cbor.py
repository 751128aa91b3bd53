"""CBOR: the examples of RFC 8949, botocore's own encoder and decoder as the other side, and bytes that are none."""

from __future__ import annotations

import contextlib
import datetime as dt
import random
from io import BufferedReader, BytesIO
from typing import Any

import pytest
from botocore.parsers import BaseCBORParser
from botocore.serialize import CBORSerializer
from hypothesis import given
from hypothesis import strategies as st

from penstock.wire import cbor

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**64), 2**64 - 1) | st.floats(allow_nan=False) | st.text() | st.binary(),
    lambda inner: st.lists(inner, max_size=6) | st.dictionaries(st.text(max_size=8), inner, max_size=6),
    max_leaves=30,
)


@given(VALUES)
def test_what_is_written_is_read(value: Any) -> None:
    assert cbor.decode(cbor.encode(value)) == value


@given(VALUES)
def test_botocore_reads_what_we_write(value: Any) -> None:
    read = BaseCBORParser().parse_data_item(BufferedReader(BytesIO(cbor.encode(value))))
    assert read == without_nulls(value)


def without_nulls(value: Any) -> Any:
    """botocore leaves members out that are null, at every depth."""
    if isinstance(value, list):
        return [without_nulls(one) for one in value]
    if isinstance(value, dict):
        return {key: without_nulls(one) for key, one in value.items() if one is not None}
    return value


def test_a_point_in_time_is_read_by_both() -> None:
    at = dt.datetime(2026, 11, 25, 17, 45, 0, 250000, dt.UTC)
    assert cbor.decode(cbor.encode(at)) == at.timestamp()
    read = BaseCBORParser().parse_data_item(BufferedReader(BytesIO(cbor.encode(at))))
    assert read == at


@pytest.mark.parametrize(
    ("hexadecimal", "value"),
    [
        ("00", 0),
        ("17", 23),
        ("1818", 24),
        ("1b000000e8d4a51000", 10**12),
        ("3bffffffffffffffff", -(2**64)),
        ("f90000", 0.0),
        ("f93e00", 1.5),
        ("fa47c35000", 100000.0),
        ("fb3ff199999999999a", 1.1),
        ("f4", False),
        ("f6", None),
        ("f7", None),
        ("c11a514b67b0", 1363896240),
        ("c1fb41d452d9ec200000", 1363896240.5),
        ("4401020304", b"\x01\x02\x03\x04"),
        ("62c3bc", "ü"),
        ("83010203", [1, 2, 3]),
        ("a26161016162820203", {"a": 1, "b": [2, 3]}),
        ("5f42010243030405ff", b"\x01\x02\x03\x04\x05"),
        ("7f657374726561646d696e67ff", "streaming"),
        ("9f018202039f0405ffff", [1, [2, 3], [4, 5]]),
        ("bf61610161629f0203ffff", {"a": 1, "b": [2, 3]}),
    ],
)
def test_the_standard_s_examples(hexadecimal: str, value: Any) -> None:
    assert cbor.decode(bytes.fromhex(hexadecimal)) == value


@pytest.mark.parametrize(
    "hexadecimal",
    [
        "",
        "18",
        "1c",
        "1f",
        "ff",
        "3f",
        "0000",
        "62c3",
        "61ff",
        "7f01ff",
        "7f7f61ffff",
        "81ff",
        "8201ff",
        "bf6161ff",
        "a1ff00",
        "a10101",
        "9bffffffffffffffff",
        "5bffffffffffffffff",
        "c074323031332d30332d32315432303a30343a30305a",
        "c1f5",
        "c16130",
        "df00",
        "f8ff",
        "e0",
        "81" * 100 + "00",
        "9f" * 100,
    ],
)
def test_what_is_none_is_refused(hexadecimal: str) -> None:
    with pytest.raises(cbor.CborError):
        cbor.decode(bytes.fromhex(hexadecimal))


def test_garbage_is_refused_and_never_worse(rng: random.Random) -> None:
    whole = cbor.encode({"MetricData": [{"MetricName": "m", "Values": [1.0, 2.5], "At": dt.datetime.now(dt.UTC)}] * 3})
    for _ in range(20_000):
        data = bytearray(whole)
        for _ in range(rng.randint(1, 4)):
            data[rng.randrange(len(data))] = rng.randrange(256)
        with contextlib.suppress(cbor.CborError):
            cbor.decode(bytes(data[: rng.randint(0, len(data))]))


def test_the_serializer_is_the_one_that_sdks_have() -> None:
    """botocore's form of a request, made by its own serializer's primitives."""
    serializer, out = CBORSerializer(), bytearray()
    for number in (0, 23, 24, 255, 256, 65_536, 2**32, -1, -(2**40)):
        out = bytearray()
        serializer._serialize_type_integer(out, number, None, None)
        assert bytes(out) == cbor.encode(number)
