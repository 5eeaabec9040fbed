"""What a model asks of its input and how its output is to be read: plain data, no behavior.

This is the part of a package's metadata under the key ``mimsegment``; training writes it, the
engine reads it. Sizes and spacings are (z, y, x) after reorientation and transposition.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from MIMSegment.Logic.errors import PackageError
from MIMSegment.Logic.matching import InputSpec
from MIMSegment.Logic.tables import build, known_fields, require_inside

NORMALIZATION_SCHEMES = ("zscore", "ct", "rescale_to_01", "rgb_to_01", "none")
HEADS = ("softmax", "regions")


@dataclass(frozen=True)
class Normalization:
    """Intensity normalization of one channel, with nnU-Net's meaning of the schemes.

    - ``zscore``: subtract the mean, divide by the standard deviation of the image; with
      ``nonzero`` both are taken inside the non-zero region, outside of which the image stays 0.
      ``percentiles`` clips to these two percentiles of the image first.
    - ``ct``: clip to ``lower``..``upper``, subtract ``mean``, divide by ``std``; all four are
      fixed numbers of the training data.
    - ``rescale_to_01``: minimum to 0, maximum to 1. ``rgb_to_01``: divide by 255. ``none``.
    """

    scheme: str = "zscore"
    nonzero: bool = False
    percentiles: tuple[float, float] | None = None
    mean: float = 0.0
    std: float = 1.0
    lower: float = 0.0
    upper: float = 0.0


@dataclass(frozen=True)
class Preprocessing:
    """From an image to the network's grid: orient, transpose, crop, normalize, resample.

    ``orientation`` is the axis code that (i, j, k) are flipped and permuted to, or None to keep the
    file's axes; ``transpose`` then permutes (z, y, x). ``spacing`` is the working voxel size in mm
    (z, y, x); None along an axis keeps the image's own. Resampling is by splines of ``image_order``
    and, along the coarse axis of an image more than ``anisotropy`` times as coarse there as in
    plane, ``image_order_z``; predictions go back with ``output_order`` and ``output_order_z``.
    """

    spacing: tuple[float | None, float | None, float | None]
    normalization: tuple[Normalization, ...]
    orientation: str | None = "LPS"
    transpose: tuple[int, int, int] = (0, 1, 2)
    crop_to_nonzero: bool = False
    image_order: int = 3
    image_order_z: int = 0
    output_order: int = 1
    output_order_z: int = 0
    anisotropy: float = 3.0


@dataclass(frozen=True)
class ModelSpec:
    """Inputs, preprocessing, sliding window and head of a segmentation model.

    ``patch`` is the network's input size (z, y, x); ``overlap`` the fraction that neighboring
    windows share. With head ``softmax`` channel n of the output is ``channel_labels[n]`` (0 is
    background); with ``regions`` each channel is a sigmoid and, in order, paints its label over
    those before it (whole tumor, then core, then enhancing). ``dims`` 2 is a network of slices,
    with a ``patch`` of (1, y, x). ``empty_below`` lets windows be taken for background unseen in
    which no normalized intensity reaches this value (air). ``keep_largest_component`` has groups of
    label values that are one object: what is apart from its largest part is removed, group by group
    (see `largest_component`).
    """

    inputs: tuple[InputSpec, ...]
    preprocessing: Preprocessing
    patch: tuple[int, int, int]
    channel_labels: tuple[int, ...]
    head: str = "softmax"
    overlap: float = 0.5
    mirror_axes: tuple[int, ...] = ()
    dims: int = 3
    empty_below: float | None = None
    keep_largest_component: tuple[tuple[int, ...], ...] = ()
    models: tuple[str, ...] = ("models/model.onnx",)
    provenance: Mapping[str, Any] = field(default_factory=dict)

    def to_dict(self) -> dict:
        """Plain dictionaries, lists and numbers, ready for JSON."""
        data = asdict(self)
        if not self.keep_largest_component:
            del data["keep_largest_component"]  # which older versions do not know
        return data

    @staticmethod
    def from_dict(data: Mapping, source: str = "the package") -> ModelSpec:
        """Read and check; raises PackageError naming the field that is missing or wrong."""
        try:
            return ModelSpec._from_dict(data, source)
        except (TypeError, AttributeError, ValueError) as error:
            raise PackageError(f"{source}: a field has the wrong type ({error}).") from None

    @staticmethod
    def _from_dict(data: Mapping, source: str) -> ModelSpec:
        data = known_fields(ModelSpec, data, source)
        preprocessing = known_fields(Preprocessing, data.get("preprocessing", {}), source)
        preprocessing["normalization"] = tuple(
            build(Normalization, item, source) for item in preprocessing.get("normalization", ())
        )
        data["preprocessing"] = build(Preprocessing, preprocessing, source)
        data["inputs"] = tuple(build(InputSpec, i, source) for i in data.get("inputs", ()))
        spec = build(ModelSpec, data, source)
        _check(spec, source)
        return spec


def _check(spec: ModelSpec, source: str) -> None:
    def require(condition: bool, message: str) -> None:
        if not condition:
            raise PackageError(f"{source}: {message}.")

    pre = spec.preprocessing
    require(len(spec.inputs) > 0, "no inputs are named")
    require(
        len(pre.normalization) == len(spec.inputs),
        f"{len(spec.inputs)} inputs but {len(pre.normalization)} normalizations",
    )
    for item in pre.normalization:
        require(item.scheme in NORMALIZATION_SCHEMES, f"normalization {item.scheme!r} is unknown")
    require(spec.dims in (2, 3), f"dims {spec.dims!r} is not 2 or 3")
    require(spec.dims == 3 or spec.patch[0] == 1, "a 2D network needs a patch of (1, y, x)")
    require(spec.head in HEADS, f"head {spec.head!r} is unknown")
    require(
        len(spec.patch) == 3 and all(isinstance(n, int) and n > 0 for n in spec.patch),
        f"patch {spec.patch!r} is not three positive sizes",
    )
    require(
        len(pre.spacing) == 3 and all(s is None or s > 0 for s in pre.spacing),
        f"spacing {pre.spacing!r} is not three positive numbers",
    )
    require(sorted(pre.transpose) == [0, 1, 2], f"transpose {pre.transpose!r} is no permutation")
    require(
        pre.orientation is None
        or sorted(pre.orientation.translate(str.maketrans("RAI", "LPS"))) == ["L", "P", "S"],
        f"orientation {pre.orientation!r} is no axis code such as 'LPS'",
    )
    require(0 <= spec.overlap < 1, f"overlap {spec.overlap!r} is not in 0..1")
    for group in spec.keep_largest_component:
        require(
            len(group) > 0 and set(group) <= set(spec.channel_labels) - {0},
            f"keep_largest_component {group!r} is no list of the model's label values",
        )
    require(len(spec.models) > 0, "no model file is named")
    for name in spec.models:
        require_inside(name, source)
    require(len(spec.channel_labels) > 0, "channel_labels is empty")
    require(
        all(isinstance(value, int) and 0 <= value < 2**16 for value in spec.channel_labels),
        f"channel_labels {spec.channel_labels!r} are not all from 0 to 65535",
    )
