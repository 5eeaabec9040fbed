"""From tissue to scan: what the digital patient is made of, and how a scanner would show it.

A `Canvas` is painted with tissues, back to front; every technique (CT, or an MR sequence) has its
own image of the patient, since a tissue's signal follows from its properties. `acquire` samples
such an image on a scanner's grid, which may be oblique, anisotropic and coarser.

Signal equations: spin echo, inversion recovery and mono-exponential diffusion, as in Bernstein,
King and Zhou, Handbook of MRI Pulse Sequences (2004). Noise: Rician in magnitude MR (Gudbjartsson
and Patz, 1995); in CT a band-passed grain (Boedeker, Cooper and McNitt-Gray, 2007).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields, replace

import numpy as np
from scipy import ndimage

from mim.phantom_shapes import Point, Space, rotation, smooth_field
from MIMSegment.Logic.labels import Label
from MIMSegment.Logic.volume import Geometry, Volume, from_itk, itk, to_itk


@dataclass(frozen=True)
class Phantom:
    """One digital patient: ``images`` by sequence (1, z, y, x) int16, ``label`` uint8, truth."""

    images: dict[str, Volume]
    label: Volume
    info: dict = field(default_factory=dict)

    @property
    def lesions(self) -> list[dict]:
        """The lesions drawn: volume_ml, center_lps in mm and what else the task tells of them."""
        return self.info.get("lesions", [])


@dataclass(frozen=True)
class PhantomTask:
    """A clinical task. ``recipe(rng, size, sequence_grids)`` makes one patient."""

    name: str
    description: str
    modality: str
    sequences: tuple[str, ...]
    labels: list[Label]
    recipe: Callable[..., Phantom]


@dataclass(frozen=True)
class Tissue:
    """What MR sees. ``t1``, ``t2`` in ms at 3 T, ``adc`` in 1e-6 mm²/s, ``pd`` relative to water.

    ``uptake`` is the rise of 1/T1 in 1/s after gadolinium. Values may be (z, y, x) arrays: texture.
    """

    pd: float | np.ndarray
    t1: float | np.ndarray
    t2: float | np.ndarray
    adc: float | np.ndarray = 1000.0
    uptake: float | np.ndarray = 0.0
    fat: bool = False

    def but(self, **changes) -> Tissue:
        """The same tissue with some properties changed."""
        return replace(self, **changes)


AIR = Tissue(0.0, 1000.0, 50.0)
FAT = Tissue(0.95, 370.0, 115.0, 100.0, fat=True)
MUSCLE = Tissue(0.78, 1400.0, 41.0, 1300.0)
MARROW = Tissue(0.75, 450.0, 98.0, 300.0, fat=True)
CORTICAL_BONE = Tissue(0.06, 900.0, 20.0, 500.0)
FLOWING_BLOOD = Tissue(0.12, 1900.0, 60.0, 2000.0, uptake=60.0)
FLUID = Tissue(1.0, 4000.0, 1000.0, 3000.0)


def spin_echo(tissue: Tissue, tr: float, te: float, gadolinium: bool = False):
    """Signal of a (turbo) spin echo; ``tr`` and ``te`` in ms."""
    t1 = 1 / (1 / tissue.t1 + tissue.uptake / 1000) if gadolinium else tissue.t1
    return tissue.pd * (1 - np.exp(-tr / t1)) * np.exp(-te / tissue.t2)


def inversion_recovery(tissue: Tissue, tr: float, te: float, ti: float):
    """Magnitude after an inversion ``ti`` ms before the excitation: FLAIR where fluid is nulled."""
    longitudinal = 1 - 2 * np.exp(-ti / tissue.t1) + np.exp(-tr / tissue.t1)
    return tissue.pd * np.abs(longitudinal) * np.exp(-te / tissue.t2)


def diffusion(tissue: Tissue, te: float, b: float):
    """Fat-suppressed echo-planar signal at ``b`` s/mm²."""
    water = 0.05 if tissue.fat else 1.0
    return water * tissue.pd * np.exp(-te / tissue.t2) * np.exp(-b * 1e-6 * tissue.adc)


class Canvas(Space):
    """The patient as every technique sees it: one image per technique, and the label map."""

    def __init__(self, lengths: Point, spacing: Point, rng, techniques: Mapping[str, Callable]):
        """``techniques`` turn what is painted (a Tissue, or HU) into signal."""
        super().__init__(lengths, spacing, rng)
        self.center = rng.uniform(-25, 25, 3)  # where the patient lies in the scanner, LPS mm
        self.techniques = dict(techniques)
        self.images = {name: np.zeros(self.shape, np.float32) for name in techniques}
        self.label = np.zeros(self.shape, np.uint8)

    def paint(self, level: np.ndarray, tissue, label: int | None = None, edge: float | None = None):
        """Cover what is inside ``level`` with ``tissue``; a voxel across the surface gets both.

        ``label`` None leaves the label map alone, 0 clears it. ``edge`` is the width in mm of the
        transition, a voxel unless given.
        """
        edge = np.float32(edge or max(self.spacing))
        where = np.flatnonzero(level > -edge / 2)
        share = np.clip(0.5 + level.reshape(-1)[where] / edge, 0, 1)
        tissue = _values_at(tissue, where)
        for name, signal in self.techniques.items():
            image = self.images[name].reshape(-1)
            old = image[where]
            image[where] = old + share * (np.asarray(signal(tissue), np.float32) - old)
        if label is not None:
            self.label[level > 0] = label


def _values_at(tissue, where: np.ndarray):
    """The tissue with its arrays reduced to the voxels ``where`` (flat indices)."""
    if isinstance(tissue, np.ndarray):
        return tissue.reshape(-1)[where]
    if not isinstance(tissue, Tissue):
        return tissue
    values = {f.name: getattr(tissue, f.name) for f in fields(tissue)}
    arrays = {k: v.reshape(-1)[where] for k, v in values.items() if isinstance(v, np.ndarray)}
    return replace(tissue, **arrays)


def scan_grid(size, spacing, center: Point, turn: Point = (0, 0, 0)) -> Geometry:
    """A grid of ``size`` voxels of ``spacing`` mm, both (z, y, x), about ``center`` (LPS mm).

    ``turn`` are its angles in degrees about the patient's axes.
    """
    direction = rotation(*turn)
    half = (np.array(size[::-1]) - 1) / 2 * np.array(spacing[::-1])
    return Geometry.from_parts(size, spacing, np.asarray(center) - direction @ half, direction)


def acquire(image: np.ndarray, canvas: Canvas, grid: Geometry) -> np.ndarray:
    """What a scanner with voxels of ``grid`` sees of ``image``: blurred to them, then sampled."""
    wide = np.square(grid.spacing) - np.square(canvas.spacing)
    sigma = 0.42 * np.sqrt(np.clip(wide, 0, None)) / canvas.spacing
    blurred = ndimage.gaussian_filter(image, sigma, mode="nearest", truncate=3)
    return sample(blurred, _canvas_grid(canvas), grid)


def acquire_label(canvas: Canvas, grid: Geometry) -> Volume:
    """The label at the center of every voxel of ``grid``."""
    return Volume(sample(canvas.label, _canvas_grid(canvas), grid, nearest=True)[None], grid)


def sample(array: np.ndarray, source: Geometry, grid: Geometry, nearest=False) -> np.ndarray:
    """``array`` (z, y, x), which lies on ``source``, at the voxel centers of ``grid``."""
    sitk = itk()
    how = sitk.sitkNearestNeighbor if nearest else sitk.sitkLinear
    moving = to_itk(Volume(array[None], source))
    target = to_itk(Volume(np.zeros((1, *grid.shape), np.uint8), grid))
    return from_itk(sitk.Resample(moving, target, sitk.Transform(), how)).array[0]


def with_rician_noise(signal: np.ndarray, sigma: float, rng: np.random.Generator) -> np.ndarray:
    """Magnitude of the complex signal with Gaussian noise ``sigma`` in both channels."""
    real, imaginary = (rng.standard_normal(signal.shape, dtype=np.float32) for _ in range(2))
    return np.hypot(signal + np.float32(sigma) * real, np.float32(sigma) * imaginary)


def coil_shading(shape, strength: float, rng: np.random.Generator) -> np.ndarray:
    """A smooth factor (z, y, x) about 1: the uneven sensitivity of the receiving coil."""
    return np.exp(np.float32(strength) * smooth_field(shape, 2, rng))


def ct_grain(shape, rng: np.random.Generator) -> np.ndarray:
    """Noise (z, y, x) of unit variance with the missing low frequencies of filtered projection."""
    white = rng.standard_normal(shape, dtype=np.float32)
    grain = ndimage.gaussian_filter(white, (0.5, 0.55, 0.55)) - 0.8 * ndimage.gaussian_filter(
        white, (0.5, 1.6, 1.6)
    )
    return grain / grain.std()


def to_int16(signal: np.ndarray, grid: Geometry, name: str) -> Volume:
    """Round to the scanner's integers."""
    info = np.iinfo(np.int16)
    array = np.rint(np.clip(signal, info.min, info.max)).astype(np.int16)
    return Volume(array[None], grid, source=name)


def vary_size(size, default, rng: np.random.Generator, step=(2, 8, 8)) -> tuple[int, int, int]:
    """``size`` (z, y, x) if given, else ``default`` give or take one ``step`` along each axis."""
    drift = rng.integers(-1, 2, 3) * np.array(step)
    return tuple(int(n) for n in (np.array(default) + drift if size is None else size))


def _canvas_grid(canvas: Canvas) -> Geometry:
    return scan_grid(canvas.shape, canvas.spacing, canvas.center)
