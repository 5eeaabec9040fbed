"""The male pelvis around the prostate: bones, muscles, bladder, rectum, vessels and fat.

Coordinates: mm from the center of the gland, x to the patient's left, y to the back, z to the head.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from mim.phantom_scan import (
    AIR,
    CORTICAL_BONE,
    FAT,
    FLOWING_BLOOD,
    FLUID,
    MARROW,
    MUSCLE,
    Canvas,
    Tissue,
)
from mim.phantom_shapes import SIDES, curve, intersect, shell, subtract, union

WALL = Tissue(0.80, 1300.0, 55.0, 1250.0)  # smooth muscle of bladder and rectum
SEMINAL_FLUID = Tissue(1.0, 2200.0, 190.0, 1900.0)


@dataclass(frozen=True)
class Gland:
    """Half-widths of the prostate in mm."""

    x: float
    y: float
    z: float


def draw_pelvis(canvas: Canvas, gland: Gland) -> np.ndarray:
    """Paint everything but the prostate; return the rectum's level, which indents the gland."""
    rng = canvas.rng
    muscle = _streaky_muscle(canvas)
    half_width = max(rng.uniform(44, 49), gland.x + 12)
    cavity = canvas.ellipsoid((0, 10, 4), (half_width, 66, 130)) + 1.5 * canvas.noise(20.0)
    _draw_body(canvas)
    _draw_outer_muscles(canvas, muscle)
    _draw_hips(canvas, cavity)
    _draw_pubis(canvas)
    _draw_obturators(canvas, cavity, muscle)
    _draw_sacrum(canvas)
    _draw_vessels(canvas)
    _draw_bladder(canvas, gland)
    _draw_seminal_vesicles(canvas, gland)
    rectum = _rectum(canvas, gland)
    _draw_pelvic_floor(canvas, gland, rectum.outer, muscle)
    _draw_rectum(canvas, rectum)
    return rectum.outer


def _streaky_muscle(canvas: Canvas) -> Tissue:
    """Muscle with the fatty streaks and septa between its bundles."""
    streak = np.clip(canvas.noise((16.0, 3.0, 8.0)) - 1.0, 0, 1.0)
    septum = np.clip(1 - np.abs(canvas.noise(15.0)) / 0.1, 0, 1)
    return MUSCLE.but(t2=MUSCLE.t2 * (1 + 0.7 * streak + 1.1 * septum))


def _draw_body(canvas: Canvas) -> None:
    front = -80 + canvas.rng.uniform(-4, 3)
    skin = canvas.y - front - 0.0011 * canvas.x**2
    strands = np.clip(1 - np.abs(canvas.noise((9.0, 6.0, 6.0))) / 0.16, 0, 1)
    vessels = np.clip(canvas.noise((7.0, 4.0, 4.0)) - 1.5, 0, 1)
    canvas.paint(skin, MUSCLE.but(t2=45.0))
    fat = FAT.t2 * (1 - 0.33 * strands - 0.45 * vessels + 0.06 * canvas.noise(30.0))
    canvas.paint(skin - 2.0, FAT.but(t2=fat))


def _draw_outer_muscles(canvas: Canvas, muscle: Tissue) -> None:
    """Glutei behind, adductors and iliopsoas at the sides, the rectus abdominis in front."""
    for side in SIDES:
        parts = [
            canvas.ellipsoid((side * 66, 94, -6), (62, 36, 80), turn=(0, 0, side * -26)),
            canvas.ellipsoid((side * 64, -34, -46), (36, 30, 36), turn=(0, 0, side * 20)),
            canvas.ellipsoid((side * 86, 22, -44), (34, 36, 40)),
            canvas.ellipsoid((side * 52, -54, -20), (25, 9, 28), turn=(0, 0, side * 24)),
            canvas.ellipsoid((side * 84, -48, 24), (24, 17, 60)),
            canvas.ellipsoid((side * 13, -64, 36), (14, 5, 36), turn=(0, 0, side * 5)),
        ]
        for part in parts:
            canvas.paint(part + 1.5 * canvas.noise(14.0), muscle)


def _bone(canvas: Canvas, level: np.ndarray, cortex: float = 1.6) -> None:
    level = level + 0.8 * canvas.noise(10.0)
    texture = 1 + 0.1 * canvas.texture(6.0) + 0.06 * canvas.texture(3.0)
    canvas.paint(level, CORTICAL_BONE)
    canvas.paint(level - cortex, MARROW.but(t2=MARROW.t2 * texture))


def _draw_hips(canvas: Canvas, cavity: np.ndarray) -> None:
    rng = canvas.rng
    head, out, rise = rng.uniform(22, 25), rng.uniform(82, 87), rng.uniform(10, 20)
    for side in SIDES:
        center = (side * out, -6, rise)
        acetabulum = canvas.ellipsoid((side * 76, -2, rise + 6), (30, 38, 34))
        ischium = canvas.tube(
            curve([(side * 72, 28, 10), (side * 65, 33, -16), (side * 52, 30, -50)]),
            np.linspace(16, 11, 24),
        )
        bone = subtract(union(acetabulum, ischium, blend=10), cavity + 9, blend=3)
        ball = canvas.ellipsoid(center, (head, head, head))
        bone = subtract(bone, ball + 3.5, canvas.tube([center, (side * 140, -6, rise)], head + 2))
        _bone(canvas, bone)
        neck = canvas.tube([center, (side * 120, 6, rise - 22)], [15, 17])
        canvas.paint(ball + 1.6, FLUID.but(pd=0.22))  # the joint space
        _bone(canvas, union(ball, neck, blend=5))


def _draw_pubis(canvas: Canvas) -> None:
    for side in SIDES:
        body = canvas.ellipsoid((side * 14, -51, -14), (11, 11, 18), turn=(25, 0, side * 15))
        upper = curve([(side * 15, -52, -6), (side * 40, -44, 4), (side * 68, -30, 16)])
        lower = curve([(side * 13, -48, -26), (side * 26, -26, -40), (side * 44, 2, -56)])
        _bone(canvas, union(body, canvas.tube(upper, 8), canvas.tube(lower, 7), blend=6))
    disk = canvas.ellipsoid((0, -51, -14), (2.8, 11, 17), turn=(25, 0, 0))
    canvas.paint(disk, MUSCLE.but(t2=42.0))


def _draw_obturators(canvas: Canvas, cavity: np.ndarray, muscle: Tissue) -> None:
    """Obturator internus: a plate that lines the pelvic wall, thickest behind."""
    plate = shell(-(cavity + 1.0), 10.5) + 0.9 * canvas.noise(12.0) + canvas.y / 14
    extent = union(*(canvas.ellipsoid((side * 54, 4, -8), (26, 38, 46)) for side in SIDES))
    canvas.paint(intersect(plate, extent, blend=5), muscle)


def _draw_sacrum(canvas: Canvas) -> None:
    sacrum = canvas.tube(curve([(0, 92, 50), (0, 86, 22), (0, 72, -2)]), np.linspace(15, 4, 24))
    _bone(canvas, sacrum, cortex=1.2)
    for side in SIDES:
        ligament = canvas.tube([(side * 6, 78, 4), (side * 58, 38, -8)], [2.5, 2.0])
        canvas.paint(ligament, MUSCLE)


def _draw_vessels(canvas: Canvas) -> None:
    for side in SIDES:
        for x, y, radius, blood in ((67, -60, 4.6, 0.1), (56, -56, 5.4, 0.4)):
            path = [(side * (x + 6), y - 8, -48), (side * x, y, 0), (side * (x - 8), y + 14, 48)]
            tube = canvas.tube(curve(path), radius)
            canvas.paint(tube + 1.0, WALL)
            canvas.paint(tube, FLOWING_BLOOD.but(pd=blood))
        path = [(side * 24, -72, -48), (side * 30, -70, 0), (side * 46, -64, 48)]
        cord = canvas.tube(curve(path), 6) + canvas.noise(6.0)
        canvas.paint(cord, FAT.but(t2=90 + 28 * canvas.texture(3.0)))


def _draw_bladder(canvas: Canvas, gland: Gland) -> None:
    rng = canvas.rng
    filling = rng.uniform(0.75, 1.2)
    radii = (34 * filling, 25 * filling, 21 * filling)
    center = (rng.uniform(-3, 3), -14, 0.8 * gland.z + radii[2])
    outer = canvas.ellipsoid(center, radii, turn=(-12, 0, 0)) + 1.6 * canvas.noise(18.0)
    canvas.paint(outer, WALL)
    canvas.paint(outer - rng.uniform(2.8, 5.0) + 0.5 * canvas.noise(8.0), FLUID)


def _draw_seminal_vesicles(canvas: Canvas, gland: Gland) -> None:
    tubules = np.abs(canvas.noise((4.0, 3.2, 3.2)))
    for side in SIDES:
        root = (side * 4, 0.6 * gland.y, 0.75 * gland.z)
        middle = (side * 17, 0.6 * gland.y + 4, 0.75 * gland.z + 9)
        tip = (side * 31, 0.6 * gland.y + 9, 0.75 * gland.z + 12)
        vesicle = canvas.tube(curve([root, middle, tip]), np.linspace(3.5, 7.0, 24))
        vesicle = vesicle + 1.4 * canvas.noise(7.0)
        canvas.paint(vesicle, WALL.but(t2=60.0))
        canvas.paint(intersect(vesicle - 0.8, 3.0 * (tubules - 0.3)), SEMINAL_FLUID)


@dataclass(frozen=True)
class Rectum:
    """Level of the outer wall, and what the lumen holds."""

    outer: np.ndarray
    content: str


def _rectum(canvas: Canvas, gland: Gland) -> Rectum:
    rng = canvas.rng
    content = str(rng.choice(["gas", "stool", "collapsed"], p=[0.3, 0.35, 0.35]))
    wide = {"gas": rng.uniform(13, 17), "stool": rng.uniform(13, 17), "collapsed": 11.0}[content]
    back = 0.92 * gland.y + wide + 1.0
    path = curve([
        (0, back - 8, -50),
        (0, back - 4, -26),
        (0, back, -8),
        (rng.uniform(-4, 4), back + 2, 14),
        (rng.uniform(-10, 10), back + 14, 50),
    ])  # fmt: skip
    tube = canvas.tube(path, np.interp(path[:, 2], [-40, -22, -6, 44], [11, 11, wide, wide]))
    return Rectum(tube + 1.5 * canvas.noise(13.0), content)


def _draw_rectum(canvas: Canvas, rectum: Rectum) -> None:
    canvas.paint(rectum.outer, WALL)
    folds = rectum.outer + 0.8 * canvas.noise(5.0)
    canvas.paint(folds - 3.2, Tissue(0.9, 1300.0, 92.0, 1400.0))  # mucosa
    if rectum.content == "gas":
        canvas.paint(rectum.outer - 4.6, AIR)
    elif rectum.content == "stool":
        canvas.paint(rectum.outer - 4.6, Tissue(0.6, 900.0, 62 + 24 * canvas.texture(4.0), 1000.0))
    else:
        canvas.paint(folds - 8.0, AIR)


def _draw_pelvic_floor(canvas: Canvas, gland: Gland, rectum: np.ndarray, muscle: Tissue) -> None:
    """Levator ani, the sling about gland and anal canal, with the vessels that run within."""
    prostate = canvas.ellipsoid((0, 0, 0), (gland.x, gland.y, gland.z), turn=(-14, 0, 0))
    urethra = canvas.tube([(0, -4, 0), (0, -6, -60)], 7.0)
    within = union(prostate + 4.5, urethra, rectum + 1.5, blend=22)
    canvas.paint(intersect(shell(-within, 3.4) + 0.6 * canvas.noise(8.0), 5.0 - canvas.z), muscle)
    canvas.paint(urethra, WALL)
    canvas.paint(urethra - 4.0, Tissue(0.9, 1400.0, 120.0, 1500.0))
    plexus = np.clip(canvas.texture(4.0) + 0.3, 0, 1.5)
    veins = Tissue(0.9, 1500.0, 45 + 120 * plexus, 1800.0)
    front = canvas.ellipsoid((0, -gland.y - 4, -6), (gland.x * 0.8, 7, gland.z * 0.9))
    canvas.paint(front, veins, edge=5.0)
    for side in SIDES:
        path = [(side * 0.85 * gland.x, 0.85 * gland.y, z) for z in (-22, 22)]
        canvas.paint(canvas.tube(path, 4.5) + 1.5 * canvas.noise(5.0), veins, edge=3.0)
