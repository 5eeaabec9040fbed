"""The male pelvis about a prostate with its zones and lesions, as T2w, ADC and DWI show it.

Coordinates: mm from the center of the gland, x to the patient's left, y to the back, z to the head.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

import numpy as np
from scipy import ndimage
from scipy.spatial import cKDTree

from mim.phantom_scan import (
    AIR,
    CORTICAL_BONE,
    FAT,
    FLOWING_BLOOD,
    FLUID,
    MARROW,
    MUSCLE,
    Canvas,
    Phantom,
    PhantomTask,
    Tissue,
    acquire,
    acquire_label,
    coil_shading,
    diffusion,
    sample,
    scan_grid,
    spin_echo,
    to_int16,
    vary_size,
    with_rician_noise,
)
from mim.phantom_shapes import curve, intersect, mirrored, shell, subtract, union
from MIMSegment.Logic.labels import Code, Label

_ANATOMY = Code("SCT", "123037004", "Anatomical Structure")
_ALTERED = Code("SCT", "49755003", "Morphologically Altered Structure")
PERIPHERAL, TRANSITION, LESION = 1, 2, 3
LABELS = [
    Label(
        PERIPHERAL,
        "peripheral zone",
        _ANATOMY,
        Code("SCT", "279706003", "Peripheral zone of the prostate"),
        color=(230, 158, 140),
    ),
    Label(
        TRANSITION,
        "transition zone",
        _ANATOMY,
        Code("SCT", "399384005", "Transition zone of the prostate"),
        color=(102, 172, 198),
    ),
    Label(
        LESION,
        "lesion",
        _ALTERED,
        Code("SCT", "52988006", "Lesion"),
        region=Code("SCT", "41216001", "Prostate"),
        color=(240, 70, 60),
    ),
]

_BOX = (88.0, 216.0, 216.0)  # (z, y, x) mm of patient; the scan's field of view is smaller
_FIELD_OF_VIEW = (66.0, 172.0, 172.0)
_SIZE = (22, 144, 144)
_EPI_SPACING, _EPI_FIELD_OF_VIEW = (3.0, 2.0, 2.0), (66.0, 208.0, 164.0)
_LOW_B, _MIDDLE_B, _HIGH_B = 50.0, 800.0, 1400.0  # s/mm²
_EPI_NOISE, _EPI_THRESHOLD = 0.009, 0.07

PROSTATE = Tissue(0.90, 1600.0, 100.0, 1350.0)
RECTAL_WALL = Tissue(0.80, 1300.0, 58.0, 1250.0)
DARK_STROMA = MUSCLE.but(t2=48.0, adc=1050.0)


@dataclass(frozen=True)
class _Gland:
    """Half-widths in mm of the gland, and how much of it the transition zone takes (0..1)."""

    x: float
    y: float
    z: float
    hyperplasia: float


def make_prostate(rng: np.random.Generator, size=None, sequence_grids: bool = False) -> Phantom:
    """One patient; ``size`` is the T2w grid (z, y, x)."""
    anatomy_rng, scanner_rng = rng.spawn(2)
    size = vary_size(size, _SIZE, scanner_rng)
    zoom = scanner_rng.uniform(0.96, 1.04)
    spacing = [n * zoom / s for n, s in zip(_FIELD_OF_VIEW, size, strict=True)]
    canvas = Canvas(
        _BOX,
        (max(1.5, spacing[0] / 2), max(spacing[1], 0.7), max(spacing[2], 0.7)),
        anatomy_rng,
        {
            "T2w": partial(spin_echo, tr=4500.0, te=100.0),
            "low_b": partial(diffusion, te=70.0, b=_LOW_B),
            "middle_b": partial(diffusion, te=70.0, b=_MIDDLE_B),
            "high_b": partial(diffusion, te=70.0, b=_HIGH_B),
        },
    )
    gland, lesions = _draw_pelvis(canvas)

    turn = (scanner_rng.uniform(0, 14), *scanner_rng.uniform(-2, 2, 2))
    grid = scan_grid(size, spacing, canvas.center, turn)
    label = acquire_label(canvas, grid)
    t2w = _scan_t2w(canvas, grid, scanner_rng)
    epi = _scan_epi(canvas, turn, scanner_rng)
    if not sequence_grids:
        epi = {name: (sample(image, source, grid), grid) for name, (image, source) in epi.items()}
    images = {"T2w": to_int16(t2w, grid, "T2w")}
    images |= {name: to_int16(image, own, name) for name, (image, own) in epi.items()}
    return Phantom(images, label, {"lesions": lesions, "gland_half_widths_mm": gland})
