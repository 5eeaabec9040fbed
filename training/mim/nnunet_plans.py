"""Reading what nnU-Net v2 planned: plans.json and dataset.json of a trained-model folder.

Formats as nnU-Net 2.8.1 reads them (Apache-2.0, github.com/MIC-DKFZ/nnUNet), the older layout with
``UNet_class_name`` included. What MIM Segment would compute differently is refused, never guessed.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mim.regions import Region, outside_names
from MIMSegment.Logic.errors import MIMSegmentError
from MIMSegment.Logic.labels import Label, default_color
from MIMSegment.Logic.matching import InputSpec
from MIMSegment.Logic.sequences import sequence_of
from MIMSegment.Logic.spec import Normalization, Preprocessing

# Axes of the array: as in the file, or brought to increasing right, anterior, superior.
_READERS = {
    "SimpleITKIO": None,
    "NibabelIO": None,
    "SimpleITKIOWithReorient": "RAS",
    "NibabelIOWithReorient": "RAS",
}
_RESAMPLING = "resample_data_or_seg_to_shape"
_ANISOTROPY = 3.0  # nnU-Net's ANISO_THRESHOLD
_NEVER_ANISOTROPIC = 1e6
_MODALITIES = (
    ("CT", r"ct\b|\bcta|\bhu\b|tomography"),
    ("PT", r"\bpe?t\b|\bsuv"),
    ("US", r"\bus\b|ultraso"),
)


class NnunetError(MIMSegmentError):
    """A model of nnU-Net that is incomplete, damaged, or cannot be converted."""


@dataclass(frozen=True)
class Head:
    """How output channels become labels; the fields of the same names of ``ModelSpec``."""

    kind: str
    channel_labels: tuple[int, ...]
    labels: tuple[Label, ...]


@dataclass(frozen=True)
class Plans:
    """plans.json and dataset.json of the model in ``folder``."""

    folder: Path
    plans: Mapping[str, Any]
    dataset: Mapping[str, Any]

    @property
    def dataset_name(self) -> str:
        return str(self.plans.get("dataset_name") or self.dataset.get("name") or self.folder.name)

    def configuration(self, name: str) -> dict:
        """The configuration ``name`` with what it inherits. Raises NnunetError."""
        configurations = _entry(self.plans, "configurations", self.folder / "plans.json")
        merged: dict = {}
        seen: list[str] = []
        while name is not None:
            if name not in configurations or name in seen:
                raise NnunetError(
                    f"{self.folder / 'plans.json'} has no usable configuration {name!r}, only "
                    f"{', '.join(configurations)}; use the plans.json that the model was trained "
                    "with."
                )
            seen.append(name)
            merged = {**configurations[name], **merged}
            name = configurations[name].get("inherits_from")
        if merged.get("previous_stage"):
            raise NnunetError(
                f"{self.folder.name} is the second stage of a cascade (its input includes the "
                f"labels of {merged['previous_stage']}), which MIM Segment cannot run; export a "
                "3d_fullres, 3d_lowres or 2d model instead."
            )
        return merged


def read_plans(folder: str | Path) -> Plans:
    """Read the two files of a trained-model folder. Raises NnunetError."""
    folder = Path(folder)
    if not folder.is_dir():
        raise NnunetError(
            f"{folder} is no folder; give nnU-Net's trained-model folder, the one that is named "
            "TRAINER__PLANS__CONFIGURATION and holds plans.json."
        )
    return Plans(folder, _read_json(folder / "plans.json"), _read_json(folder / "dataset.json"))


def channel_names(plans: Plans) -> list[str]:
    """Names of the input channels in order; equal names get numbers."""
    table = plans.dataset.get("channel_names") or plans.dataset.get("modality")
    if not isinstance(table, Mapping) or not table:
        raise NnunetError(f"{plans.folder / 'dataset.json'} names no input channels.")
    names = [str(table[key]) for key in sorted(table, key=int)]
    return [
        name if names.count(name) == 1 else f"{name} {index + 1}"
        for index, name in enumerate(names)
    ]


def read_inputs(plans: Plans, configuration: Mapping) -> tuple[InputSpec, ...]:
    """One input for each channel; the modality follows from its name and normalization."""
    schemes = _entry(configuration, "normalization_schemes", plans.folder / "plans.json")
    names = channel_names(plans)
    _require_equal_length(plans, names, schemes)
    return tuple(
        InputSpec(name, "CT" if scheme == "CTNormalization" else _modality(name))
        for name, scheme in zip(names, schemes, strict=True)
    )


def read_patch(plans: Plans, configuration: Mapping) -> tuple[int, ...]:
    """The network's input size: three numbers, or two of a 2D configuration."""
    source = plans.folder / "plans.json"
    patch = tuple(int(size) for size in _entry(configuration, "patch_size", source))
    if len(patch) not in (2, 3):
        raise NnunetError(f"{source}: patch_size {patch} is neither of a 2D nor a 3D network.")
    return patch


def read_preprocessing(plans: Plans, configuration: Mapping) -> Preprocessing:
    """nnU-Net's preprocessing in our terms. Raises NnunetError for what has no equal here."""
    source = plans.folder / "plans.json"
    _require_known(source, "preprocessor", configuration.get("preprocessor_name"),
                   ("DefaultPreprocessor",))  # fmt: skip
    reader = plans.plans.get("image_reader_writer")
    _require_known(source, "image reader", reader, _READERS)
    images = _resampling(configuration, "resampling_fn_data", source)
    outputs = _resampling(configuration, "resampling_fn_probabilities", source)
    if images["anisotropy"] != outputs["anisotropy"]:
        raise NnunetError(
            f"{source}: images and probabilities have different rules for anisotropic voxels, "
            "which MIM Segment does not support."
        )
    spacing = [float(s) for s in _entry(configuration, "spacing", source)]
    return Preprocessing(
        spacing=(*[None] * (3 - len(spacing)), *spacing),
        normalization=_normalizations(plans, configuration),
        orientation=_READERS[reader],
        transpose=tuple(plans.plans.get("transpose_forward", (0, 1, 2))),
        crop_to_nonzero=True,
        image_order=images["order"],
        image_order_z=images["order_z"],
        output_order=outputs["order"],
        output_order_z=outputs["order_z"],
        anisotropy=images["anisotropy"],
    )


def read_head(plans: Plans) -> Head:
    """Labels or regions. Raises NnunetError when they are no output of nnU-Net's."""
    source = plans.folder / "dataset.json"
    _require_known(plans.folder / "plans.json", "label manager",
                   plans.plans.get("label_manager", "LabelManager"), ("LabelManager",))  # fmt: skip
    table = {
        name: [int(v) for v in (value if isinstance(value, list) else [value])]
        for name, value in _entry(plans.dataset, "labels", source).items()
        if name != "ignore"  # not an output: what annotators left open
    }
    foreground = {name: set(values) for name, values in table.items() if set(values) != {0}}
    if any(len(values) > 1 for values in table.values()):
        return _regions(plans, foreground)
    values = sorted({value for group in table.values() for value in group})
    if values != list(range(len(values))):
        raise NnunetError(
            f"{source}: the labels {values} are not consecutive from 0, so the channels of the "
            "network cannot be told apart."
        )
    labels = [(next(iter(group)), name) for name, group in foreground.items()]
    return Head("softmax", tuple(values), _labels(sorted(labels)))


def _regions(plans: Plans, regions: Mapping[str, set[int]]) -> Head:
    """A region's value is painted first and keeps what no later region covers: named so."""
    order = plans.dataset.get("regions_class_order")
    if order is None or len(order) != len(regions):
        raise NnunetError(
            f"{plans.folder / 'dataset.json'}: regions_class_order must name one label value for "
            f"each of the {len(regions)} regions."
        )
    if len(set(order)) != len(order):
        raise NnunetError(
            f"{plans.folder / 'dataset.json'}: regions_class_order {order} repeats a value."
        )
    values = tuple(int(value) for value in order)
    painted = [
        Region(name, tuple(members), value)
        for (name, members), value in zip(regions.items(), values, strict=True)
    ]
    names = outside_names(painted)
    return Head("regions", values, _labels(list(zip(values, names, strict=True))))


def _labels(pairs: list[tuple[int, str]]) -> tuple[Label, ...]:
    return tuple(Label(value, name, color=default_color(value)) for value, name in pairs)


def _normalizations(plans: Plans, configuration: Mapping) -> tuple[Normalization, ...]:
    source = plans.folder / "plans.json"
    schemes = _entry(configuration, "normalization_schemes", source)
    masks = configuration.get("use_mask_for_norm", [False] * len(schemes))
    _require_equal_length(plans, schemes, masks)
    return tuple(
        _normalization(plans, index, scheme, bool(mask))
        for index, (scheme, mask) in enumerate(zip(schemes, masks, strict=True))
    )


def _normalization(plans: Plans, channel: int, scheme: str, masked: bool) -> Normalization:
    plain = {
        "NoNormalization": "none",
        "RescaleTo01Normalization": "rescale_to_01",
        "RGBTo01Normalization": "rgb_to_01",
    }
    source = plans.folder / "plans.json"
    known = ("ZScoreNormalization", "CTNormalization", *plain)
    _require_known(source, "normalization", scheme, known)
    if scheme == "ZScoreNormalization":
        return Normalization("zscore", nonzero=masked)
    if scheme in plain:
        return Normalization(plain[scheme])
    older, newer = (
        f"foreground_intensity_properties_{kind}" for kind in ("by_modality", "per_channel")
    )
    key = newer if newer in plans.plans else older
    values = _entry(_entry(plans.plans, key, source), str(channel), source)
    return Normalization(
        "ct",
        mean=float(_entry(values, "mean", source)),
        std=float(_entry(values, "std", source)),
        lower=float(_entry(values, "percentile_00_5", source)),
        upper=float(_entry(values, "percentile_99_5", source)),
    )


def _resampling(configuration: Mapping, key: str, source: Path) -> dict:
    """Spline orders and anisotropy threshold of one of nnU-Net's resampling functions."""
    _require_known(source, "resampling function", configuration.get(key), (_RESAMPLING,))
    options = dict(_entry(configuration, f"{key}_kwargs", source))
    separate = options.get("force_separate_z")
    rule = {
        "order": options.get("order", 3),
        "order_z": options.get("order_z", 0),
        "anisotropy": float(options.get("separate_z_anisotropy_threshold", _ANISOTROPY)),
    }
    if separate is False:
        rule["anisotropy"] = _NEVER_ANISOTROPIC
    if separate is True or not {rule["order"], rule["order_z"]} <= {0, 1, 3}:
        raise NnunetError(
            f"{source}: {key}_kwargs {options} asks for a resampling that MIM Segment does not "
            "have (orders 0, 1 and 3; the coarse axis apart only where voxels are anisotropic)."
        )
    return rule


def _modality(name: str) -> str:
    """DICOM modality for a channel's name; most z-scored images are MR."""
    if sequence_of(name) == "PET":
        return "PT"
    words = re.sub(r"[^a-z0-9]+", " ", name.lower())
    return next(
        (modality for modality, words_of in _MODALITIES if re.search(words_of, words)), "MR"
    )


def _require_known(source: Path, what: str, name: Any, known) -> None:
    if name not in known:
        raise NnunetError(
            f"{source}: the {what} {name!r} has no equal in MIM Segment, which knows "
            f"{', '.join(known)}; this model cannot be converted."
        )


def _require_equal_length(plans: Plans, first: list, second: list) -> None:
    if len(first) != len(second):
        raise NnunetError(
            f"{plans.folder}: plans.json and dataset.json do not belong together: {len(first)} "
            f"channels in one, {len(second)} in the other."
        )


def _entry(table: Any, key: str, source: Path) -> Any:
    if not isinstance(table, Mapping) or table.get(key) is None:
        raise NnunetError(
            f"{source} has no {key!r}; it is damaged, or of another program than nnU-Net v2."
        )
    return table[key]


def _read_json(path: Path) -> dict:
    if not path.is_file():
        raise NnunetError(
            f"{path} is missing; give nnU-Net's trained-model folder, which holds plans.json, "
            "dataset.json and fold_*/checkpoint_final.pth."
        )
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise NnunetError(f"{path} cannot be read as JSON ({error}); copy it again.") from None
    if not isinstance(content, dict):
        raise NnunetError(f"{path} holds no table; copy it again.")
    return content
