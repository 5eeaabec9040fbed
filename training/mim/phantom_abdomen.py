"""An abdominal CT: the organs within the trunk, native or in the portal venous phase.

Coordinates: mm from the middle of the trunk at the second lumbar vertebra, x to the patient's left,
y to the back, z to the head.
"""

from __future__ import annotations

import numpy as np

from mim.phantom_labels import anatomy
from mim.phantom_scan import (
    Canvas,
    Phantom,
    PhantomTask,
    acquire,
    acquire_label,
    ct_grain,
    scan_grid,
    to_int16,
    vary_size,
)
from mim.phantom_shapes import curve, intersect, ramp, shell, subtract, union
from mim.phantom_trunk import draw_trunk

SPLEEN, RIGHT_KIDNEY, LEFT_KIDNEY, GALLBLADDER, LIVER = 1, 2, 3, 4, 5
STOMACH, PANCREAS, AORTA, VENA_CAVA, SPINE = 6, 7, 8, 9, 10
LABELS = [
    anatomy(SPLEEN, "spleen", "78961009", "Spleen", (157, 108, 162)),
    anatomy(RIGHT_KIDNEY, "right kidney", "64033007", "Kidney", (185, 102, 83), "right"),
    anatomy(LEFT_KIDNEY, "left kidney", "64033007", "Kidney", (212, 136, 96), "left"),
    anatomy(GALLBLADDER, "gallbladder", "28231008", "Gallbladder", (139, 150, 98)),
    anatomy(LIVER, "liver", "10200004", "Liver", (221, 130, 101)),
    anatomy(STOMACH, "stomach", "69695003", "Stomach", (216, 132, 205)),
    anatomy(PANCREAS, "pancreas", "15776009", "Pancreas", (249, 180, 111)),
    anatomy(AORTA, "aorta", "15825003", "Aorta", (224, 60, 50)),
    anatomy(VENA_CAVA, "inferior vena cava", "64131007", "Inferior vena cava", (0, 151, 206)),
    anatomy(SPINE, "spine", "421060004", "Spine", (226, 202, 134)),
]

_BOX = (246.0, 300.0, 384.0)  # (z, y, x) mm
_SIZE, _FIELD_OF_VIEW = (80, 100, 128), (236.0, 286.0, 366.0)
_BILE, _GAS = 8.0, -960.0


def make_abdomen(rng: np.random.Generator, size=None, sequence_grids: bool = False) -> Phantom:
    """One patient; ``size`` is (z, y, x). There is one image, so ``sequence_grids`` is moot."""
    anatomy_rng, scanner_rng = rng.spawn(2)
    size = vary_size(size, _SIZE, scanner_rng, step=(4, 4, 4))
    zoom = scanner_rng.uniform(0.97, 1.03)
    spacing = [n * zoom / s for n, s in zip(_FIELD_OF_VIEW, size, strict=True)]
    canvas = Canvas(_BOX, [max(0.9 * s, 1.2) for s in spacing], anatomy_rng, {"CT": _hounsfield})
    contrast = _draw_patient(canvas)
    grid = scan_grid(size, spacing, canvas.center)
    values = acquire(canvas.images["CT"], canvas, grid)
    values += scanner_rng.uniform(7, 14) * ct_grain(grid.shape, scanner_rng)
    image = to_int16(np.clip(values, -1024, 3071), grid, "CT")
    return Phantom({"CT": image}, acquire_label(canvas, grid), {"contrast": contrast})


def _hounsfield(value):
    """CT has one technique: what is painted are Hounsfield units already."""
    return value


def _draw_patient(canvas: Canvas) -> float:
    """Paint a patient; return the contrast, 0 (native) to 1 (portal venous)."""
    rng = canvas.rng
    contrast = 0.0 if rng.random() < 0.2 else float(rng.uniform(0.6, 1.0))
    canvas.stretch(*rng.uniform(0.93, 1.06, 3))
    canvas.bend(2.2, 70.0)
    cavity = draw_trunk(canvas, contrast, SPINE)
    canvas.bend(2.0, 35.0)
    organs = _Organs(canvas, cavity, contrast)
    organs.draw_small_bowel()
    organs.draw_colon()
    organs.draw_kidneys()
    organs.draw_pancreas()
    organs.draw_duodenum()
    organs.draw_stomach()
    organs.draw_spleen()
    organs.draw_liver()
    organs.draw_vessels()
    organs.draw_gallbladder()
    return contrast


class _Organs:
    """Paints the organs one by one, back to front; ``cavity`` is the level of what holds them."""

    def __init__(self, canvas: Canvas, cavity: np.ndarray, contrast: float):
        self.canvas, self.rng = canvas, canvas.rng
        self.cavity, self.contrast = cavity, contrast
        self.left_kidney, self.right_kidney = self._kidney(1, -8), self._kidney(-1, -18)
        self.stomach = self._stomach()

    def _hu(
        self, native: float, enhancement: float = 0.0, texture: float = 4.0, scale: float = 5.0
    ):
        """HU (z, y, x) of a tissue; ``enhancement`` is what full contrast adds."""
        return native + enhancement * self.contrast + texture * self.canvas.texture(scale)

    def _kidney(self, side: int, z: float) -> np.ndarray:
        canvas, rng = self.canvas, self.rng
        z, length = z + rng.uniform(-8, 8), rng.uniform(50, 60)
        center = (side * rng.uniform(61, 67), 32 + rng.uniform(-3, 3), z)
        bean = canvas.ellipsoid(center, (29, 26, length), turn=(-8, side * -14, side * 30))
        hilum = canvas.ellipsoid((side * 38, 22, z), (15, 10, 16))
        bean = subtract(bean + canvas.noise(16.0), hilum, blend=6)
        return intersect(bean, self.cavity - 3, blend=4)

    def draw_kidneys(self) -> None:
        """Cortex, medulla, and the sinus with its fat and the renal pelvis."""
        canvas = self.canvas
        for side, level, label in (
            (1, self.left_kidney, LEFT_KIDNEY),
            (-1, self.right_kidney, RIGHT_KIDNEY),
        ):
            pyramids = np.clip(canvas.noise(9.0) + 0.3, 0, 1.2)
            canvas.paint(level, self._hu(33, 125), label)
            canvas.paint(level - 7.0, self._hu(32, 116) - 34 * self.contrast * pyramids)
            deep = level > 8
            x, y, z = (float(axis[deep].mean()) for axis in (canvas.x, canvas.y, canvas.z))
            sinus = canvas.ellipsoid((x - side * 6, y - 3, z), (9, 9, 24)) + 2.5 * canvas.noise(7.0)
            canvas.paint(intersect(sinus, level + 4.0), -70.0)
            canvas.paint(sinus - 5.0, 12.0 + 30 * self.contrast)

    def draw_vessels(self) -> None:
        """Aorta, vena cava, their main branches, and the portal system outside the liver."""
        canvas, rng = self.canvas, self.rng
        radius = rng.uniform(9, 12.5)
        blood, vein = self._hu(42, 115, 3), self._hu(40, 92, 3)
        for path, width, content in (
            ([(9, 0, 22), (9, -16, 24), (6, -26, 20)], 3.8, blood),  # celiac trunk
            ([(9, 0, 8), (9, -14, 6), (8, -20, -20), (4, -26, -60)], 4.0, blood),  # mesenteric
            ([(12, 2, -4), (38, 14, -8), (52, 28, -8)], 3.2, blood),  # renal
            ([(4, 4, -6), (-30, 16, -12), (-50, 26, -16)], 3.2, blood),
            ([(-14, -2, -6), (8, -12, -4), (36, 10, -6), (54, 26, -6)], 4.5, vein),
            ([(-4, -26, -60), (-4, -24, -10), (-12, -22, 12), (-30, -18, 34)], 6.0, vein),
            ([(-10, -22, 8), (22, -14, 14), (58, 2, 24), (84, 22, 34)], 4.6, vein),  # splenic
        ):
            canvas.paint(canvas.tube(curve(path), width), content)
        path = curve([(-20, 5, -140), (-21, 2, -40), (-22, -2, 30), (-26, -12, 95)])
        canvas.paint(canvas.tube(path, radius + 0.5), vein, VENA_CAVA)
        path = curve([(9, 4, -140), (9, 2, -60), (8, 4, 20), (10, 12, 140)])
        wall = canvas.tube(path, radius + 1.2)
        canvas.paint(wall, 55.0 + 20 * self.contrast, AORTA)
        canvas.paint(wall - 1.2, blood, AORTA)
        plaques = 2.2 * (canvas.noise(7.0) - rng.uniform(1.4, 2.6))
        canvas.paint(intersect(shell(wall, 2.0), plaques), 450.0)

    def draw_pancreas(self) -> None:
        canvas, rng = self.canvas, self.rng
        lift = rng.uniform(-4, 6)
        path = curve([
            (-30, -14, -26), (-28, -22, -6 + lift), (-6, -32, 6 + lift), (22, -24, 14 + lift),
            (54, -6, 22 + lift), (80, 14, 30 + lift),
        ])  # fmt: skip
        radii = ramp(np.arange(24), [0, 5, 9, 14, 23], [14, 18, 12.5, 13, 11])
        lobules = 2.2 * canvas.noise(5.0)
        level = canvas.tube(path, radii * rng.uniform(0.9, 1.12)) + lobules
        canvas.paint(level, self._hu(40, 55, 7), PANCREAS)

    def _stomach(self) -> np.ndarray:
        canvas, filling = self.canvas, self.rng.uniform(0.85, 1.15)
        path = curve([
            (34, 6, 78), (58, -2, 72), (72, -24, 52), (66, -52, 24), (40, -66, 4), (8, -62, -4),
            (-18, -50, 4),
        ])  # fmt: skip
        radii = ramp(np.arange(24), [0, 4, 9, 15, 20, 23], [14, 30, 32, 24, 18, 12])
        level = canvas.tube(path, filling * radii) + 2.5 * canvas.noise(18.0)
        return intersect(level, self.cavity - 1, blend=6)

    def draw_duodenum(self) -> None:
        canvas = self.canvas
        path = curve([
            (-18, -50, 4), (-38, -34, 2), (-46, -14, -10), (-44, -6, -40), (-10, -6, -48),
            (20, -10, -40),
        ])  # fmt: skip
        level = canvas.tube(path, 11.5) + canvas.noise(9.0)
        canvas.paint(level, self._hu(40, 40), 0)
        canvas.paint(level - 3, self._hu(22, texture=8))

    def draw_stomach(self) -> None:
        canvas, rng = self.canvas, self.rng
        canvas.paint(self.stomach, self._hu(42, 45), STOMACH)
        lumen = self.stomach - 3.8 + 0.9 * canvas.noise(7.0)
        canvas.paint(lumen, self._hu(rng.uniform(5, 40), texture=rng.uniform(2, 14)))
        surface = -canvas.y - rng.uniform(32, 60)  # supine: gas rises to the front
        canvas.paint(intersect(lumen, surface), _GAS, edge=1.5)

    def draw_spleen(self) -> None:
        canvas, size = self.canvas, self.rng.uniform(0.88, 1.2)
        spleen = canvas.ellipsoid((104, 28, 42), np.multiply((40, 58, 56), size), turn=(-20, 0, 18))
        spleen = intersect(spleen + 1.5 * canvas.noise(20.0), self.cavity - 0.5, blend=3)
        spleen = subtract(spleen, self.stomach + 3, self.left_kidney + 4, blend=8)
        canvas.paint(spleen, self._hu(48, 68), SPLEEN)

    def _liver(self) -> np.ndarray:
        canvas, rng = self.canvas, self.rng
        size = rng.uniform(0.94, 1.08)
        left = np.multiply((rng.uniform(70, 95), 42, 34), size)
        lobes = union(
            canvas.ellipsoid((-70, 0, 28), np.multiply((78, 90, 90), size)),
            canvas.ellipsoid((-10, -50, 54), left, turn=(0, 10, 0)),
            canvas.ellipsoid((-24, -4, 48), (20, 20, 26)),
            blend=22,
        )
        underside = 0.9 * (canvas.z + 60 - 0.46 * (canvas.x + 110)) - 0.2 * canvas.y
        liver = lobes + 2.0 * canvas.noise(25.0)
        liver = intersect(liver, underside, self.cavity - 0.5, blend=10)
        behind = canvas.ellipsoid((-48, 58, 8), (42, 38, 40))  # the fat about the kidney
        liver = subtract(liver, self.right_kidney + 5, behind, self.stomach + 3, blend=6)
        gap = np.abs(canvas.x + 18 + 0.2 * (canvas.z - 40) + 0.3 * (canvas.y + 60))
        fissure = intersect(2.0 - gap, -46 - canvas.y, 52 - canvas.z)
        return subtract(liver, fissure, blend=6)

    def draw_liver(self) -> None:
        canvas, liver, vein = self.canvas, self._liver(), self._hu(42, 110, 3)
        canvas.paint(liver, self._hu(58, 48, 5, 6.0), LIVER)
        for path, radii in (
            ([(-26, -8, 84), (-58, -2, 72), (-100, 12, 48)], (7, 5, 2)),  # three hepatic veins
            ([(-26, -10, 84), (-48, -34, 70), (-62, -66, 46)], (6, 4.5, 2)),
            ([(-24, -12, 84), (2, -40, 74), (34, -62, 62)], (6, 4, 2)),
            ([(-26, -18, 30), (-56, -10, 34), (-88, 20, 22), (-112, 40, 10)], (6, 6, 3.5, 2)),
            ([(-56, -10, 34), (-84, -30, 40), (-110, -46, 46)], (5, 3.5, 2)),  # portal branches
            ([(-30, -18, 32), (-20, -42, 46), (16, -58, 54)], (5, 4, 2)),
        ):
            points = curve(np.column_stack([path, radii]), 16)
            branch = canvas.tube(points[:, :3], np.maximum(points[:, 3], 1.2))
            canvas.paint(intersect(branch, liver - 2), vein)

    def draw_gallbladder(self) -> None:
        canvas, rng = self.canvas, self.rng
        path = [(-38, -30, 14), (-50, -56, -6), (-54, -70, -16)]
        radii = np.array([4, 13, 15]) * rng.uniform(0.75, 1.15)
        bile = intersect(canvas.tube(path, radii), self.cavity - 2.5)
        canvas.paint(bile + 1.5, self._hu(42, 35), GALLBLADDER)
        canvas.paint(bile, _BILE)

    def draw_small_bowel(self) -> None:
        """Loops that wander about the mesentery, some with gas."""
        canvas, rng = self.canvas, self.rng
        groups = [((0, -42, -66), (84, 34, 50))] * 8 + [((42, -46, -14), (46, 24, 26))] * 4
        for middle, reach in groups:
            wander = rng.normal(0, 0.55, 3) + rng.normal(0, 0.42, (6, 3))
            path = curve(np.array(middle) + np.array(reach) * np.clip(wander, -1, 1), 30)
            loop = intersect(canvas.tube(path, rng.uniform(9, 13.5)), self.cavity - 2)
            loop = loop + 1.2 * canvas.noise(6.0)
            canvas.paint(loop, self._hu(40, 48))
            canvas.paint(loop - 3.2, self._hu(rng.uniform(15, 35), texture=6))
            if rng.random() < 0.35:
                canvas.paint(intersect(loop - 3.2, path[:, 1].mean() - 4 - canvas.y), _GAS)

    def draw_colon(self) -> None:
        """Ascending, transverse and descending colon with haustra, feces and gas."""
        canvas, rng = self.canvas, self.rng
        speckle = np.clip(canvas.texture(4.5) * 1.4 - 0.2, 0, 1)
        gas = ramp(canvas.x, [-100, 0, 100], [-10, -78, 0]) - canvas.y
        for path, radius in (
            ([(-100, 18, -135), (-106, 10, -80), (-100, -2, -42), (-84, -30, -34)], 23),
            ([(-84, -30, -34), (-62, -68, -44), (0, -80, -52), (58, -72, -26), (92, -28, 8)], 18),
            ([(92, -28, 8), (112, 8, 10), (114, 26, -30), (110, 28, -80), (96, 10, -135)], 16),
        ):
            colon = canvas.tube(curve(path, 30), radius) + 3.0 * canvas.noise(11.0)
            colon = intersect(colon, self.cavity - 1.5, blend=4)
            canvas.paint(colon, self._hu(40, 38))
            canvas.paint(colon - 2.8, 35 + 10 * canvas.texture(6.0) - 650 * speckle)
            canvas.paint(intersect(colon - 2.8, gas + rng.uniform(-8, 4)), _GAS)


TASK = PhantomTask("abdomen", "abdominal organs on CT", "CT", ("CT",), LABELS, make_abdomen)
