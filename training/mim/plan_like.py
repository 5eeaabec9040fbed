"""What the shape of a network depends on, from a checkpoint or another cache.

A fine-tuning whose cache is planned by its own data can end with other strides and kernels than
its pre-training, whose weights then fit in part.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from mim.checkpoint import load_checkpoint
from mim.data import read_cache

Shape = tuple[tuple[int, ...], ...]


@dataclass(frozen=True)
class PlannedShape:
    """Part of a plan: ``spacing`` in mm and ``patch`` (z, y, x), of pictures 1 along z; ``strides``
    and ``kernel_sizes`` as a plan has them; ``source`` is where it is from."""

    source: str
    dims: int
    spacing: tuple[float, ...]
    patch: tuple[int, ...]
    strides: Shape
    kernel_sizes: Shape


def planned_shape(source: str | Path) -> PlannedShape:
    """That of the cache in the folder, or of the checkpoint in the file ``source``.

    Of a checkpoint strides, kernels and crop are those it was trained with, also where its recipe
    had others than the plan. Raises InputError or CheckpointError naming what cannot be read.
    """
    if Path(source).is_dir():
        return _of(source, read_cache(source).plan)
    metadata = load_checkpoint(source)["metadata"]
    network, plan = metadata["network"], dict(metadata["plan"])
    if {"strides", "kernel_sizes"} <= set(network):
        plan |= {key: network[key] for key in ("strides", "kernel_sizes")}
    crop = metadata["recipe"].get("patch")
    if crop and plan.get("dims", 3) == 3:  # of pictures the plan's is the picture, this a part
        plan["patch"] = crop
    return _of(source, plan)


def _of(source: str | Path, plan: dict) -> PlannedShape:
    strides = _tuples(plan["strides"])
    return PlannedShape(
        str(source),
        plan.get("dims", 3),
        tuple(plan["preprocessing"]["spacing"]),
        tuple(plan["patch"]),
        strides,
        _tuples(plan.get("kernel_sizes", [[3] * len(stride) for stride in strides])),
    )


def _tuples(rows: Sequence[Sequence[int]]) -> Shape:
    return tuple(tuple(row) for row in rows)
