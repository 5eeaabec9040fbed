"""Where NRRD and MetaImage files have their voxels, by their headers.

Formats: https://teem.sourceforge.net/nrrd/format.html and MetaIO's documentation,
https://itk.org/Wiki/ITK/MetaIO/Documentation.
"""

from __future__ import annotations

import math
import re
from pathlib import Path
from typing import BinaryIO

from MIMSegment.Logic.errors import InputError
from MIMSegment.Logic.payload import Payload, damage_told

_ITEM_SIZES = (  # bytes, by the first of these in the name of a type
    ("char", 1), ("short", 2), ("longlong", 8), ("long", 4), ("float", 4), ("double", 8),
    ("int", 4),
)  # fmt: skip
_MOST_FILES = 100_000


def find_payload(path: Path) -> Payload | None:
    """Where the voxels of a NRRD or MetaImage file are; None if its header does not tell.

    Raises InputError for a header that is cut short.
    """
    with damage_told(path), open(path, "rb") as stream:
        if stream.read(4) == b"NRRD":
            stream.readline()
            return _in_nrrd(stream, path)
        stream.seek(0)
        return _in_metaimage(stream, path)


def _in_nrrd(stream: BinaryIO, path: Path) -> Payload | None:
    fields, ended = _nrrd_fields(stream)
    detached = "datafile" in fields
    if not ended and not detached:
        raise _header_cut_short(path)
    encoding = {"raw": "", "gzip": "gzip", "gz": "gzip"}.get(fields.get("encoding", "").lower())
    names = _file_names(fields["datafile"], stream) if detached else [path.name]
    skip = _whole(fields.get("byteskip", "0"))
    if encoding is None or not names:
        return None
    at_end = encoding == "" and skip < 0
    return Payload(
        files=tuple(path.parent / name for name in names),
        offset=-1 if at_end else 0 if detached else stream.tell(),
        lines=_whole(fields.get("lineskip", "0")),
        compression=encoding,
        skip=max(0, skip),
        size=_size(fields.get("sizes", ""), fields.get("type", "")),
    )


def _nrrd_fields(stream: BinaryIO) -> tuple[dict[str, str], bool]:
    """The fields of a header by name, and whether its end was seen."""
    fields: dict[str, str] = {}
    for line in _lines(stream):
        if not line:
            return fields, True
        name, _, value = line.partition(": ")
        if not name.startswith("#") and ":=" not in name:
            fields[name.lower().replace(" ", "")] = value.strip()
        if fields.get("datafile", "").startswith("LIST"):  # the names follow
            return fields, True
    return fields, False


def _in_metaimage(stream: BinaryIO, path: Path) -> Payload | None:
    fields: dict[str, str] = {}
    for line in _lines(stream):
        if found := re.match(r"\s*(\w+)\s*[=:]\s*(.*?)\s*$", line):
            fields[found[1].lower()] = found[2]
        if "elementdatafile" in fields:
            break
    else:
        if {"objecttype", "ndims"} & set(fields):
            raise _header_cut_short(path)
        return None
    spec = fields["elementdatafile"]
    local = spec.upper() == "LOCAL"
    names = [path.name] if local else _file_names(spec, stream)
    compressed, binary = (
        fields.get(key, "").lower().startswith(("t", "1"))
        for key in ("compresseddata", "binarydata")
    )
    if not names or not (compressed or binary):
        return None
    header = _whole(fields.get("headersize", "0"))
    header = max(0, header) if compressed else header
    return Payload(
        files=tuple(path.parent / name for name in names),
        offset=header or (stream.tell() if local else 0),
        compression="zlib" if compressed else "",
        size=_size(
            f"{fields.get('dimsize', '')} {fields.get('elementnumberofchannels', '1')}",
            fields.get("elementtype", ""),
        ),
    )


def _lines(stream: BinaryIO):
    for line in iter(stream.readline, b""):
        yield line.decode("utf-8", "surrogateescape").rstrip("\r\n")


def _header_cut_short(path: Path) -> InputError:
    return InputError(f"{path} ends inside its header; copy or download it again.")


def _file_names(spec: str, stream: BinaryIO) -> list[str]:
    """The data files of a detached header: one, a list in the lines that follow, or a pattern."""
    if spec.startswith("LIST"):
        return [name for name in _lines(stream) if name]
    pattern = re.fullmatch(r"([^%]*%0?\d?d[^%]*?)\s+(-?\d+)\s+(-?\d+)\s+(-?\d+)(\s+\d+)?", spec)
    if not pattern:
        return [spec]
    first, last, step = (int(number) for number in pattern.group(2, 3, 4))
    numbers = range(first, last + (1 if step > 0 else -1), step) if step else range(0)
    return [pattern[1] % n for n in numbers] if len(numbers) <= _MOST_FILES else []


def _size(sizes: str, kind: str) -> int | None:
    """The bytes of an image of these sizes (numbers in one text) and type of values."""
    kind = re.sub(r"[\s_]", "", kind.lower())
    if found := re.fullmatch(r"u?int(8|16|32|64)t?", kind):
        item = int(found[1]) // 8
    else:
        item = next((size for word, size in _ITEM_SIZES if word in kind), None)
    numbers = sizes.split()
    if item is None or not numbers or not all(n.isdecimal() for n in numbers):
        return None
    return math.prod(map(int, numbers)) * item


def _whole(text: str) -> int:
    return int(text) if re.fullmatch(r"-?\d+", text.strip()) else 0
