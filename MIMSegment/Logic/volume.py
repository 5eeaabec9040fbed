"""An image with its place in the patient: geometry, orientation, reading and writing.

Arrays are ``(c, z, y, x)``; world points are millimetres in LPS, as ITK and DICOM have them.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from MIMSegment.Logic.errors import GeometryError, InputError

IMAGE_SUFFIXES = (".nii", ".nii.gz", ".nrrd", ".nhdr", ".mha", ".mhd")
SEGMENTATION_SUFFIX = ".seg.nrrd"
"""Of Slicer's segmentations, which are no images of a folder."""
_LONGEST = 10_000  # mm; a longer image has its voxel size in another unit
_AXIS_CODES = (("R", "L"), ("A", "P"), ("I", "S"))  # LPS: the second letter is where + points


@dataclass(frozen=True)
class Geometry:
    """A regular grid of voxel centers in the patient.

    ``shape`` is (z, y, x) in voxels. ``ijk_to_lps`` is the 4×4 matrix that takes the homogeneous
    voxel index (i, j, k) = (x, y, z) to LPS millimetres; its first three columns are orthogonal.
    """

    shape: tuple[int, int, int]
    ijk_to_lps: np.ndarray

    @property
    def spacing(self) -> tuple[float, float, float]:
        """Voxel size in mm as (z, y, x), the order of ``shape``."""
        return tuple(float(s) for s in np.linalg.norm(self.ijk_to_lps[:3, :3], axis=0)[::-1])

    @property
    def direction(self) -> np.ndarray:
        """3×3 unit vectors of the i, j and k axes, as columns."""
        columns = self.ijk_to_lps[:3, :3]
        return columns / np.linalg.norm(columns, axis=0)

    @property
    def origin(self) -> np.ndarray:
        """LPS position in mm of the center of voxel (0, 0, 0)."""
        return self.ijk_to_lps[:3, 3]

    @property
    def voxel_volume_ml(self) -> float:
        """Volume of one voxel in milliliters."""
        return float(np.prod(self.spacing)) / 1000.0

    @property
    def orientation(self) -> str:
        """Where the i, j and k axes point, to the nearest patient axis, for example ``"LPS"``."""
        axes = _nearest_patient_axes(self.direction)
        return "".join(
            _AXIS_CODES[axis][int(self.direction[axis, i] > 0)] for i, axis in enumerate(axes)
        )

    def is_close(self, other: Geometry, tolerance: float = 1e-2) -> bool:
        """Whether both grids have one shape and their corners agree within ``tolerance`` voxels."""
        if tuple(self.shape) != tuple(other.shape):
            return False
        corners = np.array([[0, 0, 0, 1], [*(n - 1 for n in reversed(self.shape)), 1]], float).T
        corners = np.hstack([corners, np.diag([*(n - 1 for n in reversed(self.shape)), 1.0])])
        corners[3] = 1
        distance = np.abs((self.ijk_to_lps - other.ijk_to_lps) @ corners).max()
        return bool(distance <= tolerance * min(self.spacing))

    def cropped(self, start: tuple[int, int, int], shape: tuple[int, int, int]) -> Geometry:
        """The grid of the block of ``shape`` voxels from index ``start``, both (z, y, x)."""
        matrix = self.ijk_to_lps.copy()
        matrix[:3, 3] = (matrix @ [*reversed(start), 1.0])[:3]
        return Geometry(tuple(shape), matrix)

    def resized(self, shape: tuple[int, int, int]) -> Geometry:
        """The grid of ``shape`` (z, y, x) voxels that fills the same box, edge to edge."""
        scale = np.array(self.shape, float)[::-1] / np.array(shape, float)[::-1]
        matrix = self.ijk_to_lps.copy()
        matrix[:3, :3] = self.ijk_to_lps[:3, :3] * scale
        first = (scale - 1) / 2  # center of the new first voxel, in old indices
        matrix[:3, 3] = (self.ijk_to_lps @ [*first, 1.0])[:3]
        return Geometry(tuple(shape), matrix)

    @staticmethod
    def from_parts(shape, spacing, origin=(0, 0, 0), direction=None) -> Geometry:
        """A grid from its shape and spacing, both (z, y, x), LPS origin and 3×3 direction."""
        matrix = np.eye(4)
        matrix[:3, :3] = (np.eye(3) if direction is None else np.asarray(direction)) * np.asarray(
            spacing, float
        )[::-1]
        matrix[:3, 3] = origin
        return Geometry(tuple(int(n) for n in shape), matrix)


@dataclass(frozen=True)
class Volume:
    """An image: ``array`` (c, z, y, x) on ``geometry``.

    ``source`` names the file or series for messages (never a patient's name). ``warnings`` are
    sentences that the user must see. ``header`` holds what else was read and is safe to keep
    (DICOM: Modality, SeriesDescription, SeriesInstanceUID, EchoTime and the like).
    """

    array: np.ndarray
    geometry: Geometry
    source: str = ""
    warnings: tuple[str, ...] = ()
    header: dict = field(default_factory=dict)

    def __post_init__(self):
        if self.array.ndim != 4 or self.array.shape[1:] != tuple(self.geometry.shape):
            raise ValueError(f"array {self.array.shape} does not fit grid {self.geometry.shape}")

    def reoriented(self, orientation: str) -> Volume:
        """The same image with its axes permuted and flipped to ``orientation`` (e.g. "LPS")."""
        order, flips = axes_to(self.geometry, orientation)
        geometry = permuted(self.geometry, order, flips)
        return Volume(
            permute(self.array, order, flips), geometry, self.source, self.warnings, self.header
        )


def axes_to(geometry: Geometry, orientation: str) -> tuple[tuple[int, ...], tuple[bool, ...]]:
    """How to reach ``orientation``: for each new (z, y, x) axis its old one, and if it flips."""
    current = geometry.orientation
    order, flips = [], []
    for letter in reversed(orientation):  # (z, y, x) order
        pair = next(p for p in _AXIS_CODES if letter in p)
        i = next(i for i, c in enumerate(current) if c in pair)
        order.append(2 - i)
        flips.append(current[i] != letter)
    return tuple(order), tuple(flips)


def permute(array: np.ndarray, order, flips) -> np.ndarray:
    """Apply the result of `axes_to` to the last three axes of ``array`` (a view, no copy)."""
    lead = array.ndim - 3
    array = array.transpose(*range(lead), *(lead + axis for axis in order))
    return array[(..., *(slice(None, None, -1 if f else 1) for f in flips))]


def permuted(geometry: Geometry, order, flips) -> Geometry:
    """The grid of an array after `permute`."""
    matrix = geometry.ijk_to_lps
    new = matrix.copy()
    shape = tuple(geometry.shape[axis] for axis in order)
    for axis, (old, flip) in enumerate(zip(order, flips, strict=True)):
        column = matrix[:3, 2 - old]
        new[:3, 2 - axis] = -column if flip else column
        if flip:
            new[:3, 3] += column * (geometry.shape[old] - 1)
    return Geometry(shape, new)


def is_image_of_folder(name: str) -> bool:
    """Whether a file of this name, found in a folder, is taken for an image."""
    return name.lower().endswith(IMAGE_SUFFIXES) and not name.lower().endswith(SEGMENTATION_SUFFIX)


def read_volume(path: str | Path) -> Volume:
    """Read a NIfTI, NRRD or MHA file, or a folder (or one file) of a DICOM series.

    Vector and 4D images become channels. Raises InputError or GeometryError with the file's name,
    the reason and the way out, where plain ITK would return a wrong image without a word.
    """
    path = Path(path)
    if not path.exists():
        raise InputError(f"{path} does not exist.")
    name = path.name.lower()
    if path.is_file() and name.endswith((".nii", ".nii.gz")):
        from MIMSegment.Logic.nifti import read_nifti

        volume = read_nifti(path)
    elif path.is_file() and name.endswith(IMAGE_SUFFIXES):
        from MIMSegment.Logic.itk_file import read_itk_file

        volume = read_itk_file(path)
    else:
        from MIMSegment.Logic.dicom import read_dicom

        volume = read_dicom(path)
    check_values(volume)
    return volume


def write_volume(volume: Volume, path: str | Path) -> None:
    """Write to NIfTI, NRRD or MHA by file ending, whole or not at all. Raises OutputError."""
    from MIMSegment.Logic.image_file import write_image

    write_image(to_itk(volume), path)


def itk():
    """SimpleITK, imported late: it costs more than everything else here together."""
    import SimpleITK

    SimpleITK.ProcessObject.SetGlobalWarningDisplay(False)
    return SimpleITK


def to_itk(volume: Volume):
    """A SimpleITK image; several channels become a vector image."""
    array = volume.array
    array = array[0] if array.shape[0] == 1 else np.moveaxis(array, 0, -1)
    image = itk().GetImageFromArray(np.ascontiguousarray(array), isVector=array.ndim == 4)
    image.SetSpacing(volume.geometry.spacing[::-1])
    image.SetOrigin(volume.geometry.origin.tolist())
    image.SetDirection(volume.geometry.direction.ravel().tolist())
    return image


def from_itk(image, source: str = "") -> Volume:
    """A 3D SimpleITK image (scalar or vector) or a 4D one (last axis = channels)."""
    array = itk().GetArrayFromImage(image)
    dimension = image.GetDimension()
    if dimension == 4:
        spacing, direction = image.GetSpacing()[:3], np.array(image.GetDirection()).reshape(4, 4)
        origin, direction = image.GetOrigin()[:3], direction[:3, :3]
    elif dimension == 3:
        spacing, origin = image.GetSpacing(), image.GetOrigin()
        direction = np.array(image.GetDirection()).reshape(3, 3)
        vector = image.GetNumberOfComponentsPerPixel() > 1
        array = np.moveaxis(array, -1, 0) if vector else array[None]
    else:
        raise InputError(
            f"{source} is a {dimension}D image; a 3D image is needed: open the whole series."
        )
    return Volume(
        array, Geometry.from_parts(array.shape[1:], spacing[::-1], origin, direction), source
    )


def unstated_side(path: Path) -> str:
    """The warning for a file that does not say where the patient's left is."""
    return (
        f"{path.name} does not state which side is left: the usual convention (first axis "
        "toward the patient's left) is assumed. Check a landmark before use."
    )


def check_values(volume: Volume) -> None:
    """Raise InputError or GeometryError for an image that no model can be run on."""
    where, array = volume.source, volume.array
    if min(volume.geometry.shape) < 2:
        raise InputError(
            f"{where} is a single slice {volume.geometry.shape}; a 3D image is needed: open the "
            "whole series."
        )
    matrix = volume.geometry.ijk_to_lps
    if not np.isfinite(matrix).all() or abs(np.linalg.det(volume.geometry.direction)) < 0.5:
        raise GeometryError(f"{where} has no valid orientation or spacing in its header.")
    if max(np.multiply(volume.geometry.shape, volume.geometry.spacing)) > _LONGEST:
        size = " × ".join(f"{s:g}" for s in volume.geometry.spacing[::-1])
        raise GeometryError(
            f"{where} has voxels of {size} mm by its header, which no scan of a body has: their "
            "size is in another unit; set it right in the program that wrote the file."
        )
    if array.dtype.kind == "f" and not np.isfinite(array).all():
        raise InputError(
            f"{where} contains NaN or infinite values; replace them, or convert the original "
            "images again."
        )
    if array.dtype.kind not in "iuf":
        raise InputError(f"{where} holds {array.dtype} values; grey values are needed.")


def _nearest_patient_axes(direction: np.ndarray) -> tuple[int, int, int]:
    """For the i, j and k axes the patient axis (0 L/R, 1 P/A, 2 S/I) each follows most closely."""
    from itertools import permutations

    return max(permutations(range(3)), key=lambda p: sum(abs(direction[p[i], i]) for i in range(3)))
