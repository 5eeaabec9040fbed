"""Writing the cache: check every volume, split by subject, fingerprint, plan, preprocess, store."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
from tqdm import tqdm

from mim.cache_folder import replacing_cache, require_replaceable, source_of
from mim.cases import Case, Dataset, LeftOut, find_dataset
from mim.data import IGNORED
from mim.exclusions import without_excluded
from mim.held_back_list import with_test_list
from mim.inspection import inspect_cases, read_labels
from mim.nnunet_splits import read_folds
from mim.pictures import fit
from mim.plan_like import PlannedShape, planned_shape
from mim.planning import intensity_summary
from mim.plans import make_plan, plan_preprocessing
from mim.plausibility_ranges import expectations_of
from mim.prepare_options import PrepareOptions
from mim.regions import brats_regions, kept_labels, output_labels, plan_regions
from mim.seen import digests
from mim.unlabeled_tests import unlabeled_test_images_apart, why_not_used
from mim.workers import workers
from MIMSegment.Logic.errors import InputError
from MIMSegment.Logic.files import replacing, write_json, write_text
from MIMSegment.Logic.labels import Label, default_color, labels_from_csv, labels_to_csv
from MIMSegment.Logic.phrases import counted
from MIMSegment.Logic.preprocess import WorkingGrid, normalize, prepare, prepare_labels
from MIMSegment.Logic.volume import Geometry

CACHE_VERSION = 1


def prepare_dataset(scans: str | Path, cache: str | Path, options: PrepareOptions) -> str:
    """Write ``cache`` from ``scans``, whole or not at all; returns the lines to show.

    Raises InputError, OutputError.
    """
    dataset = find_dataset(scans, options.inputs, options.classes_from_folders)
    cache = Path(cache)
    require_replaceable(cache, source_of(scans))
    with replacing_cache(cache) as folder:
        lines = _write(dataset, scans, folder, options)
    return f"{lines}\nWrote {cache}"


def _write(dataset: Dataset, scans: str | Path, cache: Path, options: PrepareOptions) -> str:
    like = _shape_like(options, dataset)
    if options.regions == "brats" and dataset.labels:
        dataset = replace(dataset, regions=brats_regions(dataset.labels))
    cases, test_images = unlabeled_test_images_apart(dataset.cases, options.pretrain_on_test_images)
    if options.test_list:
        cases = with_test_list(cases, Path(options.test_list), test_images)
    folds = read_folds(options.splits, cases, test_images) if options.splits else []
    cases, test_images, missing = without_excluded(
        options.exclude, cases, [*map(why_not_used, test_images)], dataset.left_out
    )
    with workers(options.jobs) as pool:
        prints, excluded = inspect_cases(pool, cases, dataset, options.crop_nonzero)
        excluded = [*map(LeftOut.to_dict, missing), *excluded]
        usable = [c for c in cases if c.id in prints]
        if not usable:
            raise InputError(f"No usable volume in {scans}:\n" + _listing(excluded))
        if options.test_list and not any(c.split == "test" for c in usable):
            raise InputError(
                f"Nothing that {options.test_list} names is usable:\n" + _listing(excluded)
            )
        split = split_subjects(usable, 0.0 if folds else options.held_back, options.seed)
        split |= {"folds": [fold.to_dict(split["train"]) for fold in folds]} if folds else {}
        if not split["train"]:
            raise InputError(f"All subjects of {scans} are held back: nobody is left to train on.")
        training = [prints[c.id] for c in usable if c.subject in set(split["train"])]
        fingerprint = make_fingerprint(training)
        dataset = _with_labels_named(dataset, prints.values())
        plan = make_plan(dataset, fingerprint, options, like)
        structures = labels_to_csv(label_table(dataset, plan))
        (cache / "images").mkdir()
        (cache / "labels").mkdir()
        store = partial(_store, cache=cache, plan=plan)
        stored = pool.map(store, usable, chunksize=1 + len(usable) // 1000)
        entries = list(tqdm(stored, "store", len(usable), unit="case"))
    write_json(cache / "fingerprint.json", fingerprint)
    write_json(cache / "plan.json", plan)
    write_json(cache / "split.json", split)
    write_text(cache / "labels.csv", structures)
    write_json(
        cache / "cases.json",
        {
            "version": CACHE_VERSION,
            "source": source_of(scans),
            "cases": entries,
            "excluded": [*excluded, *map(LeftOut.to_dict, test_images)],
        },
    )
    summary = _summary(entries, split, plan, excluded, len(test_images), options)
    return "\n".join([summary, *_without_own_test_part(dataset, usable, split)])


def _shape_like(options: PrepareOptions, dataset: Dataset) -> PlannedShape | None:
    """What ``options.like`` says, where it goes with the data set and the other options."""
    if not options.like:
        return None
    like = planned_shape(options.like)
    if like.dims != (2 if dataset.pictures else 3):
        here, there = ("pictures", "volumes") if dataset.pictures else ("volumes", "pictures")
        raise InputError(
            f"{options.like} is of {there}, {dataset.name} of {here}; --like takes a checkpoint or "
            f"cache of {here}."
        )
    chosen = [
        f"--{name.replace('_', '-')}"
        for name in ("spacing", "patch_voxels", "stages", "picture_size")
        if getattr(options, name) != getattr(PrepareOptions, name)
    ]
    if chosen:
        raise InputError(
            f"--like takes voxel size, crop and stages from {options.like}; leave out "
            f"{' and '.join(chosen)}, or --like."
        )
    return like


def split_subjects(cases: Sequence[Case], held_back: float, seed: int) -> dict[str, list[str]]:
    """Subjects for training and held back for evaluation; only labelled ones are held back.

    Where the data set itself says which cases are for testing, so it is. Otherwise a share of the
    subjects is drawn; of each class alike where cases have one. Raises InputError for a subject
    that a data set has on both sides.
    """
    subjects = sorted({c.subject for c in cases})
    if any(c.split == "test" for c in cases):
        held = {c.subject for c in cases if c.split == "test"}
        both = sorted(held & {c.subject for c in cases if c.split != "test"})
        if both:
            raise InputError(
                f"Subject {both[0]} is in training and test at once ({len(both)} such subjects); "
                "mend the split, or leave it out so that one is drawn by subject."
            )
        return {"train": [s for s in subjects if s not in held], "held_back": sorted(held)}
    held = []
    for labelled in _strata(cases):
        random.Random(seed).shuffle(labelled)
        count = round(held_back * len(labelled)) if len(labelled) > 1 else 0
        count = max(count, 1) if held_back > 0 and len(labelled) > 1 else count
        held += labelled[:count]
    return {"train": [s for s in subjects if s not in set(held)], "held_back": sorted(held)}


def _strata(cases: Sequence[Case]) -> list[list[str]]:
    """The labelled subjects, sorted, in a list for each class of the first of their cases."""
    strata: dict[str, list[str]] = {}
    seen: set[str] = set()
    for case in sorted(cases, key=lambda c: (c.subject, c.id)):
        if case.is_labeled and case.subject not in seen:
            seen.add(case.subject)
            strata.setdefault(str(case.target), []).append(case.subject)
    common = {key: found for key, found in strata.items() if len(found) > 4}
    rare = sorted(s for key, found in strata.items() if key not in common for s in found)
    return [*(common[key] for key in sorted(common)), *([rare] if rare else [])]


def make_fingerprint(prints: list[dict]) -> dict:
    """Spacings, shapes, intensities, class sizes and the ranges for plausibility checks, of the
    training subjects' volumes."""
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
        "plausibility": expectations_of([p["measures"] for p in prints]).to_dict(),
    }


def _with_labels_named(dataset: Dataset, prints) -> Dataset:
    """Where the data set names no label, every value that occurs is "label N"."""
    if dataset.labels:
        return dataset
    found = sorted({int(v) for p in prints for v in p["classes"]} - {0})
    return replace(dataset, labels={v: f"label {v}" for v in found})


def label_table(dataset: Dataset, plan: dict) -> list[Label]:
    """The structures of a result: with codes and colors where the data set's labels.csv has the
    very label, else by name."""
    known = {label.value: label for label in _label_table(dataset)}
    regions = plan_regions(plan)
    if not regions:
        return list(known.values())
    table = []
    for region, kept in zip(regions, kept_labels(regions), strict=True):
        name = output_labels(plan)[region.value]
        if len(kept) == 1 and dataset.labels.get(kept[0]) == name and kept[0] in known:
            table.append(replace(known[kept[0]], value=region.value))
        else:
            table.append(Label(region.value, name, color=default_color(region.value)))
    return table


def _label_table(dataset: Dataset) -> list[Label]:
    if dataset.labels_csv is not None:
        path = dataset.labels_csv
        return labels_from_csv(path.read_text(encoding="utf-8"), str(path))
    return [Label(v, n, color=default_color(v)) for v, n in sorted(dataset.labels.items())]


def _store(case: Case, cache: Path, plan: dict) -> dict:
    volume, preprocessing = case.read(), plan_preprocessing(plan)
    label = None
    if plan["dims"] == 2:
        array = picture_to_grid(volume.array, plan)
    else:
        array, grid = prepare(volume, preprocessing)
        if case.label is not None:
            label = _channels(case, volume.geometry, grid, plan)
    entry = {
        "id": case.id,
        "subject": case.subject,
        "image": f"images/{case.id}.npy",
        "label": None,
        "target": case.target,
        "structures": None if label is None else _structures(label),
        "shape": list(array.shape),
        "digests": digests(volume.array),
        "source": case.sources if len(case.images) > 1 else case.sources[0],
        "source_label": None,
    }
    _write_array(cache / entry["image"], _halved(array, case))
    if label is not None:
        entry |= {"label": f"labels/{case.id}.npy", "source_label": str(case.label.resolve())}
        _write_array(cache / entry["label"], label)
    return entry


def _halved(array: np.ndarray, case: Case) -> np.ndarray:
    """The array as float16; raises InputError where a value is beyond that."""
    largest = np.finfo(np.float16).max
    if np.abs(array).max() > largest:
        raise InputError(
            f"{case.image}: normalized values reach {np.abs(array).max():.0f}, a cache holds up to "
            f"{largest:.0f}; choose another --normalization."
        )
    return array.astype(np.float16)


def _channels(case: Case, geometry: Geometry, grid: WorkingGrid, plan: dict) -> np.ndarray:
    """The label on the network's grid: its channels, or `IGNORED`."""
    values, ignore = [0, *(item["value"] for item in plan["labels"])], plan["ignore"]
    labels = read_labels(case, geometry, frozenset(values), ignore)
    found = prepare_labels(labels, grid)
    channels = np.searchsorted(values, found).astype(np.uint8)
    return channels if ignore is None else np.where(found == ignore, np.uint8(IGNORED), channels)


def _structures(label: np.ndarray) -> list[int]:
    return np.unique(label[(label > 0) & (label != IGNORED)]).tolist()


def picture_to_grid(array: np.ndarray, plan: dict) -> np.ndarray:
    """A picture (c, 1, y, x) scaled to the plan's patch and normalized."""
    scaled = fit(array, plan["patch"][-1])
    schemes = plan_preprocessing(plan).normalization
    return np.stack([normalize(c, n) for c, n in zip(scaled, schemes, strict=True)])


def _write_array(path: Path, array: np.ndarray) -> None:
    with replacing(path) as temporary:
        np.save(temporary, array)


def _listing(excluded: list[dict]) -> str:
    return "\n".join(f"  left out: {item['reason']}" for item in excluded)


def _summary(entries, split, plan, excluded, test_images: int, options: PrepareOptions) -> str:
    labelled = sum(e["label"] is not None or e["target"] is not None for e in entries)
    lines = [_listing(excluded)] if excluded else []
    lines.append(
        f"{len(entries)} volumes ({labelled} labelled), {len(split['train'])} subjects to train "
        f"on, {len(split['held_back'])} held back, {len(excluded)} volumes left out."
    )
    if test_images:
        lines.append(
            f"Test images without labels, not used: {test_images} (--pretrain-on-test-images "
            "pre-trains on them)."
        )
    lines += _shared_subjects(entries)
    lines.append(
        f"Working spacing {plan['preprocessing']['spacing']} mm, patch {tuple(plan['patch'])} "
        "voxels (z, y, x)."
        if plan["dims"] == 3
        else f"Pictures of {plan['patch'][1]} x {plan['patch'][2]} pixels."
    )
    idle = sum(max(stride) == 1 for stride in plan["strides"][1:])
    if idle and not options.like:
        lines.append(
            f"{idle} of {len(plan['strides'])} stages make nothing smaller, as the crop cannot be "
            f"halved more often: --stages {len(plan['strides']) - idle} is enough."
        )
    if options.like:
        lines[-1] = f"{lines[-1].removesuffix('.')}, and a network as in {options.like}."
    if plan["classes"]:
        counts = class_counts(entries, len(plan["classes"]))
        pairs = zip(plan["classes"], counts, strict=True)
        lines.append("Classes: " + ", ".join(f"{name} {count}" for name, count in pairs) + ".")
    return "\n".join(lines)


def _without_own_test_part(
    dataset: Dataset, usable: Sequence[Case], split: dict[str, list[str]]
) -> list[str]:
    """A line where the data set says who is for training, and no usable case is for testing."""
    if any(c.split == "test" for c in usable) or all(c.split != "train" for c in dataset.cases):
        return []
    held = "nobody"
    if split["held_back"]:
        held = (
            f"{counted(len(split['held_back']), 'subject')} drawn at random from all labelled ones "
            "(--held-back 0 draws none)"
        )
    return [f"The data set's own split has no usable test part; held back: {held}."]


def _shared_subjects(entries: Sequence[dict]) -> list[str]:
    """A line on the subjects with several volumes: a folder may have been taken for a patient."""
    volumes = Counter(entry["subject"] for entry in entries)
    several = [f"{name}: {count}" for name, count in volumes.most_common() if count > 1]
    if not several:
        return []
    names = ", ".join(several[:3]) + (", ..." if len(several) > 3 else "")
    who = "subject has" if len(several) == 1 else "subjects have"
    return [
        f"{len(several)} {who} several volumes, never on both sides of the split ({names}). "
        "Where such a subject is no patient, name the subjects in a table with the column group."
    ]


def class_counts(entries: Sequence[dict], classes: int) -> list[int]:
    """How many cases have each class."""
    counts = [0] * classes
    for entry in entries:
        target = entry["target"]
        found = [target] if isinstance(target, int) else np.flatnonzero(target or [])
        for index in found:
            counts[index] += 1
    return counts
