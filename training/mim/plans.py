"""The plan of a cache: inputs, labels or classes, preprocessing, patch and shape of networks."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict
from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from mim.cases import Dataset
from mim.plan_like import PlannedShape
from mim.planning import (
    kernel_sizes,
    modality_of,
    normalization,
    patch_and_strides,
    scheme_of,
    working_spacing,
)
from mim.regions import brats_regions, painted_names
from MIMSegment.Logic.errors import InputError
from MIMSegment.Logic.spec import Normalization, Preprocessing

if TYPE_CHECKING:
    from mim.prepare_options import PrepareOptions

# The preprocessing at a working spacing (z, y, x).
AtSpacing = Callable[[tuple[float, ...]], Preprocessing]


def make_plan(
    dataset: Dataset, fingerprint: dict, options: PrepareOptions, like: PlannedShape | None = None
) -> dict:
    """Everything that later steps share, ready for JSON.

    ``labels`` and ``regions`` are for segmentation: a value that a region paints is called after
    what is left of it in a result, and ``ignore`` is the value of what was left open. ``classes``
    and ``multi_label`` are for classification. With ``dims`` 2 a volume is one slice, ``patch`` is
    (1, y, x), and ``strides`` and ``kernel_sizes`` have two numbers for each stage. ``like``
    decides them where it is given.
    """
    names, modalities = _inputs(dataset, len(fingerprint["intensities"]), options.modality)
    schemes = _schemes(names, modalities, options)
    pairs = zip(schemes, fingerprint["intensities"], strict=True)
    preprocessing = partial(
        Preprocessing,
        normalization=tuple(normalization(*pair) for pair in pairs),
        crop_to_nonzero=options.crop_nonzero,
    )
    if like is not None:
        shape = _shaped(like, preprocessing, fingerprint)
    elif dataset.pictures:
        shape = _pictures(options, preprocessing, fingerprint)
    else:
        shape = _volumes(options, preprocessing, fingerprint, bool(dataset.classes))
    regions = brats_regions(dataset.labels) if options.regions == "brats" else dataset.regions
    labels = {**dataset.labels, **painted_names(regions, dataset.labels)}
    return {
        "name": dataset.name,
        "inputs": [{"name": n, "modality": m} for n, m in zip(names, modalities, strict=True)],
        "labels": [{"value": v, "name": n} for v, n in sorted(labels.items())],
        "regions": [region.to_dict() for region in regions],
        "ignore": dataset.ignore,
        "classes": list(dataset.classes),
        "multi_label": dataset.multi_label,
        **shape,
    }


def plan_preprocessing(plan: dict) -> Preprocessing:
    """The preprocessing of a plan, also after a way through JSON."""
    stored = plan["preprocessing"]
    normalization = tuple(Normalization(**item) for item in stored["normalization"])
    return Preprocessing(**{**stored, "normalization": normalization})


def _inputs(dataset: Dataset, channels: int, modality: str | None):
    """Names and modalities of the channels."""
    default = modality or ("picture" if dataset.pictures else "image")
    names = dataset.inputs or tuple(
        default if channels == 1 else f"channel{c}" for c in range(channels)
    )
    if len(names) != channels:
        raise InputError(
            f"{dataset.name}: {len(names)} inputs are named, the images have {channels} channels."
        )
    known = "XR" if dataset.pictures else None
    return names, [modality or known or modality_of(name) for name in names]


def _schemes(
    names: Sequence[str], modalities: Sequence[str], options: PrepareOptions
) -> Sequence[str]:
    """How each input is normalized."""
    chosen = options.normalization
    if not chosen:
        return [scheme_of(*pair) for pair in zip(names, modalities, strict=True)]
    if len(chosen) not in (1, len(names)):
        raise InputError(
            f"--normalization names {len(chosen)} schemes, but there are {len(names)} inputs "
            f"({', '.join(names)}); name one for all, or one for each."
        )
    return chosen if len(chosen) == len(names) else [*chosen] * len(names)


def _shaped(like: PlannedShape, preprocessing: AtSpacing, fingerprint: dict) -> dict:
    """Spacing, patch and network from elsewhere; intensities are the data's own."""
    shapes = np.asarray(fingerprint["shapes"], float)
    if like.dims == 3:
        shapes = shapes * np.asarray(fingerprint["spacings"]) / np.asarray(like.spacing)
    return {
        "dims": like.dims,
        "preprocessing": asdict(preprocessing(tuple(like.spacing))),
        "patch": like.patch,
        "strides": like.strides,
        "kernel_sizes": like.kernel_sizes,
        "median_shape": [round(float(n), 1) for n in np.median(shapes, axis=0)],
    }


def _volumes(
    options: PrepareOptions, preprocessing: AtSpacing, fingerprint: dict, whole: bool
) -> dict:
    """Spacing, patch and network for volumes; with ``whole`` a patch holds most volumes whole."""
    spacings = np.asarray(fingerprint["spacings"])
    spacing = tuple(options.spacing or working_spacing(spacings))
    shapes = np.asarray(fingerprint["shapes"]) * spacings / np.asarray(spacing)
    shape = np.median(shapes, axis=0)
    if whole:
        shape = np.percentile(shapes, 90, axis=0)
        factor = max(1.0, (np.prod(shape) / options.patch_voxels) ** (1 / 3))
        if options.spacing is None:
            spacing, shape = tuple(round(s * factor, 4) for s in spacing), shape / factor
    patch, strides = patch_and_strides(shape, spacing, options.patch_voxels, options.stages)
    return {
        "dims": 3,
        "preprocessing": asdict(preprocessing(spacing)),
        "patch": patch,
        "strides": strides,
        "kernel_sizes": kernel_sizes(strides, spacing),
        "median_shape": [round(float(n), 1) for n in shape],
    }


def _pictures(options: PrepareOptions, preprocessing: AtSpacing, fingerprint: dict) -> dict:
    """Pictures have no spacing; each is scaled so that its longer side fills the patch."""
    if options.crop_nonzero:
        raise InputError("--crop-nonzero is for volumes; pictures are not cropped.")
    size = options.picture_size
    _, strides = patch_and_strides((1, size, size), (1, 1, 1), size * size, options.stages)
    step = int(np.prod(strides, axis=0)[1])
    if size % step:
        raise InputError(
            f"Pictures of {size} pixels cannot be halved {options.stages - 1} times; choose a "
            f"multiple of {step} or fewer stages."
        )
    return {
        "dims": 2,
        "preprocessing": asdict(preprocessing((1.0, 1.0, 1.0))),
        "patch": (1, size, size),
        "strides": tuple(stride[1:] for stride in strides),
        "kernel_sizes": tuple((3, 3) for _ in strides),
        "median_shape": [float(n) for n in np.median(fingerprint["shapes"], axis=0)],
    }
