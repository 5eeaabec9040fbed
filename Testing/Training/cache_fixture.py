"""A tiny cache as ``prepare.py`` writes it: bright ellipsoids with two classes, on noise."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np

from mim.data import Cache


def write_cache(
    folder: Path,
    subjects: int = 6,
    held_back: int = 2,
    shape: tuple[int, int, int] = (18, 20, 16),
    channels: int = 1,
    patch: tuple[int, int, int] = (16, 16, 16),
    labels: bool = True,
    pictures: bool = False,
) -> Path:
    """Write a cache of one case for each subject; sizes vary by some voxels around ``shape``.

    ``pictures``: of each scan only one slice, and a plan for 2D.
    """
    random = np.random.default_rng(0)
    (folder / "images").mkdir(parents=True)
    (folder / "labels").mkdir()
    cases = []
    for i in range(subjects):
        size = tuple(int(n) for n in np.array(shape) + random.integers(-4, 5, 3))
        image, label = _scan(random, size, channels)
        if pictures:
            middle = slice(size[0] // 2, size[0] // 2 + 1)
            size, image, label = (1, *size[1:]), image[:, middle], label[middle]
        np.save(folder / "images" / f"case_{i}.npy", image)
        if labels:
            np.save(folder / "labels" / f"case_{i}.npy", label)
        cases.append(
            {
                "id": f"case_{i}",
                "subject": f"subject_{i}",
                "image": f"images/case_{i}.npy",
                "label": f"labels/case_{i}.npy" if labels else None,
                "source": str(folder / f"images/case_{i}.npy"),
                "source_label": str(folder / f"labels/case_{i}.npy") if labels else None,
                "shape": [channels, *size],
            }
        )
    names = [case["subject"] for case in cases]
    _dump(folder / "cases.json", {"version": 1, "cases": cases})
    _dump(folder / "split.json", {"train": names[held_back:], "held_back": names[:held_back]})
    _dump(folder / "fingerprint.json", {"cases": subjects})
    plan = {
        "patch": list(patch),
        "preprocessing": {"spacing": [1.0, 1.0, 1.0]},
        "strides": [[1, 1, 1], [2, 2, 2], [2, 2, 2]],
    }
    if pictures:
        plan |= {
            "dims": 2,
            "patch": [1, *patch[1:]],
            "strides": [[1, 1], [2, 2], [2, 2]],
            "kernel_sizes": [[3, 3]] * 3,
        }
    _dump(folder / "plan.json", plan)
    return folder


def _scan(random, size, channels):
    grid = np.stack(np.meshgrid(*(np.linspace(-1, 1, n) for n in size), indexing="ij"))
    radius = np.sqrt(((grid - random.uniform(-0.3, 0.3, (3, 1, 1, 1))) ** 2).sum(0))
    label = ((radius < 0.7).astype(np.uint8) + (radius < 0.35)).astype(np.uint8)
    image = label[None] - 0.5 + random.normal(0, 0.1, (channels, *size))
    return image.astype(np.float16), label


def _dump(path: Path, values: dict) -> None:
    path.write_text(json.dumps(values))


def with_targets(cache: Cache, name: str) -> Cache:
    """The cache as if it had been prepared for labels, regions, one class or several findings."""
    plan = {
        **cache.plan,
        "kernel_sizes": [(3, 3, 3)] * 3,
        "multi_label": name == "several findings",
    }
    if name in ("labels", "regions"):
        plan["labels"] = [{"value": 1, "name": "shell"}, {"value": 2, "name": "core"}]
        if name == "regions":
            plan["regions"] = [
                {"name": "whole", "labels": [1, 2], "value": 1},
                {"name": "core", "labels": [2], "value": 2},
            ]
        return replace(cache, plan=plan)
    plan |= {"labels": [], "classes": ["well", "sick"]}
    several = plan["multi_label"]
    cases = tuple(
        {**case, "target": [1, i % 2] if several else i % 2} for i, case in enumerate(cache.cases)
    )
    return replace(cache, plan=plan, cases=cases)
