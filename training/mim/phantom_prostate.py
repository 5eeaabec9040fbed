"""A prostate with its zones and lesions in a male pelvis, as T2w, ADC and DWI show it.

Coordinates: mm from the center of the gland, x to the patient's left, y to the back, z to the head.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

import numpy as np
from scipy.spatial import cKDTree

from mim.phantom_labels import alteration, anatomy
from mim.phantom_pelvis import Gland, draw_pelvis
from mim.phantom_scan import (
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
from mim.phantom_shapes import SIDES, intersect, subtract, union

PERIPHERAL, TRANSITION, LESION = 1, 2, 3
_PROSTATE = ("41216001", "Prostate")
LABELS = [
    anatomy(1, "peripheral zone", "279706003", "Peripheral zone of the prostate", (230, 158, 140)),
    anatomy(2, "transition zone", "399384005", "Transition zone of the prostate", (102, 172, 198)),
    alteration(3, "lesion", "52988006", "Lesion", (240, 70, 60), _PROSTATE),
]

_BOX = (102.0, 208.0, 196.0)  # (z, y, x) mm of patient; the fields of view are smaller
_SIZE, _FIELD_OF_VIEW = (22, 144, 144), (66.0, 172.0, 172.0)
_EPI_SPACING, _EPI_FIELD_OF_VIEW = (3.0, 2.0, 2.0), (66.0, 192.0, 164.0)
_LOW_B, _MIDDLE_B, _HIGH_B = 50.0, 800.0, 1400.0  # s/mm²
_EPI_NOISE, _EPI_THRESHOLD = 0.0065, 0.065  # of the proton density of water


@dataclass(frozen=True)
class Look:
    """A kind of lesion: ranges of T2 (ms) and ADC (1e-6 mm²/s), contrast of its texture, width of
    its margin (mm)."""

    name: str
    t2: tuple[float, float]
    adc: tuple[float, float]
    texture: float
    edge: float


# After PI-RADS 2.1: cancer is homogeneous, moderately dark and ill-defined; what is benign is less
# dark, heterogeneous and better defined. T2 overlaps, so that intensity alone does not tell.
_MALIGNANT = Look("malignant", (66, 80), (620, 880), 0.05, 3.0)
_BENIGN = Look("benign", (76, 100), (850, 1250), 0.16, 1.0)

GLANDULAR = Tissue(0.90, 1600.0, 100.0, 1350.0)
STROMA = MUSCLE.but(pd=0.8, t2=52.0, adc=1100.0)


def make_prostate(
    rng: np.random.Generator, size=None, sequence_grids: bool = False, benign: float = 0.0
) -> Phantom:
    """One patient; ``size`` is the T2w grid (z, y, x).

    ``benign`` is the probability of a lesion to look benign; each lesion in ``info`` has its class.
    """
    anatomy_rng, scanner_rng = rng.spawn(2)
    size = vary_size(size, _SIZE, scanner_rng)
    zoom = scanner_rng.uniform(0.96, 1.04)
    spacing = [n * zoom / s for n, s in zip(_FIELD_OF_VIEW, size, strict=True)]
    canvas = Canvas(
        _BOX,
        (max(1.5, spacing[0] / 2), *(max(s, 0.7) for s in spacing[1:])),
        anatomy_rng,
        {
            "T2w": partial(spin_echo, tr=4500.0, te=100.0),
            "low": partial(diffusion, te=70.0, b=_LOW_B),
            "middle": partial(diffusion, te=70.0, b=_MIDDLE_B),
            "high": partial(diffusion, te=70.0, b=_HIGH_B),
        },
    )
    lesions = _draw_patient(canvas, benign)
    turn = (scanner_rng.uniform(0, 10), *scanner_rng.uniform(-2, 2, 2))
    grid = scan_grid(size, spacing, canvas.center, turn)
    images = {"T2w": (_scan_t2w(canvas, grid, scanner_rng), grid)}
    images |= _scan_diffusion(canvas, turn, grid, sequence_grids, scanner_rng)
    return Phantom(
        {name: to_int16(array, own, name) for name, (array, own) in images.items()},
        acquire_label(canvas, grid),
        {"lesions": lesions},
    )


def _scan_t2w(canvas: Canvas, grid, rng) -> np.ndarray:
    signal = acquire(canvas.images["T2w"], canvas, grid) * coil_shading(grid.shape, 0.12, rng)
    return rng.uniform(500, 1100) * with_rician_noise(signal, rng.uniform(0.008, 0.017), rng)


def _scan_diffusion(canvas: Canvas, turn, t2w_grid, own_grid: bool, rng) -> dict:
    """ADC (1e-6 mm²/s, 0 where there is no signal) and the high b value, with their grids."""
    size = [round(n / s) for n, s in zip(_EPI_FIELD_OF_VIEW, _EPI_SPACING, strict=True)]
    grid = scan_grid(size, _EPI_SPACING, canvas.center, turn)
    shading = coil_shading(grid.shape, 0.12, rng)
    low, middle, high = (
        with_rician_noise(shading * acquire(canvas.images[b], canvas, grid), _EPI_NOISE, rng)
        for b in ("low", "middle", "high")
    )
    adc = np.log(low / np.maximum(middle, 1e-4)) / (_MIDDLE_B - _LOW_B) * 1e6
    adc = np.where(low > _EPI_THRESHOLD, np.clip(adc, 0, 3500), 0)
    images = {"ADC": adc, "DWI": rng.uniform(900, 1800) * high}
    if own_grid:
        return {name: (image, grid) for name, image in images.items()}
    return {name: (sample(image, grid, t2w_grid), t2w_grid) for name, image in images.items()}


def _draw_patient(canvas: Canvas, benign: float) -> list[dict]:
    """Paint the pelvis and the gland; return the lesions."""
    rng = canvas.rng
    hyperplasia = rng.uniform(0.0, 1.0)
    width = rng.uniform(23, 26) + 7 * hyperplasia
    gland = Gland(width, width * rng.uniform(0.66, 0.76), width * rng.uniform(0.82, 0.95))
    canvas.bend(1.8, 40.0)
    canvas.bend(0.8, 18.0)
    rectum = draw_pelvis(canvas, gland)

    canvas.bend(0.7, 14.0)
    body = canvas.ellipsoid((0, 0, 0), (gland.x, gland.y, gland.z), turn=(-14, 0, 0))
    body = subtract(body, rectum + 1.5, blend=7)
    zone = _transition_zone(canvas, gland, body, hyperplasia)
    canvas.paint(body + 1.2, STROMA)  # the capsule
    canvas.paint(body, _peripheral_tissue(canvas), PERIPHERAL)
    canvas.paint(zone, STROMA, TRANSITION)  # the surgical capsule
    canvas.paint(zone - 1.0, _nodular_tissue(canvas, gland, zone), edge=2.5)
    front = canvas.ellipsoid((0, -0.85 * gland.y, 0), (0.5 * gland.x, 0.3 * gland.y, 0.8 * gland.z))
    canvas.paint(intersect(front, body - 0.5), STROMA, TRANSITION)
    urethra = canvas.tube([(0, -0.1 * gland.y, gland.z), (0, 0, -gland.z)], 2.2)
    canvas.paint(intersect(urethra, body), GLANDULAR.but(t2=120.0))
    return _draw_lesions(canvas, gland, body, zone, benign)


def _transition_zone(canvas: Canvas, gland: Gland, body, hyperplasia: float) -> np.ndarray:
    lobes = [
        canvas.ellipsoid(
            (side * 0.34 * gland.x, -0.34 * gland.y, 0.22 * gland.z),
            (
                (0.43 + 0.13 * hyperplasia) * gland.x,
                (0.62 + 0.2 * hyperplasia) * gland.y * canvas.rng.uniform(0.93, 1.07),
                (0.68 + 0.14 * hyperplasia) * gland.z,
            ),
        )
        for side in SIDES
    ]
    return intersect(union(*lobes, blend=4) + 1.2 * canvas.noise(9.0), body - 1.2)


def _peripheral_tissue(canvas: Canvas) -> Tissue:
    """Bright, with fine septa and diffuse darker patches that are no lesions."""
    septa = np.clip(1 - np.abs(canvas.noise((5.0, 3.0, 3.0))) / 0.25, 0, 1)
    patches = np.clip(canvas.noise((12.0, 9.0, 9.0)) - 0.5, 0, 1.5)
    dull = 1 - 0.22 * septa - 0.28 * patches + 0.05 * canvas.texture(3.0)
    return GLANDULAR.but(t2=165.0 * dull, adc=1750.0 * (0.35 + 0.65 * dull))


def _nodular_tissue(canvas: Canvas, gland: Gland, zone: np.ndarray) -> Tissue:
    """Hyperplastic nodules, glandular (bright) to stromal (dark), each within a dark rim."""
    rng, inside = canvas.rng, np.flatnonzero(zone > -2.0)
    places = np.stack([a.reshape(-1)[inside] for a in (canvas.x, canvas.y, canvas.z)], 1)
    reach = np.array((gland.x, gland.y, gland.z))
    seeds = rng.uniform(-reach, reach, (int(8 * reach.prod() / 650), 3))  # one in 650 mm³
    wobble = np.stack([canvas.noise(6.0).reshape(-1)[inside] for _ in range(3)], 1)
    distance, nearest = cKDTree(seeds).query(places + 1.4 * wobble, k=2)
    rim = np.clip(1 - (distance[:, 1] - distance[:, 0]) / 2.2, 0, 1)
    nodule_t2 = rng.choice([72.0, 90.0, 108.0, 150.0], len(seeds), p=[0.25, 0.35, 0.25, 0.15])
    t2 = np.full(zone.shape, STROMA.t2, np.float32)
    fine = canvas.texture(3.0).reshape(-1)[inside]
    t2.reshape(-1)[inside] = (nodule_t2[nearest[:, 0]] * (1 + 0.08 * fine)) * (1 - 0.3 * rim)
    return GLANDULAR.but(t2=t2, adc=900.0 + 4.6 * t2)


def _draw_lesions(
    canvas: Canvas, gland: Gland, body: np.ndarray, zone: np.ndarray, benign: float
) -> list[dict]:
    """Zero to three lesions, three of four in the peripheral zone, none touching another."""
    rng, lesions = canvas.rng, []
    free = body > 3.5
    for _ in range(rng.choice(4, p=[0.15, 0.4, 0.3, 0.15])):
        peripheral = bool(rng.random() < 0.75)
        suitable = free & ((zone < -2.0) & (canvas.y > -2.0) if peripheral else zone > 4.0)
        places = rng.uniform(-1, 1, (4000, 3)) * (gland.x, gland.y, gland.z)
        voxels = canvas.nearest(places)
        fitting = np.flatnonzero(suitable.reshape(-1)[voxels])
        if not len(fitting):
            continue
        first = fitting[0]
        center = [float(a.reshape(-1)[voxels[first]]) for a in (canvas.x, canvas.y, canvas.z)]
        radii = (rng.uniform(6, 10.5), rng.uniform(4.2, 5.8), rng.uniform(5, 9))
        # Without benign ones no number is drawn: a seed's patient stays who it is.
        look = _BENIGN if benign and rng.random() < benign else _MALIGNANT
        adc = float(rng.uniform(*look.adc))
        level = _draw_lesion(canvas, center, radii, adc, look, body)
        free &= canvas.ellipsoid(center, [r + 13 for r in radii], margin=0) < 0
        lesions.append(
            {
                "class": look.name,
                "zone": "peripheral" if peripheral else "transition",
                "adc": adc,
                "volume_ml": float((level > 0).sum() * np.prod(canvas.spacing) / 1000),
                "center_lps": [float(v) for v in canvas.center + places[first]],
            }
        )
    return lesions


def _draw_lesion(canvas: Canvas, center, radii, adc: float, look: Look, body) -> np.ndarray:
    """Paint a lens that lies along the capsule, dark on T2w and ADC; return its level."""
    angle = np.degrees(np.arctan2(center[0], -center[1]))
    level = canvas.ellipsoid(center, radii, turn=(0, 0, angle)) + 0.5 * canvas.noise(6.0)
    level = intersect(level, body - 0.8)
    t2 = canvas.rng.uniform(*look.t2) * (1 + look.texture * canvas.texture(3.0))
    tissue = GLANDULAR.but(t2=t2, adc=adc * (1 + 0.05 * canvas.texture(4.0)))
    canvas.paint(level, tissue, LESION, edge=look.edge)
    return level


TASK = PhantomTask(
    "prostate",
    "prostate zones and lesions on T2w, ADC and DWI",
    "MR",
    ("T2w", "ADC", "DWI"),
    LABELS,
    make_prostate,
)
