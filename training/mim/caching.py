"""Writing the cache: check every volume, split by subject, fingerprint, plan, preprocess, store."""

from __future__ import annotations

import json
import os
import random
import shutil
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path

import numpy as np
from tqdm import tqdm

from mim.cases import Case, Dataset, find_dataset
from mim.planning import (
    intensity_summary,
    kernel_sizes,
    make_preprocessing,
    modality_of,
    patch_and_strides,
    working_spacing,
)
from MIMSegment.Logic.errors import InputError
from MIMSegment.Logic.files import replacing
from MIMSegment.Logic.labels import Label, default_color, labels_from_csv, labels_to_csv
from MIMSegment.Logic.preprocess import prepare, prepare_labels
from MIMSegment.Logic.spec import Normalization, Preprocessing
from MIMSegment.Logic.volume import read_volume

CACHE_VERSION = 1
SAMPLES_PER_CASE = 10_000


@dataclass(frozen=True)
class PrepareOptions:
    """What `prepare.py` lets one choose; ``spacing`` is (z, y, x) in mm."""

    modality: str | None = None
    spacing: tuple[float, float, float] | None = None
    patch_voxels: int = 100_000
    stages: int = 4
    held_back: float = 0.2
    exclude: tuple[str, ...] = field(default_factory=tuple)
    seed: int = 0
    jobs: int = 0


def prepare_dataset(scans: str | Path, cache: str | Path, options: PrepareOptions) -> str:
    """Write ``cache`` from ``scans``; returns the lines to show. Raises InputError."""
    dataset, cache = find_dataset(scans), Path(cache)
    if cache.exists() and any(cache.iterdir()) and not (cache / "cases.json").is_file():
        raise InputError(f"{cache} is not empty and not a cache; choose another folder.")
    cases = [c for c in dataset.cases if c.subject not in set(options.exclude)]
    jobs = options.jobs or os.cpu_count() or 1
    with ProcessPoolExecutor(jobs) as pool:
        prints, excluded = _inspect(pool, cases, dataset)
        usable = [c for c in cases if c.id in prints]
        if not usable:
            raise InputError(f"No usable volume in {scans}:\n" + _listing(excluded))
        split = split_subjects(usable, options.held_back, options.seed)
        training = [prints[c.id] for c in usable if c.subject in set(split["train"])]
        fingerprint = make_fingerprint(training)
        dataset = _with_labels_named(dataset, prints.values())
        plan = make_plan(dataset, fingerprint, options)
        shutil.rmtree(cache, ignore_errors=True)
        (cache / "images").mkdir(parents=True)
        (cache / "labels").mkdir()
        values = [0, *(item["value"] for item in plan["labels"])]
        store = partial(_store, cache=cache, plan=plan["preprocessing"], values=values)
        entries = list(tqdm(pool.map(store, usable), "store", len(usable)))
    _write_json(cache / "fingerprint.json", fingerprint)
    _write_json(cache / "plan.json", plan)
    _write_json(cache / "split.json", split)
    (cache / "labels.csv").write_text(labels_to_csv(label_table(dataset)), encoding="utf-8")
    _write_json(
        cache / "cases.json",
        {
            "version": CACHE_VERSION,
            "source": str(Path(scans).resolve()),
            "cases": entries,
            "excluded": excluded,
        },
    )
    return _summary(cache, entries, split, plan, excluded)


def split_subjects(cases: list[Case], held_back: float, seed: int) -> dict[str, list[str]]:
    """Subjects for training and held back for evaluation; only labelled ones are held back."""
    subjects = sorted({c.subject for c in cases})
    labelled = sorted({c.subject for c in cases if c.label is not None})
    random.Random(seed).shuffle(labelled)
    count = round(held_back * len(labelled)) if len(labelled) > 1 else 0
    count = max(count, 1) if held_back > 0 and len(labelled) > 1 else count
    held = sorted(labelled[:count])
    return {"train": [s for s in subjects if s not in set(held)], "held_back": held}


def make_fingerprint(prints: list[dict]) -> dict:
    """Spacings, shapes, intensities and class sizes of the training subjects' volumes."""
    channels = len(prints[0]["samples"])
    samples = [np.concatenate([p["samples"][c] for p in prints]) for c in range(channels)]
    classes: dict[str, int] = {}
    for p in prints:
        for value, count in p["classes"].items():
            classes[value] = classes.get(value, 0) + count
    return {
        "cases": len(prints),
        "spacings": [p["spacing"] for p in prints],
        "shapes": [p["shape"] for p in prints],
        "intensities": [intensity_summary(s) for s in samples],
        "class_voxels": dict(sorted(classes.items(), key=lambda item: int(item[0]))),
    }


def make_plan(dataset: Dataset, fingerprint: dict, options: PrepareOptions) -> dict:
    """Inputs, labels, preprocessing, patch and network shape: everything later steps share."""
    channels = len(fingerprint["intensities"])
    names = dataset.inputs or tuple(
        options.modality or "image" if channels == 1 else f"channel{c}" for c in range(channels)
    )
    if len(names) != channels:
        raise InputError(
            f"{dataset.name}: dataset.json names {len(names)} modalities, the images have "
            f"{channels} channels."
        )
    modalities = [options.modality or modality_of(name) for name in names]
    spacing = tuple(options.spacing or working_spacing(fingerprint["spacings"]))
    scale = np.asarray(fingerprint["spacings"]) / np.asarray(spacing)
    shape = np.median(np.asarray(fingerprint["shapes"]) * scale, axis=0)
    patch, strides = patch_and_strides(shape, spacing, options.patch_voxels, options.stages)
    preprocessing = make_preprocessing(modalities, spacing, fingerprint["intensities"])
    return {
        "name": dataset.name,
        "inputs": [{"name": n, "modality": m} for n, m in zip(names, modalities, strict=True)],
        "labels": [{"value": v, "name": n} for v, n in sorted(dataset.labels.items())],
        "preprocessing": asdict(preprocessing),
        "patch": patch,
        "strides": strides,
        "kernel_sizes": kernel_sizes(strides, spacing),
        "median_shape": [round(float(n), 1) for n in shape],
    }


def _with_labels_named(dataset: Dataset, prints) -> Dataset:
    """Where the data set names no label, every value that occurs is "label N"."""
    if dataset.labels:
        return dataset
    found = sorted({int(v) for p in prints for v in p["classes"]} - {0})
    return replace(dataset, labels={v: f"label {v}" for v in found})


def label_table(dataset: Dataset) -> list[Label]:
    """The structures with codes and colors where the data set has a labels.csv, names otherwise."""
    if dataset.labels_csv is not None:
        path = dataset.labels_csv
        return labels_from_csv(path.read_text(encoding="utf-8"), str(path))
    return [Label(v, n, color=default_color(v)) for v, n in sorted(dataset.labels.items())]


def _inspect(pool, cases: list[Case], dataset: Dataset) -> tuple[dict[str, dict], list[dict]]:
    values = frozenset(dataset.labels)
    check = partial(_fingerprint_or_reason, values=values, channels=len(dataset.inputs))
    prints, excluded = {}, []
    for case, result in zip(cases, tqdm(pool.map(check, cases), "check", len(cases)), strict=True):
        if isinstance(result, str):
            excluded.append({"id": case.id, "reason": result})
        else:
            prints[case.id] = result
    return prints, excluded


def _fingerprint_or_reason(case: Case, values: frozenset[int], channels: int) -> dict | str:
    try:
        return inspect_case(case, values, channels)
    except InputError as error:
        return str(error)


def inspect_case(case: Case, values: frozenset[int], channels: int = 0) -> dict:
    """The fingerprint of one case. Raises InputError, naming the file, when it must not be used."""
    if not case.subject:
        raise InputError(
            f"{case.image}: dataset.json lists subjects but not whose this is, so it could be of "
            "a subject that is held back."
        )
    volume = read_volume(case.image)
    if channels and len(volume.array) != channels:
        raise InputError(f"{case.image} has {len(volume.array)} channels instead of {channels}.")
    for index, channel in enumerate(volume.array):
        if channel.min() == channel.max():
            where = f"channel {index} of " if len(volume.array) > 1 else ""
            raise InputError(f"{where}{case.image} is constant ({channel.min()} everywhere).")
    mask, classes = None, {}
    if case.label is not None:
        labels = read_labels(case, volume.geometry, values)
        found, counts = np.unique(labels, return_counts=True)
        classes = {str(int(v)): int(n) for v, n in zip(found, counts, strict=True)}
        mask = labels > 0
    inside = mask if mask is not None and mask.any() else np.ones(volume.geometry.shape, bool)
    rng = np.random.default_rng(0)
    samples = [rng.choice(c[inside], SAMPLES_PER_CASE).astype(np.float32) for c in volume.array]
    oriented = volume.reoriented("LPS").geometry
    return {
        "spacing": oriented.spacing,
        "shape": oriented.shape,
        "classes": classes,
        "samples": samples,
    }


def read_labels(case: Case, geometry, values: frozenset[int]) -> np.ndarray:
    """Label array (z, y, x) uint8 of a case; InputError when it does not fit image or table."""
    label = read_volume(case.label)
    if not label.geometry.is_close(geometry):
        raise InputError(
            f"{case.label} is not on the grid of {case.image}: shape {label.geometry.shape} "
            f"spacing {_rounded(label.geometry.spacing)} origin {_rounded(label.geometry.origin)} "
            f"against {geometry.shape} {_rounded(geometry.spacing)} {_rounded(geometry.origin)}."
        )
    array = label.array[0]
    if len(label.array) != 1 or not np.array_equal(array, np.round(array)):
        raise InputError(f"{case.label} is no label image: it has channels or fractions.")
    found = {int(v) for v in np.unique(array)}
    unknown = sorted(found - set(values) - {0}) if values else []
    if unknown or min(found) < 0 or max(found) > 255:
        raise InputError(f"{case.label} has values that no label is named for: {unknown or found}.")
    return array.astype(np.uint8)


def _store(case: Case, cache: Path, plan: dict, values: list[int]) -> dict:
    preprocessing = Preprocessing(**{**plan, "normalization": _normalizations(plan)})
    volume = read_volume(case.image)
    array, grid = prepare(volume, preprocessing)
    entry = {
        "id": case.id,
        "subject": case.subject,
        "image": f"images/{case.id}.npy",
        "label": None,
        "shape": list(array.shape),
        "source": str(case.image.resolve()),
        "source_label": None,
    }
    _write_array(cache / entry["image"], array.astype(np.float16))
    if case.label is not None:
        labels = prepare_labels(read_labels(case, volume.geometry, frozenset(values)), grid)
        labels = np.searchsorted(values, labels).astype(np.uint8)  # the network's channel
        entry |= {"label": f"labels/{case.id}.npy", "source_label": str(case.label.resolve())}
        _write_array(cache / entry["label"], labels)
    return entry


def _normalizations(plan: dict):
    return tuple(Normalization(**n) for n in plan["normalization"])


def _write_array(path: Path, array: np.ndarray) -> None:
    with replacing(path) as temporary:
        np.save(temporary, array)


def _write_json(path: Path, data: dict) -> None:
    with replacing(path) as temporary:
        temporary.write_text(json.dumps(data, indent=1) + "\n", encoding="utf-8")


def _rounded(values) -> tuple[float, ...]:
    return tuple(round(float(v), 3) for v in values)


def _listing(excluded: list[dict]) -> str:
    return "\n".join(f"  left out: {item['reason']}" for item in excluded)


def _summary(cache: Path, entries, split, plan, excluded) -> str:
    labelled = sum(e["label"] is not None for e in entries)
    lines = [_listing(excluded)] if excluded else []
    lines.append(
        f"{len(entries)} volumes ({labelled} labelled), {len(split['train'])} subjects to train "
        f"on, {len(split['held_back'])} held back, {len(excluded)} volumes left out."
    )
    lines.append(
        f"Working spacing {plan['preprocessing']['spacing']} mm, patch {tuple(plan['patch'])} "
        "voxels (z, y, x)."
    )
    lines.append(f"Wrote {cache}")
    return "\n".join(lines)
