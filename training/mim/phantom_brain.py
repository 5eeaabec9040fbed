"""A brain with a glioma on T1, contrast-enhanced T1, T2 and FLAIR, without the skull.

Coordinates: mm from the center of the brain, x to the patient's left, y to the back, z to the head.
"""

from __future__ import annotations

from functools import partial

import numpy as np

from mim.phantom_head import EDEMA, ENHANCING, NECROSIS, Tumor, draw_head
from mim.phantom_labels import alteration
from mim.phantom_scan import (
    FLUID,
    Canvas,
    Phantom,
    PhantomTask,
    Tissue,
    acquire,
    acquire_label,
    coil_shading,
    inversion_recovery,
    scan_grid,
    spin_echo,
    to_int16,
    vary_size,
    with_rician_noise,
)
from mim.phantom_shapes import SIDES, curve, intersect, shell, subtract, union

_BRAIN = ("12738006", "Brain")
LABELS = [
    alteration(NECROSIS, "necrotic core", "6574001", "Necrosis", (216, 60, 60), _BRAIN),
    alteration(EDEMA, "peritumoral edema", "79654002", "Edema", (140, 224, 128), _BRAIN),
    alteration(ENHANCING, "enhancing tumor", "108369006", "Neoplasm", (250, 210, 60), _BRAIN),
]

_SIZE = (88, 112, 96)  # (z, y, x)
_FIELD_OF_VIEW, _HEAD_FIELD_OF_VIEW = (150.0, 190.0, 160.0), (174.0, 218.0, 184.0)  # mm

WHITE = Tissue(0.70, 830.0, 64.0)
GRAY = Tissue(0.82, 1500.0, 98.0, uptake=0.04)
DEEP_GRAY = Tissue(0.80, 1280.0, 80.0, uptake=0.04)
VEIN = Tissue(0.75, 1700.0, 45.0, uptake=4.0)


def make_brain(
    rng: np.random.Generator, size=None, sequence_grids: bool = False, skull: bool = False
) -> Phantom:
    """One patient; ``size`` is (z, y, x). ``skull`` keeps the skull and the scalp.

    ``sequence_grids`` changes nothing: the sequences of such studies come co-registered.
    """
    anatomy_rng, scanner_rng = rng.spawn(2)
    size = vary_size(size, _SIZE, scanner_rng)
    field_of_view = _HEAD_FIELD_OF_VIEW if skull else _FIELD_OF_VIEW
    zoom = scanner_rng.uniform(0.97, 1.03)
    spacing = [n * zoom / s for n, s in zip(field_of_view, size, strict=True)]
    canvas = Canvas(
        np.add(field_of_view, 12),
        [max(0.85 * s, 0.9) for s in spacing],
        anatomy_rng,
        {
            "T1": partial(spin_echo, tr=600.0, te=10.0),
            "T1c": partial(spin_echo, tr=600.0, te=10.0, gadolinium=True),
            "T2": partial(spin_echo, tr=5000.0, te=95.0),
            "FLAIR": partial(inversion_recovery, tr=9000.0, te=100.0, ti=2500.0),
        },
    )
    tumor = _draw_patient(canvas, skull)
    grid = scan_grid(size, spacing, canvas.center, scanner_rng.uniform(-3, 3, 3))
    signals = {name: acquire(image, canvas, grid) for name, image in canvas.images.items()}
    kept = np.ones(grid.shape, bool) if skull else signals["T2"] > 0.08
    images = {
        name: to_int16(_as_scanned(signal, kept, scanner_rng), grid, name)
        for name, signal in signals.items()
    }
    return Phantom(images, acquire_label(canvas, grid), {"lesions": [tumor]})


def _as_scanned(signal: np.ndarray, kept: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Coil shading, noise and arbitrary units; outside ``kept`` the skull was stripped to 0."""
    shaded = signal * coil_shading(signal.shape, 0.06, rng)
    return rng.uniform(900, 2200) * np.where(kept, with_rician_noise(shaded, 0.006, rng), 0)


def _draw_patient(canvas: Canvas, skull: bool) -> dict:
    """Paint the head; return what is true of the tumor."""
    tumor = Tumor(canvas)
    tumor.push(canvas)
    canvas.bend(2.2, 45.0)
    whole = _cerebrum(canvas)
    if skull:
        draw_head(canvas, whole)
    hemispheres, white = _draw_cerebrum(canvas, whole)
    _draw_cerebellum(canvas)
    _draw_deep_structures(canvas)
    return tumor.draw(canvas, hemispheres, white)


def _cerebrum(canvas: Canvas) -> np.ndarray:
    """Level of both hemispheres together, without their folds."""
    lobes = [
        canvas.ellipsoid((0, 8, 20), (67, 80, 46), margin=20),
        canvas.ellipsoid((0, 52, 10), (48, 37, 33), margin=20),
        canvas.ellipsoid((0, -46, 10), (49, 38, 32), margin=20),
    ]
    for side in SIDES:
        temporal = curve([(side * 40, -36, -22), (side * 47, -6, -18), (side * 44, 30, -6)])
        lobes.append(canvas.tube(temporal, 19.0))
        lobes.append(canvas.ellipsoid((side * 27, 4, -17), (14, 30, 13)))
    return union(*lobes, blend=12)


def _sulci(canvas: Canvas, hull: np.ndarray, scale: float, depth: float) -> np.ndarray:
    """Distance in mm to the nearest sulcus: sheets that hang ``depth`` mm down from ``hull``.

    They are where a random field of the direction from the hemisphere's core changes sign, so
    they stand upright on the surface.
    """
    radii = np.array([38, 82, 52], np.float32)
    middle = 26.0 * np.sign(canvas.x)
    where = np.flatnonzero((hull > -4) & (hull < depth + 14))
    offset = np.stack([canvas.x - middle, canvas.y, canvas.z - 14]).reshape(3, -1)[:, where]
    offset /= radii[:, None]
    radius = np.maximum(np.sqrt(np.square(offset).sum(0)), 0.1)
    points = offset / radius * radii[:, None] * (0.6 + 0.4 * radius)
    points[0] += middle.reshape(-1)[where]
    field = np.full(canvas.shape, 3.0, np.float32)
    field.reshape(-1)[where] = canvas.noise_at(points, scale)
    slope = np.sqrt(sum(np.square(g) for g in np.gradient(field, *canvas.spacing)))
    sheet = np.abs(field) / np.maximum(slope, 0.4 / scale)
    return np.hypot(sheet, np.maximum(hull - depth * (1 + 0.3 * canvas.noise(14.0)), 0))


def _draw_cerebrum(canvas: Canvas, whole: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Paint fluid, cortex and white matter; return the levels of hemispheres and white matter."""
    rng = canvas.rng
    cistern = canvas.ellipsoid((0, -4, -24), (15, 26, 15))
    hull = subtract(intersect(whole, np.abs(canvas.x) - 0.7, blend=4), cistern, blend=4)
    atrophy = rng.uniform(0.2, 0.9)
    sylvian = union(
        *(
            canvas.ellipsoid((side * 53, -8, 0), (20, 27, 2.2), turn=(-22, side * 12, 0))
            for side in SIDES
        )
    )
    sulci = np.minimum(_sulci(canvas, hull, 7.0, 15.0), _sulci(canvas, hull, 5.5, 7.0) + 0.3)
    cortex = np.minimum(hull - 1.0, sulci - atrophy)
    cortex = subtract(cortex, sylvian)
    cortex = np.maximum(cortex, canvas.ellipsoid((0, 4, 8), (31, 46, 22)))
    bag = union(whole, canvas.ellipsoid((0, 8, -14), (24, 40, 26)), blend=10) + 0.3
    canvas.paint(bag, FLUID)
    canvas.paint(cortex, GRAY.but(t1=GRAY.t1 * (1 + 0.03 * canvas.texture(4.0))))
    white = cortex - 3.2
    texture = 1 + 0.03 * canvas.texture(12.0) + 0.015 * canvas.texture(4.0)
    canvas.paint(white, WHITE.but(t1=WHITE.t1 * texture, t2=WHITE.t2 * texture), edge=2.4)
    threads = 1.6 * (0.1 - np.abs(canvas.noise(8.0)))
    canvas.paint(intersect(-cortex, bag, threads), FLUID.but(uptake=1.3))
    sinus = intersect(2.2 - np.abs(canvas.x), shell(whole, 4.0), canvas.z - 4.0)
    canvas.paint(intersect(sinus, bag), VEIN)
    return hull, white


def _draw_cerebellum(canvas: Canvas) -> None:
    lobes = [canvas.ellipsoid((s * 24, 50, -38), (29, 28, 22)) for s in SIDES]
    cerebellum = union(*lobes, canvas.ellipsoid((0, 50, -36), (14, 24, 20)), blend=8)
    stem = union(
        canvas.tube([(0, 9, -6), (0, 7, -16)], [13, 13]),
        canvas.ellipsoid((0, 4, -28), (18, 14, 15)),
        canvas.tube(curve([(0, 8, -32), (0, 15, -50), (0, 22, -72)], 8), np.linspace(11, 7, 8)),
        blend=6,
    )
    cisterns = union(cerebellum + 2.0, stem + 2.0, blend=8)
    canvas.paint(intersect(cisterns, -6.0 - canvas.z), FLUID)
    radius = np.hypot(canvas.y - 20, canvas.z + 30) + np.abs(canvas.x) / 5 + canvas.noise(9.0)
    folia = np.sin(radius * np.float32(2 * np.pi / 6.0)) + 0.5 * canvas.noise(6.0)
    canvas.paint(cerebellum, GRAY)
    canvas.paint(intersect(cerebellum - 2.0, 1.5 * folia), WHITE, edge=3.0)
    canvas.paint(intersect(cerebellum + 0.5, -1.1 - folia), FLUID, edge=2.5)
    for side in SIDES:
        medulla = canvas.ellipsoid((side * 19, 40, -36), (18, 15, 12)) + canvas.noise(6.0)
        canvas.paint(medulla, WHITE, edge=5.0)
    canvas.paint(stem, WHITE.but(t1=930.0, t2=72.0))
    canvas.paint(canvas.ellipsoid((0, 29, -34), (7, 5, 9)), FLUID)


def _draw_deep_structures(canvas: Canvas) -> None:
    rng = canvas.rng
    large = rng.uniform(0.7, 1.35)
    for x in (-12, -6, 0, 6, 12):
        callosum = [(x, -40, 8), (x, -33, 20), (x, 0, 31), (x, 30, 24), (x, 40, 12)]
        canvas.paint(canvas.tube(curve(callosum), 3.6), WHITE)
    for side in SIDES:
        for center, radii, turn in (
            ((13, -24, 12), (7, 11, 10), 12),
            ((25, -4, 5), (6.5, 17, 11), 14),
            ((12, 13, 7), (10, 15, 10), -25),
        ):
            nucleus = canvas.ellipsoid((side * center[0], *center[1:]), radii, (0, 0, side * turn))
            canvas.paint(nucleus + 0.5 * canvas.noise(8.0), DEEP_GRAY, edge=2.4)
        body = [(9, -32, 10), (10, -16, 20), (12, 6, 25), (18, 26, 21), (25, 38, 9)]
        body = curve([(side * x, y, z) for x, y, z in body])
        horn = curve([(side * 25, 38, 9), (side * 24, 52, 7), (side * 20, 64, 6)])
        low = curve([(side * 25, 38, 9), (side * 33, 22, -8), (side * 32, 0, -18)])
        ventricle = union(
            canvas.tube(body, large * np.interp(np.arange(24), [0, 8, 16, 23], [4.5, 5, 5.5, 8])),
            canvas.tube(horn, large * np.linspace(6.5, 1.5, 24)),
            canvas.tube(low, large * np.linspace(5.5, 1.2, 24)),
            blend=3,
        )
        ventricle = intersect(ventricle, side * canvas.x - 1.2)
        canvas.paint(ventricle, FLUID)
        plexus = canvas.tube([(side * 22, 30, 16), (side * 26, 38, 6)], 1.8)
        canvas.paint(plexus, GRAY.but(uptake=3.0))
    canvas.paint(canvas.ellipsoid((0, 3, 3), (2.0 * large, 14, 9)), FLUID)


TASK = PhantomTask(
    "brain",
    "a glioma's regions on T1, contrast-enhanced T1, T2 and FLAIR",
    "MR",
    ("T1", "T1c", "T2", "FLAIR"),
    LABELS,
    make_brain,
)
