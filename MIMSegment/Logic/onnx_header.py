"""The shapes that an ONNX file promises, read without a library.

Some libraries forget the names of free axes, which say what their sizes must be multiples of. The
numbers of the fields are those of ``onnx.proto3`` in the ONNX standard, version 1.
"""

from __future__ import annotations

import mmap
from collections.abc import Iterator
from pathlib import Path

Shape = tuple[int | str | None, ...]

# Fields of messages: ModelProto.graph, GraphProto.input and .output, ...
_GRAPH, _INPUT, _OUTPUT = 7, 11, 12
_TYPE, _TENSOR_TYPE, _SHAPE, _DIMENSION = 2, 1, 2, 1
_DIMENSION_VALUE, _DIMENSION_NAME = 1, 2
_VARINT, _BYTES = 0, 2
_FIXED = {1: 8, 5: 4}  # wire type: bytes


def read_shapes(path: str | Path) -> tuple[Shape, Shape]:
    """The shapes of the first input and the first output of the network.

    Fixed extents are integers, named axes strings, the others None. Raises OSError, and ValueError
    or LookupError for a file that is no ONNX model.
    """
    with open(path, "rb") as file:
        # Not closed by hand: it ends with the last of its views.
        model = memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))
    shapes: dict[int, Shape] = {}
    for field, value in _fields(_first(model, _GRAPH)):
        if field in (_INPUT, _OUTPUT) and field not in shapes:
            shapes[field] = _shape(value)
    return shapes[_INPUT], shapes[_OUTPUT]


def _shape(value_info: memoryview) -> Shape:
    shape = _first(_first(_first(value_info, _TYPE), _TENSOR_TYPE), _SHAPE)
    return tuple(_extent(value) for field, value in _fields(shape) if field == _DIMENSION)


def _extent(dimension: memoryview) -> int | str | None:
    for field, value in _fields(dimension):
        if field == _DIMENSION_VALUE:
            return value
        if field == _DIMENSION_NAME:
            return str(value, "utf-8") or None
    return None


def _first(message: memoryview, number: int) -> memoryview:
    for field, value in _fields(message):
        if field == number and isinstance(value, memoryview):
            return value
    raise ValueError(f"no field {number}")


def _fields(message: memoryview) -> Iterator[tuple[int, int | memoryview]]:
    """Number and value of each field of a protobuf message; fixed-size values are left out."""
    at = 0
    while at < len(message):
        key, at = _varint(message, at)
        kind, size = key & 7, 0
        if kind == _VARINT:
            value, at = _varint(message, at)
            yield key >> 3, value
        elif kind == _BYTES:
            size, at = _varint(message, at)
            yield key >> 3, message[at : at + size]
        elif kind in _FIXED:
            size = _FIXED[kind]
        else:
            raise ValueError(f"no protobuf: wire type {kind}")
        at += size


def _varint(message: memoryview, at: int) -> tuple[int, int]:
    value, shift = 0, 0
    while True:
        byte = message[at]
        value |= (byte & 0x7F) << shift
        at, shift = at + 1, shift + 7
        if byte < 0x80:
            return value, at
