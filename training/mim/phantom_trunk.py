"""The trunk that holds the abdominal organs, as CT shows it: wall, spine, ribs, lungs, couch.

Coordinates: mm from the middle of the trunk at the second lumbar vertebra, x to the patient's left,
y to the back, z to the head. Values are Hounsfield units.
"""

from __future__ import annotations

import numpy as np

from mim.phantom_scan import Canvas
from mim.phantom_shapes import SIDES, curve, intersect, ramp, shell, subtract, union

AIR, FAT, MUSCLE, CORTICAL_BONE = -1000.0, -100.0, 55.0, 520.0
_HALF_WIDTH, _HALF_DEPTH = 160.0, 108.0
_VERTEBRA = 35.0  # mm from one disk to the next


def draw_trunk(canvas: Canvas, contrast: float, spine_label: int) -> np.ndarray:
    """Paint everything around the organs; return the level of the cavity that they fill.

    ``contrast`` is 0 in a native scan, 1 with full enhancement in the portal venous phase.
    """
    rng = canvas.rng
    canvas.images["CT"] += np.float32(AIR)
    _draw_couch(canvas)
    body = _outline(canvas) + 1.0 * canvas.noise(50.0)
    subcutaneous = rng.uniform(9, 24) * (1 + 0.25 * canvas.noise(60.0)) * (1 - canvas.y / 300)
    wall = body - subcutaneous
    back = 60 + 0.6 * np.clip(np.abs(canvas.x) - 52, 0, None) - canvas.y
    inner = intersect(wall - ramp(canvas.y, [-90, -50], [8, 13]), back, blend=10)
    muscle = _muscle(canvas, contrast)
    canvas.paint(body, 15.0)
    canvas.paint(body - 2.0, FAT + 6 * canvas.texture(8.0))
    canvas.paint(wall, muscle)
    strands = np.clip(1 - np.abs(canvas.noise(8.0)) / 0.12, 0, 1)
    canvas.paint(inner, FAT - 4 + 45 * strands + 8 * canvas.texture(20.0))
    _draw_back_muscles(canvas, wall, muscle)
    lungs, below = _diaphragm(canvas, inner)
    _draw_chest(canvas, lungs, below, inner, muscle, contrast)
    _draw_spine(canvas, spine_label)
    _draw_ribs(canvas, wall)
    _draw_iliac_bones(canvas)
    return intersect(inner - 1.5, below - 2.5)


def _muscle(canvas: Canvas, contrast: float) -> np.ndarray:
    streaks = np.clip(canvas.noise((14.0, 6.0, 6.0)) - 1.0, 0, 1.5)
    return MUSCLE + 10 * contrast + 4 * canvas.texture(7.0) - 45 * streaks


def _outline(canvas: Canvas) -> np.ndarray:
    """A rounded box, broader at the chest and the hips than at the waist, flat at the back."""
    waist = 1 - 0.035 * np.cos((canvas.z + 30) / 60)
    back = np.where(canvas.y > 0, 0.94, 1.0)
    x = np.abs(canvas.x) / (_HALF_WIDTH * waist)
    y = np.abs(canvas.y) / (_HALF_DEPTH * back)
    return (1 - (x**2.35 + y**2.35) ** (1 / 2.35)) * 115


def _draw_couch(canvas: Canvas) -> None:
    surface = canvas.y - (0.94 * _HALF_DEPTH + 9 + 0.0008 * canvas.x**2)
    extent = 190 - np.abs(canvas.x)
    canvas.paint(intersect(shell(surface, 18), extent), -950.0)
    canvas.paint(intersect(shell(surface, 4.0), extent), -40.0)


def _draw_back_muscles(canvas: Canvas, wall: np.ndarray, muscle: np.ndarray) -> None:
    for side in SIDES:
        erector = canvas.tube([(side * 30, 68, -140), (side * 33, 70, 140)], [26, 24])
        canvas.paint(intersect(erector, wall - 3), muscle)
        for path, radii in (
            ([(48, 34, -140), (38, 30, -50), (26, 34, 25)], [25, 18, 6]),  # psoas
            ([(78, 44, -120), (56, 54, 0)], [12, 9]),  # quadratus lumborum
            ([(12, 16, -25), (15, 14, 30), (22, 4, 75)], [3, 6, 5]),  # crus of the diaphragm
        ):
            canvas.paint(canvas.tube([(side * x, y, z) for x, y, z in path], radii), muscle)


def _diaphragm(canvas: Canvas, inner: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Levels of both lungs and of what lies below the diaphragm."""
    rng = canvas.rng
    domes = []
    for x, top in ((-66, rng.uniform(88, 100)), (68, rng.uniform(78, 92))):
        away = np.square((canvas.x - x) / 82) + np.square((canvas.y + 18) / 88)
        domes.append(top - 62 * away)
    height = union(*domes, np.full_like(domes[0], 30.0), blend=25) + 2 * canvas.noise(40.0)
    below = (height - canvas.z) * 0.75
    middle = np.abs(canvas.x - 4) - ramp(canvas.y, [-100, -30, 20, 60], [20, 52, 34, 26])
    lungs = intersect(inner - 1.0, -below, middle, blend=6)
    return subtract(lungs, _heart(canvas) + 2.5, blend=4), below


def _heart(canvas: Canvas) -> np.ndarray:
    return canvas.ellipsoid((18, -42, 124), (58, 44, 36), turn=(0, 0, -25))


def _draw_chest(canvas: Canvas, lungs, below, inner, muscle, contrast: float) -> None:
    canvas.paint(lungs + 3.0, muscle)  # diaphragm and intercostal muscles
    mediastinum = intersect(inner - 1.5, -below - 1)
    canvas.paint(mediastinum, FAT + 30 * canvas.texture(12.0))
    heart = intersect(_heart(canvas), mediastinum)
    canvas.paint(heart, 45 + 80 * contrast + 8 * canvas.texture(14.0))
    canvas.paint(canvas.tube([(6, 8, 60), (4, 6, 130)], 8), 45.0 + 15 * contrast)  # esophagus
    branches = np.clip(1 - np.abs(canvas.noise(9.0)) / 0.1, 0, 1) * (canvas.texture(14.0) > 0.2)
    canvas.paint(lungs, -850 + 35 * canvas.texture(20.0) + 420 * branches)


def _draw_spine(canvas: Canvas, label: int) -> None:
    """Vertebrae with their processes, and disks; the canal does not belong to the label."""
    middle = 33 - 7 * np.cos((canvas.z + 40) / 75)  # lumbar lordosis
    y = canvas.y - middle
    phase = (canvas.z / _VERTEBRA + canvas.rng.uniform(0, 1)) % 1.0 - 0.5  # 0: middle of the body
    along = phase * _VERTEBRA
    waist = 1 - 0.09 * np.cos(phase * 2 * np.pi)
    column = (1 - np.hypot(canvas.x / (24 * waist), y / (17.5 * waist))) * 20
    body = intersect(column, 13.3 - np.abs(along))
    canal = 9.0 - np.hypot(canvas.x, 1.15 * (y - 26))
    arch = intersect(canal + 6.0, 9 - np.abs(along + 2))
    aside = np.abs(canvas.x)
    pedicles = intersect(6.0 - np.abs(aside - 13), 9 - np.abs(y - 18), 7 - np.abs(along - 2))
    spinous = intersect(4.2 - aside, 15 - np.abs(y - 46), 9 - np.abs(along + 6))
    transverse = intersect(5.0 - np.hypot(along - 1, y - 27 - aside / 10), 36 - aside)
    facets = intersect(5.5 - np.hypot(aside - 17, y - 31), 15 - np.abs(along + 10))
    trabeculae = canvas.texture(4.0)
    canvas.paint(column - 1.0, 85 + 6 * trabeculae, label)  # disks
    bones = union(body, arch, pedicles, spinous, transverse, facets, blend=3)
    bones = subtract(bones + 0.5 * canvas.noise(6.0), canal)
    canvas.paint(bones, CORTICAL_BONE - 120, label)
    density = canvas.rng.uniform(110, 210)
    canvas.paint(bones - 2.6, density + 40 * trabeculae)
    canvas.paint(intersect(canal - 0.5, -column), 25.0, 0)


def _draw_ribs(canvas: Canvas, wall: np.ndarray) -> None:
    """Ribs run in the wall, forwards and down; the lowest ones end before the front."""
    lift = canvas.z + 0.55 * (60 - canvas.y) + 0.5 * np.abs(canvas.x) + 3 * canvas.noise(60.0)
    spacing = 29.0
    between = np.abs((lift / spacing) % 1.0 - 0.5) * spacing * 0.8
    within = np.abs(wall - 6.0)
    margin = canvas.z + 42 - 0.95 * np.clip(15 - canvas.y, 0, None)
    rib = intersect(4.6 - np.hypot(between * 0.75, within), margin, np.abs(canvas.x) - 24)
    canvas.paint(rib, CORTICAL_BONE - 120)
    canvas.paint(rib - 2.0, 170.0)


def _draw_iliac_bones(canvas: Canvas) -> None:
    top = -canvas.rng.uniform(92, 106)
    for side in SIDES:
        crest = [(62, 62, top - 22), (100, 36, top), (118, -16, top - 30)]
        wing = [(60, 62, top - 45), (94, 36, top - 28), (112, -20, top - 50)]
        crest, wing = (curve([(side * x, y, z) for x, y, z in path]) for path in (crest, wing))
        bone = union(canvas.tube(crest, 7.5), canvas.tube(wing, 9.0), blend=16)
        canvas.paint(bone, CORTICAL_BONE)
        canvas.paint(bone - 2.6, 190 + 50 * canvas.texture(4.0))
