"""Reading a cache of prepared volumes, and drawing crops from it.

A cache is a folder written by ``prepare.py``::

    cases.json        {"version": 1, "cases": [{"id", "subject", "image", "label", "structures",
                      "shape", "digests"}]}, values that the label has, digests of the images as
                      they were read
    plan.json         patch and strides (z, y, x), kernel sizes, preprocessing (spacing ...)
    fingerprint.json  what the plan was made from
    split.json        {"train": [subjects], "held_back": [subjects]}, and with prepare.py --splits
                      "folds", a list of the same
    images/<id>.npy   fp16 (c, z, y, x), already normalized
    labels/<id>.npy   uint8 (z, y, x), where a case has a label: the network's channel, or
                      `IGNORED`
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal, Self

import numpy as np
import torch
from torch import Tensor

from MIMSegment.Logic.errors import InputError

CACHE_VERSION = 1
# Around a scan there is nothing known; the mean of normalized intensities says just that, and it is
# what a hidden voxel becomes in masked pre-training.
PAD_VALUE = 0.0
# In a label: what it is was left open, so nothing is learnt from it and nothing measured there.
IGNORED = 255
_LOCATIONS_PER_CLASS = 2000


@dataclass(frozen=True)
class Cache:
    """An opened cache. ``train`` and ``held_back`` are disjoint lists of subjects; ``folds`` those
    of a cross-validation, where the cache was prepared for one, see `folds`. ``spared`` is what a
    fold leaves alone because the cache itself holds it back."""

    folder: Path
    cases: tuple[dict, ...]
    plan: dict
    fingerprint: dict
    train: tuple[str, ...]
    held_back: tuple[str, ...]
    folds: tuple[dict, ...] = ()
    spared: tuple[str, ...] = ()

    @property
    def unseen(self) -> tuple[str, ...]:
        """The subjects that no network of this cache may have learnt from."""
        return (*self.held_back, *self.spared)

    @property
    def channels(self) -> int:
        return int(self.cases[0]["shape"][0])

    @property
    def patch(self) -> tuple[int, ...]:
        """The planned crop in voxels (z, y, x); of pictures (y, x)."""
        return tuple(self.plan["patch"])[-self.plan.get("dims", 3) :]

    def with_patch(self, patch: Sequence[int]) -> Cache:
        """The same cache with another crop planned; InputError for a wrong number of sizes."""
        if len(patch) != len(self.patch):
            raise InputError(
                f"patch={tuple(patch)}, but {self.folder} needs {len(self.patch)} sizes."
            )
        whole = [*[1] * (3 - len(patch)), *patch]
        return replace(self, plan={**self.plan, "patch": whole})

    def extent(self, patch: Sequence[int]) -> str:
        """A crop ([z,] y, x) in words: voxels, and how much of the patient that is."""
        voxels = " x ".join(map(str, patch))
        if len(patch) == 2:
            return f"{voxels} pixels"
        spacing = self.plan["preprocessing"]["spacing"]
        lengths = (f"{n * mm:.0f}" for n, mm in zip(patch, spacing, strict=True))
        return f"{voxels} voxels ({' x '.join(lengths)} mm)"

    def restricted_to(self, cases: Iterable[dict]) -> Cache:
        """The same cache as if it held these cases only."""
        return replace(self, cases=tuple(cases))

    def cases_of(self, subjects: Iterable[str]) -> list[dict]:
        """The cases of ``subjects`` in the cache's order; raises InputError where there is none."""
        wanted = set(subjects)
        chosen = [case for case in self.cases if case["subject"] in wanted]
        missing = wanted - {case["subject"] for case in chosen}
        if missing or not chosen:
            names = ", ".join(sorted(missing)[:5]) or "(none asked for)"
            raise InputError(f"{self.folder} has no case of these subjects: {names}.")
        return chosen


def read_cache(folder: str | Path) -> Cache:
    """Open a cache folder; raises InputError naming the file that is missing or does not fit."""
    folder = Path(folder)
    cases, split = _json(folder, "cases.json"), _json(folder, "split.json")
    if cases.get("version") != CACHE_VERSION:
        raise InputError(
            f"{folder}/cases.json has version {cases.get('version')}, this program reads "
            f"{CACHE_VERSION}; run prepare.py again."
        )
    if not cases["cases"]:
        raise InputError(f"{folder}/cases.json lists no case.")
    both = set(split["train"]) & set(split["held_back"])
    if both:
        raise InputError(
            f"{folder}/split.json has subject {min(both)} in training and held back at once."
        )
    channels = {case["shape"][0] for case in cases["cases"]}
    if len(channels) != 1:
        raise InputError(f"{folder} mixes images of {sorted(channels)} channels.")
    return Cache(
        folder,
        tuple(cases["cases"]),
        _json(folder, "plan.json"),
        _json(folder, "fingerprint.json"),
        tuple(split["train"]),
        tuple(split["held_back"]),
        tuple(split.get("folds", ())),
    )


class UnlabeledVolumes:
    """The images of some subjects, and nothing else: no label can leak into pre-training.

    They lie in memory on ``device`` as fp16 when all together take at most ``limit_gib``, else
    they stay memory-mapped on the disk. Of the caches in ``more`` all training subjects are there
    too, named "folder/case".
    """

    def __init__(
        self,
        cache: Cache,
        subjects: Iterable[str],
        device: torch.device | str = "cpu",
        limit_gib: float = 8.0,
        more: Sequence[Cache] = (),
    ):
        cases = cache.cases_of(subjects)
        others = [(other, case) for other in more for case in other.cases_of(other.train)]
        self.ids = tuple(case["id"] for case in cases)
        self.ids += tuple(f"{other.folder.name}/{case['id']}" for other, case in others)
        images = [(cache, case) for case in cases] + others
        self.images = _load_all(images, "image", device, limit_gib)

    def __len__(self) -> int:
        return len(self.ids)


class LabeledVolumes:
    """The images and labels of those cases of some subjects that have a label.

    ``locations[i]`` maps each foreground class of case i to voxel indices (n, 3) in (z, y, x), a
    fixed random choice of at most 2,000; ``known[i]`` are such voxels that are not `IGNORED`, None
    where none is ignored.
    """

    def __init__(
        self,
        cache: Cache,
        subjects: Iterable[str],
        device: torch.device | str = "cpu",
        limit_gib: float = 8.0,
    ):
        cases = [case for case in cache.cases_of(subjects) if case["label"]]
        if not cases:
            raise InputError(f"None of the asked subjects in {cache.folder} has a label.")
        self.ids = tuple(case["id"] for case in cases)
        pairs = [(cache, case) for case in cases]
        self.images = _load_all(pairs, "image", device, limit_gib)
        self.labels = _load_all(pairs, "label", device, limit_gib)
        self.locations = [_foreground(label) for label in self.labels]
        self.known = [_known(label) for label in self.labels]

    def __len__(self) -> int:
        return len(self.ids)


@dataclass(frozen=True)
class Crops:
    """A batch: ``images`` float32 (b, c, z, y, x); ``valid`` bool (b, 1, z, y, x) is true inside
    the scan, false where the crop was padded with `PAD_VALUE`; ``cases`` names each sample.
    Pictures have no z."""

    images: Tensor
    valid: Tensor
    cases: tuple[str, ...]

    def to(self, device: torch.device | str) -> Self:
        """The same batch on ``device``."""
        tensors = {k: v for k, v in vars(self).items() if isinstance(v, Tensor)}
        moved = {k: tensor.to(device, non_blocking=True) for k, tensor in tensors.items()}
        return replace(self, **moved)

    def as_pictures(self) -> Self:
        """A batch of single slices (b, c, 1, y, x) as one of pictures (b, c, y, x)."""
        return replace(self, **{k: v.squeeze(2) for k, v in self.on_grid().items()})

    def as_volumes(self) -> Self:
        """Undo `as_pictures`."""
        return replace(self, **{k: v.unsqueeze(2) for k, v in self.on_grid().items()})

    def on_grid(self) -> dict[str, Tensor]:
        """The tensors, by field, that have a value for each voxel: all but those of samples."""
        dims = self.images.ndim
        return {k: v for k, v in vars(self).items() if isinstance(v, Tensor) and v.ndim == dims}


@dataclass(frozen=True)
class LabeledCrops(Crops):
    """``labels`` int64 (b, 1, z, y, x), 0 in the padding, `IGNORED` where it is not known."""

    labels: Tensor


def draw_crops(
    volumes: UnlabeledVolumes, patch: Sequence[int], batch: int, generator: torch.Generator
) -> Crops:
    """Crops of ``patch`` (z, y, x) voxels at uniformly random places of uniformly random cases.

    A volume smaller than the patch lies at a random place in it. A ``patch`` (y, x) gives pictures.
    ``generator`` is on the CPU.
    """
    if len(patch) == 2:
        return draw_crops(volumes, (1, *patch), batch, generator).as_pictures()
    chosen = torch.randint(len(volumes), (batch,), generator=generator).tolist()
    images = [volumes.images[i] for i in chosen]
    starts = _random_starts([image.shape[1:] for image in images], patch, generator)
    pixels, valid = _cut(images, starts, patch)
    return Crops(pixels, valid, tuple(volumes.ids[i] for i in chosen))


def draw_labeled_crops(
    volumes: LabeledVolumes,
    patch: Sequence[int],
    batch: int,
    generator: torch.Generator,
    foreground: float = 1 / 3,
) -> LabeledCrops:
    """As `draw_crops`; each sample is with probability ``foreground`` centered on a structure.

    The structure is drawn among the classes of the case, each as likely, then one of its voxels.
    Of a label that leaves voxels open the other samples are centered on one that is known, as most
    crops of a sparse label have nothing to learn from.
    """
    if len(patch) == 2:
        whole = (1, *patch)
        return draw_labeled_crops(volumes, whole, batch, generator, foreground).as_pictures()
    chosen = torch.randint(len(volumes), (batch,), generator=generator).tolist()
    images = [volumes.images[i] for i in chosen]
    shapes = [image.shape[1:] for image in images]
    starts = _random_starts(shapes, patch, generator)
    drawn = torch.rand(batch, 3, generator=generator).tolist()
    for sample, (case, (oversample, which, where)) in enumerate(zip(chosen, drawn, strict=True)):
        classes = list(volumes.locations[case].values())
        if oversample < foreground and classes:
            voxels = classes[int(which * len(classes))]
        else:
            voxels = volumes.known[case]
        if voxels is not None and len(voxels):
            center = voxels[int(where * len(voxels))].tolist()
            starts[sample] = _centered_start(center, shapes[sample], patch)
    pixels, valid = _cut(images, starts, patch)
    labels, _ = _cut([volumes.labels[i][None] for i in chosen], starts, patch, torch.int64)
    return LabeledCrops(pixels, valid, tuple(volumes.ids[i] for i in chosen), labels)


def center_crop(image: Tensor, patch: Sequence[int]) -> Tensor:
    """The middle of an image (c, z, y, x) as a batch of one, float32; padded where it is smaller.

    A ``patch`` (y, x) gives a picture (1, c, y, x).
    """
    full = (1, *patch) if len(patch) == 2 else tuple(patch)
    shape = image.shape[1:]
    start = _centered_start([size // 2 for size in shape], shape, full)
    pixels, _ = _cut([image], [start], full)
    return pixels.squeeze(2) if len(patch) == 2 else pixels


def _json(folder: Path, name: str) -> dict:
    try:
        return json.loads((folder / name).read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise InputError(
            f"{folder} is no cache: it has no {name}; prepare.py makes one."
        ) from error
    except (OSError, ValueError) as error:
        raise InputError(f"{folder / name} cannot be read: {error}") from error


def _load_all(
    cases: Sequence[tuple[Cache, dict]],
    kind: Literal["image", "label"],
    device: torch.device | str,
    limit_gib: float,
) -> list[Tensor]:
    first_axis = 0 if kind == "image" else 1  # a label has no channels
    mapped = [_map(cache.folder / case[kind], case["shape"][first_axis:]) for cache, case in cases]
    total = sum(tensor.numel() * tensor.element_size() for tensor in mapped)
    if total > limit_gib * 2**30:
        return mapped
    return [torch.empty_like(tensor, device=device).copy_(tensor) for tensor in mapped]


def _map(path: Path, shape: Sequence[int]) -> Tensor:
    """A tensor whose pages are read from ``path`` when they are needed."""
    try:
        # Copy-on-write, as torch has no read-only tensors; nothing ever writes to it.
        array = np.load(path, mmap_mode="c")
    except (OSError, ValueError, EOFError) as error:
        raise InputError(f"{path} cannot be read ({error}); run prepare.py again.") from error
    if array.shape != tuple(shape):
        raise InputError(f"{path} has shape {array.shape}, cases.json says {tuple(shape)}.")
    return torch.from_numpy(array)


def _foreground(label: Tensor) -> dict[int, np.ndarray]:
    values = label.cpu().numpy()
    random = np.random.default_rng(0)
    locations = {}
    for value in np.unique(values[values > 0]).tolist():
        if value != IGNORED:
            locations[value] = _some_voxels(values == value, random)
    return locations


def _known(label: Tensor) -> np.ndarray | None:
    known = label.cpu().numpy() != IGNORED
    return None if known.all() else _some_voxels(known, np.random.default_rng(0))


def _some_voxels(mask: np.ndarray, random: np.random.Generator) -> np.ndarray:
    flat = np.flatnonzero(mask)
    if len(flat) > _LOCATIONS_PER_CLASS:
        flat = random.choice(flat, _LOCATIONS_PER_CLASS, replace=False)
    return np.stack(np.unravel_index(flat, mask.shape), 1).astype(np.int32)


def _random_starts(
    shapes: Sequence[Sequence[int]], patch: Sequence[int], generator: torch.Generator
) -> list[list[int]]:
    """First voxel of each crop; negative where the volume is smaller than the patch."""
    drawn = torch.rand(len(shapes), 3, generator=generator, dtype=torch.float64).tolist()
    return [
        [
            min(0, size - edge) + int(u * (abs(size - edge) + 1))
            for u, size, edge in zip(row, shape, patch, strict=True)
        ]
        for row, shape in zip(drawn, shapes, strict=True)
    ]


def _centered_start(center: Sequence[int], shape: Sequence[int], patch: Sequence[int]) -> list[int]:
    """First voxel of the crop around ``center``, moved inwards at the volume's border."""
    return [
        min(max(middle - edge // 2, min(0, size - edge)), max(0, size - edge))
        for middle, size, edge in zip(center, shape, patch, strict=True)
    ]


def _cut(
    volumes: Sequence[Tensor],
    starts: Sequence[Sequence[int]],
    patch: Sequence[int],
    dtype: torch.dtype = torch.float32,
) -> tuple[Tensor, Tensor]:
    """Copy each crop of a (c, z, y, x) volume into a batch; also say where there was a volume."""
    first = volumes[0]
    shape = (len(volumes), first.shape[0], *patch)
    crops = torch.full(shape, PAD_VALUE, dtype=dtype, device=first.device)
    valid = torch.zeros(shape[0], 1, *patch, dtype=torch.bool, device=first.device)
    for i, (volume, start) in enumerate(zip(volumes, starts, strict=True)):
        inside, target = [slice(None)], [slice(None)]
        for begin, size, edge in zip(start, volume.shape[1:], patch, strict=True):
            low, high = max(begin, 0), min(begin + edge, size)
            inside.append(slice(low, high))
            target.append(slice(low - begin, high - begin))
        crops[i][tuple(target)] = volume[tuple(inside)].to(dtype)
        valid[i][tuple(target)] = True
    return crops, valid
