"""Arrays as bytes: DJL's NDList format, version 3, and npz on the way in."""

from __future__ import annotations

import io
import struct
from typing import Any

MAGIC_NUMBER = "NDAR"
VERSION = 3


def to_nd_list(np_list: Any) -> bytearray:
    """One array or a list of them, little-endian and in C order."""
    arrays = np_list if isinstance(np_list, list) else [np_list]
    out = bytearray(struct.pack(">i", len(arrays)))
    for array in arrays:
        data = array.astype(array.dtype.newbyteorder("<")).tobytes("C")
        out += _text(MAGIC_NUMBER) + struct.pack(">ib", VERSION, 0)
        out += _text("default") + _text(str(array.dtype.newbyteorder("=")).upper())
        out += struct.pack(f">i{array.ndim}q", array.ndim, *array.shape)
        out += struct.pack(f">i{array.ndim}h", array.ndim, *([ord("?")] * array.ndim))
        out += b"<" + struct.pack(">i", len(data)) + data
    return out


def from_nd_list(encoded: bytes | bytearray) -> list[Any]:
    """The arrays of an NDList, or of an npz file. Raises ValueError on bytes that are neither."""
    import numpy

    if bytes(encoded[:2]) == b"PK":
        archive = numpy.load(io.BytesIO(encoded), allow_pickle=False)
        return [archive[name] for name in archive.files]
    reader = _Reader(bytes(encoded))
    try:
        return [_array(reader) for _ in range(reader.unpack(">i"))]
    except struct.error as error:
        raise ValueError(f"the NDList breaks off: {error}") from error


class _Reader:
    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0

    def unpack(self, form: str) -> Any:
        value = struct.unpack_from(form, self._data, self._at)
        self._at += struct.calcsize(form)
        return value[0] if len(value) == 1 else value

    def take(self, length: int) -> bytes:
        if length < 0 or self._at + length > len(self._data):
            raise ValueError("the NDList breaks off")
        self._at += length
        return self._data[self._at - length : self._at]

    def text(self) -> str:
        return self.take(self.unpack(">h")).decode("utf-8")


def _array(reader: _Reader) -> Any:
    import numpy

    if (magic := reader.text()) != MAGIC_NUMBER:
        raise ValueError(f"magic number is not {MAGIC_NUMBER}, actual {magic}")
    if (version := reader.unpack(">i")) != VERSION:
        raise ValueError(f"require version {VERSION}, actual {version}")
    if reader.unpack(">b") == 1:
        reader.text()  # The array's name.
    reader.text()  # The sparse format, which is always "default".
    kind = numpy.dtype(reader.text().lower())
    shape = [reader.unpack(">q") for _ in range(reader.unpack(">i"))]
    for _ in range(reader.unpack(">i")):
        reader.unpack(">h")  # The layout, one character a dimension.
    order = chr(reader.unpack(">b"))
    data = reader.take(reader.unpack(">i"))
    return numpy.frombuffer(data, kind.newbyteorder(">" if order == ">" else "<")).reshape(shape)


def _text(value: str) -> bytes:
    data = value.encode("utf-8")
    return struct.pack(">h", len(data)) + data
