"""NIfTI-1 and NIfTI-2 files, with the affine that the file states.

ITK's reader makes a sheared affine orthogonal without a word and refuses others for rounding; so
the header is read here (NIfTI-1 and -2 data format standards, https://nifti.nimh.nih.gov), and
the voxels with it.
"""

from __future__ import annotations

import gzip
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np

from MIMSegment.Logic.errors import InputError
from MIMSegment.Logic.image_kind import told_by_content
from MIMSegment.Logic.payload import CHUNK, bytes_to_end, cut_short, damage_told
from MIMSegment.Logic.shear import corner_distance, straightened
from MIMSegment.Logic.volume import Geometry, Volume, unstated_side

FORMS_TOLERANCE = 0.5  # voxels by which sform and qform may differ without a warning
SIZE_TOLERANCE = 0.01  # of a voxel's size by which sform and pixdim may differ without one
_FLOAT32_ROUNDING = 3 * float(np.finfo(np.float32).eps)
_RAS_TO_LPS = np.diag([-1.0, -1.0, 1.0, 1.0])
_MM_PER_UNIT = {1: 1000.0, 3: 0.001}  # xyzt_units: 1 meter, 2 millimeter, 3 micrometer
_DTYPES = {
    2: "u1", 4: "i2", 8: "i4", 16: "f4", 64: "f8", 256: "i1", 512: "u2", 768: "u4", 1024: "i8",
    1280: "u8",
}  # fmt: skip
_REFUSED = {
    32: ("complex numbers", "save the magnitude as an image first"),
    1792: ("complex numbers", "save the magnitude as an image first"),
    2048: ("complex numbers", "save the magnitude as an image first"),
    128: ("colors (RGB)", "convert it to grey values first"),
    2304: ("colors (RGBA)", "convert it to grey values first"),
    1536: ("128-bit numbers", "save it as 32-bit float first"),
    1: ("single bits", "save it as 8-bit integers first"),
}


@dataclass(frozen=True)
class NiftiHeader:
    """The fields of a NIfTI header that place and scale the voxels.

    ``shape`` is (x, y, z, ...) as stored; ``sform`` and ``qform`` are 4×4 voxel-to-LPS matrices in
    mm, None where their code is 0. ``pixdim`` is the voxel size (x, y, z) in mm.
    """

    shape: tuple[int, ...]
    dtype: np.dtype
    offset: int
    slope: float
    intercept: float
    pixdim: tuple[float, ...]
    sform: np.ndarray | None
    qform: np.ndarray | None


def read_nifti(path: str | Path) -> Volume:
    """Read a ``.nii`` or ``.nii.gz`` file; a fourth (or fifth) axis becomes channels.

    Integers stay integers unless the header scales them. Raises InputError for damaged files and
    for complex or color values, GeometryError for an affine that no orthogonal grid can express.
    """
    path = Path(path)
    with damage_told(path), _opened(path) as stream:
        header = read_header(stream, path)
        geometry, warnings = _geometry(header, path)
        array = _read_voxels(stream, header, path)
    return Volume(array, geometry, str(path), warnings)


def read_header(stream: BinaryIO, path: Path) -> NiftiHeader:
    """Parse the 348-byte NIfTI-1 or 540-byte NIfTI-2 header at the start of ``stream``."""
    head = stream.read(348)
    order, version = _byte_order_and_version(head, path)
    head += stream.read(540 - 348 if version == 2 else 4)  # a NIfTI-1 header and its extension flag
    if len(head) < (540 if version == 2 else 352):
        raise InputError(f"{path} ends inside its header; copy or download it again.")

    def field(layout: str, *place: int):
        return struct.unpack_from(order + layout.split()[version - 1], head, place[version - 1])

    dim = field("8h 8q", 40, 16)
    (code,) = field("h h", 70, 12)
    pixdim = field("8f 8d", 76, 104)
    (offset,) = field("f q", 108, 168)
    slope, intercept = field("2f 2d", 112, 176)
    qform_code, sform_code = field("2h 2i", 252, 344)
    transform = field("18f 18d", 256, 352)
    (units,) = field("B i", 123, 500)
    if code not in _DTYPES:
        what, way_out = _REFUSED.get(code, (f"an unknown data type ({code})", "convert it first"))
        raise InputError(f"{path} holds {what}; {way_out}.")
    if not 2 <= dim[0] <= 7 or min(dim[1 : dim[0] + 1]) < 1 or not 0 <= offset < 2**62:
        raise InputError(f"{path} states an impossible size {dim}; its header is damaged.")
    unit = _MM_PER_UNIT.get(units & 7, 1.0)
    to_lps = np.diag([-unit, -unit, unit, 1.0])
    return NiftiHeader(
        shape=tuple(dim[1 : dim[0] + 1]),
        dtype=np.dtype(order + _DTYPES[code]),
        offset=max(int(offset), len(head)),
        slope=slope,
        intercept=intercept,
        pixdim=tuple(abs(p) * unit for p in pixdim[1:4]),
        sform=to_lps @ _sform_matrix(transform[6:]) if sform_code > 0 else None,
        qform=to_lps @ _qform_matrix(transform[:6], pixdim) if qform_code > 0 else None,
    )


def _opened(path: Path) -> BinaryIO:
    with open(path, "rb") as stream:
        zipped = stream.read(2) == b"\x1f\x8b"
    return gzip.open(path, "rb") if zipped else open(path, "rb")


def _byte_order_and_version(head: bytes, path: Path) -> tuple[str, int]:
    if len(head) == 348:
        for order in "<>":
            size = struct.unpack_from(order + "i", head)[0]
            if size == 348 and head[344:347] == b"n+1":
                return order, 1
            if size == 540 and head[4:7] == b"n+2":
                return order, 2
            if size == 348:
                raise InputError(
                    f"{path} is an Analyze file or half of a .hdr/.img pair, which does not say "
                    "left from right reliably; convert it to a single NIfTI file first."
                )
    told = told_by_content(path) or "its header is missing or damaged."
    raise InputError(f"{path} is not a NIfTI file; {told}")


def _sform_matrix(rows) -> np.ndarray:
    matrix = np.vstack([np.reshape(rows, (3, 4)), [0, 0, 0, 1]])
    return matrix if np.isfinite(matrix).all() else np.zeros((4, 4))  # both are refused later


def _qform_matrix(parameters, pixdim) -> np.ndarray:
    """The RAS matrix of a quaternion (b, c, d) and offset, NIfTI-1 standard, method 2."""
    b, c, d, *offset = parameters
    squared = 1.0 - (b * b + c * c + d * d)
    a = np.sqrt(squared) if squared > _FLOAT32_ROUNDING else 0.0
    if a == 0:  # half a turn, where rounding would tilt the axes
        b, c, d = np.array([b, c, d]) / np.linalg.norm([b, c, d])
    rotation = np.array(
        [
            [a * a + b * b - c * c - d * d, 2 * (b * c - a * d), 2 * (b * d + a * c)],
            [2 * (b * c + a * d), a * a + c * c - b * b - d * d, 2 * (c * d - a * b)],
            [2 * (b * d - a * c), 2 * (c * d + a * b), a * a + d * d - b * b - c * c],
        ]
    )
    matrix = np.eye(4)
    handedness = -1.0 if pixdim[0] < 0 else 1.0
    matrix[:3, :3] = rotation * np.abs(pixdim[1:4]) * [1, 1, handedness]
    matrix[:3, 3] = offset
    return matrix


def _geometry(header: NiftiHeader, path: Path) -> tuple[Geometry, tuple[str, ...]]:
    """The grid by sform, else qform, else pixdim alone, and what the user must know about it."""
    i, j, k = (*header.shape, 1)[:3]
    shape = (k, j, i)
    if header.sform is not None:
        matrix = header.sform
    elif header.qform is not None:
        matrix = header.qform
    else:
        spacing = [p if p > 0 else 1.0 for p in header.pixdim]
        return Geometry(shape, np.diag([*spacing, 1.0])), (unstated_side(path),)
    straight = straightened(matrix, shape, str(path), "nibabel.processing.resample_to_output")
    geometry = Geometry(shape, straight)
    if header.sform is not None and header.qform is not None:
        apart = corner_distance(header.sform, header.qform, shape)
        if apart > FORMS_TOLERANCE:
            warning = (
                f"{path.name} holds two positions that differ by up to "
                f"{apart * min(geometry.spacing):.1f} mm (sform and qform); the sform was used."
            )
            return geometry, (warning,)
    elif header.sform is not None and (sizes := _two_sizes(header, geometry)):
        return geometry, (
            f"{path.name} states two voxel sizes, {sizes[0]} mm (sform) and {sizes[1]} mm "
            "(pixdim); the first was used. Check a distance before use.",
        )
    return geometry, ()


def _two_sizes(header: NiftiHeader, geometry: Geometry) -> tuple[str, str] | None:
    """The voxel sizes of sform and pixdim where they differ."""
    sizes = geometry.spacing[::-1], header.pixdim[: len(header.shape)]
    pairs = [(one, other) for one, other in zip(*sizes, strict=False) if other > 0]
    if all(abs(one - other) <= SIZE_TOLERANCE * one for one, other in pairs):
        return None
    return tuple(" × ".join(f"{size:.4g}" for size in spacing) for spacing in sizes)


def _read_voxels(stream: BinaryIO, header: NiftiHeader, path: Path) -> np.ndarray:
    """The voxels as a (c, z, y, x) array in native byte order, scaled as the header says."""
    i, j, k, *rest = (*header.shape, 1, 1)[: max(3, len(header.shape))]
    channels = [n for n in rest if n > 1]
    if len(channels) > 1:
        raise InputError(
            f"{path} is a {len(header.shape)}D image of size {header.shape}; choose one time "
            "point or one component and save it as a 3D or 4D image."
        )
    shape = (channels[0] if channels else 1, k, j, i)
    stream.seek(header.offset)
    try:
        array = np.empty(shape, header.dtype)
    except (MemoryError, ValueError):
        raise InputError(f"{path} states {shape} voxels, too many for this computer.") from None
    _fill(stream, memoryview(array.reshape(-1)).cast("B"), path)
    return _scaled(array.astype(header.dtype.newbyteorder("="), copy=False), header)


def _fill(stream: BinaryIO, buffer: memoryview, path: Path) -> None:
    done = 0
    while done < len(buffer):
        count = stream.readinto(buffer[done : done + CHUNK])
        if not count:
            raise cut_short(path, done, len(buffer))
        done += count
    bytes_to_end(stream)


def _scaled(array: np.ndarray, header: NiftiHeader) -> np.ndarray:
    slope, intercept = header.slope, header.intercept
    if not np.isfinite([slope, intercept]).all() or slope == 0 or (slope, intercept) == (1, 0):
        return array
    # float32 holds every 16-bit integer exactly, but not every 32-bit one
    wide = array.dtype.itemsize > 2 and array.dtype != np.float32
    kind = np.float64 if wide else np.float32
    return array.astype(kind) * kind(slope) + kind(intercept)
