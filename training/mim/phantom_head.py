"""What lies about and within the brain of a phantom: skull and scalp, and a glioma.

Coordinates: mm from the center of the brain, x to the patient's left, y to the back, z to the head.
"""

from __future__ import annotations

import numpy as np

from mim.phantom_scan import AIR, CORTICAL_BONE, FAT, FLUID, MARROW, MUSCLE, Canvas, Tissue
from mim.phantom_shapes import SIDES, intersect, union

NECROSIS, EDEMA, ENHANCING = 1, 2, 3


def draw_head(canvas: Canvas, brain: np.ndarray) -> None:
    """Paint scalp, skull, fluid, the eyes and the soft tissue of face and neck.

    ``brain`` is the level of the cerebrum; what is painted afterwards lies within.
    """
    fossa = canvas.ellipsoid((0, 42, -38), (54, 40, 34), margin=20)
    inside = union(brain, fossa, canvas.ellipsoid((0, 0, -10), (50, 70, 40), margin=20), blend=20)
    face = canvas.ellipsoid((0, -24, -70), (62, 72, 78), margin=20)
    neck = canvas.tube([(0, 20, -60), (0, 26, -140)], 56)
    head = union(inside + 14.0, face, neck, blend=16)
    canvas.paint(head, MUSCLE.but(t2=45.0))
    canvas.paint(head - 2.0, FAT.but(pd=0.6))
    canvas.paint(head - 5.0 - 3.0 * (canvas.z < -25), MUSCLE.but(t2=38 + 6 * canvas.texture(6.0)))
    canvas.paint(inside + 8.0, CORTICAL_BONE)
    canvas.paint(inside + 5.5 + 0.5 * canvas.texture(6.0), MARROW.but(pd=0.4))
    canvas.paint(inside + 3.2, CORTICAL_BONE)
    canvas.paint(inside + 1.0, FLUID)
    for side in SIDES:
        for center, radii, tissue in (
            ((32, -64, -36), (19, 24, 17), FAT.but(pd=0.6)),  # orbit
            ((32, -73, -36), (12.5, 12.5, 12.5), FLUID),  # eye
            ((22, -62, -62), (14, 18, 16), AIR),  # sinus
        ):
            part = canvas.ellipsoid((side * center[0], *center[1:]), radii)
            canvas.paint(intersect(part, head - 3.0), tissue)


class Tumor:
    """A glioma: an enhancing rim about a dead core, edema in the white matter, and mass effect."""

    def __init__(self, canvas: Canvas):
        rng = canvas.rng
        side = rng.choice([-1, 1])
        self.center = (side * rng.uniform(26, 42), rng.uniform(-48, 46), rng.uniform(4, 36))
        self.radius = rng.uniform(10, 18)
        lobes = [
            canvas.ellipsoid(
                np.add(self.center, rng.normal(0, 0.4 * self.radius, 3) * (i > 0)),
                self.radius * rng.uniform(0.55, 1.0, 3),
                margin=40.0,
            )
            for i in range(3)
        ]
        rough = 0.12 * self.radius
        self.core = union(*lobes, blend=5) + rough * (canvas.noise(9.0) + 0.5 * canvas.noise(4.5))
        rim = rng.uniform(2.5, 4.5) * (1 + 0.45 * canvas.noise(7.0))
        self.rim = np.clip(rim, 1.2, 0.5 * self.core.max())  # something dead is always left
        self.edema = self.core + rng.uniform(9, 20) * (1 + 0.5 * canvas.noise(16.0))

    def push(self, canvas: Canvas) -> None:
        """Displace the brain, drawn afterwards, away from the tumor."""
        axes = zip((canvas.x, canvas.y, canvas.z), self.center, strict=True)
        offset = np.stack([axis - np.float32(c) for axis, c in axes])
        distance = np.sqrt(np.square(offset).sum(0)) + np.float32(1e-3)
        push = -0.35 * self.radius * np.exp(-np.square(distance / (2.2 * self.radius)))
        push *= np.clip(distance / self.radius, 0, 1) / distance
        canvas.displace(*(push * offset))

    def draw(self, canvas: Canvas, hemispheres: np.ndarray, white: np.ndarray) -> dict:
        """Paint edema along the white matter, the rim and the core; return what is true of it."""
        same_side = np.sign(self.center[0]) * canvas.x + 2.0
        solid = 10.0 * (0.4 - canvas.images["T2"])  # edema does not enter the ventricles
        edema = intersect(self.edema, white + 0.8, same_side, solid)
        t1, t2, fine = (canvas.texture(scale) for scale in (5.0, 6.0, 4.0))
        canvas.paint(edema, Tissue(0.85, 1450 + 60 * t1, 150 + 14 * t2), EDEMA, edge=3.0)
        core = intersect(self.core, hemispheres - 1.0)
        living = Tissue(0.84, 1350.0, 115 + 12 * fine, uptake=2.2 + 0.7 * fine)
        canvas.paint(core, living, ENHANCING, edge=2.4)
        dead = Tissue(0.93, 2300 + 200 * t1, 220 + 40 * t1)
        canvas.paint(core - self.rim, dead, NECROSIS, edge=2.0)
        return {
            "volume_ml": float((core > 0).sum() * np.prod(canvas.spacing) / 1000),
            "center_lps": [float(v) for v in np.add(canvas.center, self.center)],
        }
