"""Public data sets as folders that `prepare.py` reads: names, SNOMED codes, one label image a case.

Images are not copied, the folder names where they lie. What a data set's label values mean is from
its own description.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from tqdm import tqdm

from mim.phantom_labels import alteration, anatomy
from MIMSegment.Logic.errors import GeometryError, InputError
from MIMSegment.Logic.files import make_folder, write_json, write_text
from MIMSegment.Logic.labels import Label, labels_to_csv
from MIMSegment.Logic.volume import Volume, read_volume, write_volume

_BRAIN, _PROSTATE = ("12738006", "Brain"), ("41216001", "Prostate")

# The masks of TotalSegmentator's data set by file name, in the order of our label values.
ORGANS = {
    "spleen": anatomy(1, "spleen", "78961009", "Spleen", (157, 108, 162)),
    "kidney_right": anatomy(2, "right kidney", "64033007", "Kidney", (185, 102, 83), "right"),
    "kidney_left": anatomy(3, "left kidney", "64033007", "Kidney", (212, 136, 96), "left"),
    "gallbladder": anatomy(4, "gallbladder", "28231008", "Gallbladder", (139, 150, 98)),
    "esophagus": anatomy(5, "esophagus", "32849002", "Esophagus", (211, 171, 143)),
    "liver": anatomy(6, "liver", "10200004", "Liver", (221, 130, 101)),
    "stomach": anatomy(7, "stomach", "69695003", "Stomach", (216, 132, 205)),
    "aorta": anatomy(8, "aorta", "15825003", "Aorta", (224, 60, 50)),
    "inferior_vena_cava": anatomy(
        9, "inferior vena cava", "64131007", "Inferior vena cava", (0, 151, 206)
    ),
    "pancreas": anatomy(10, "pancreas", "15776009", "Pancreas", (249, 180, 111)),
    "adrenal_gland_right": anatomy(
        11, "right adrenal gland", "23451007", "Adrenal gland", (249, 186, 150), "right"
    ),
    "adrenal_gland_left": anatomy(
        12, "left adrenal gland", "23451007", "Adrenal gland", (219, 156, 110), "left"
    ),
    "duodenum": anatomy(13, "duodenum", "38848004", "Duodenum", (255, 213, 169)),
    "urinary_bladder": anatomy(14, "urinary bladder", "89837001", "Bladder", (222, 154, 132)),
    "prostate": anatomy(15, "prostate", "41216001", "Prostate", (230, 158, 140)),
}
# Task01 of the Medical Segmentation Decathlon; its inputs by the names that the matcher knows.
TUMOR_INPUTS = ("FLAIR", "T1", "T1c", "T2")
TUMOR = (
    alteration(1, "edema", "79654002", "Edema", (140, 224, 128), _BRAIN),
    alteration(2, "necrotic and non-enhancing core", "6574001", "Necrosis", (216, 60, 60), _BRAIN),
    alteration(3, "enhancing tumor", "108369006", "Neoplasm", (250, 210, 60), _BRAIN),
)
# Prostate158: 1 is the central gland (transition and central zone) there, 2 the peripheral zone.
ZONES = {2: 1, 1: 2}
_ZONES_FILE = "t2_anatomy_reader1.nii.gz"
PROSTATE_INPUTS = {"T2w": "t2", "ADC": "adc", "DWI": "dwi"}
PROSTATE = (
    anatomy(1, "peripheral zone", "279706003", "Peripheral zone of the prostate", (230, 158, 140)),
    anatomy(2, "central gland", "399384005", "Transition zone of the prostate", (102, 172, 198)),
    alteration(3, "lesion", "52988006", "Lesion", (240, 70, 60), _PROSTATE),
)


def organs_ct(source: Path, out: Path) -> int:
    """TotalSegmentator's CT data set (v2, folders s0000/ct.nii.gz and s0000/segmentations).

    Its own test subjects go into ``out/test.txt``. Returns the number of cases.
    """
    cases = _cases(source, "*/ct.nii.gz", out, ("ct.nii.gz",), _merged)
    _describe(out, "Abdominal organs on CT", ("CT",), ORGANS.values(), cases)
    test = [name for name in _totalsegmentator_test(source / "meta.csv") if name in cases]
    write_text(out / "test.txt", "".join(f"{name}\n" for name in test))
    return len(cases)


def brain_tumor_mr(source: Path, out: Path) -> int:
    """Task01_BrainTumour of the Medical Segmentation Decathlon, its unlabelled scans included."""
    try:
        described = json.loads((source / "dataset.json").read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(f"{source} has no readable dataset.json: {error}.") from None
    entries = [
        {key: str((source / entry[key]).resolve()) for key in ("image", "label")}
        for entry in described["training"]
    ]
    more = [str((source / name).resolve()) for name in described.get("test", ())]
    content = {"training": entries, "test": more}
    _describe(out, "Brain tumor on MR", TUMOR_INPUTS, TUMOR, {}, content)
    return len(entries)


def prostate_lesions_mr(source: Path, out: Path) -> int:
    """Prostate158's training set: folders with t2, adc and dwi, the zones and the lesions.

    A lesion lies over the zones. Returns the number of cases.
    """
    images = tuple(f"{name}.nii.gz" for name in PROSTATE_INPUTS.values())
    cases = _cases(source, f"**/{_ZONES_FILE}", out, images, _zones_and_lesions)
    _describe(out, "Prostate zones and lesions", tuple(PROSTATE_INPUTS), PROSTATE, cases)
    return len(cases)


PUBLIC_SETS = {
    "organs-ct": organs_ct,
    "brain-tumor-mr": brain_tumor_mr,
    "prostate-lesions-mr": prostate_lesions_mr,
}


def _cases(
    source: Path,
    pattern: str,
    out: Path,
    images: Sequence[str],
    label_of: Callable[[Path], Volume],
) -> dict[str, tuple[tuple[Path, ...], Path]]:
    """(images, label) of each folder of ``source`` that has a file like ``pattern``.

    ``label_of`` makes the label of a folder, unless an earlier call wrote it. Raises InputError
    where there is no such folder.
    """
    folders = sorted(path.parent for path in source.glob(pattern))
    if not folders:
        raise InputError(
            f"{source} has no folder with {Path(pattern).name}; it is not this data set."
        )
    make_folder(out / "labelsTr")
    cases = {}
    for folder in tqdm(folders, "labels"):
        label = out / "labelsTr" / f"{folder.name}.nii.gz"
        if not label.is_file():
            write_volume(label_of(folder), label)
        cases[folder.name] = (tuple(folder / name for name in images), label)
    return cases


def _merged(folder: Path) -> Volume:
    """One label image from a mask for each organ; where two overlap, the later one holds."""
    merged = None
    for name, label in ORGANS.items():
        mask = read_volume(folder / "segmentations" / f"{name}.nii.gz")
        if merged is None:
            merged = replace(mask, array=np.zeros(mask.array.shape, np.uint8))
        _require_grid(mask, merged)
        merged.array[mask.array > 0] = label.value
    return merged


def _zones_and_lesions(folder: Path) -> Volume:
    zones = read_volume(folder / _ZONES_FILE)
    array = np.zeros(zones.array.shape, np.uint8)
    for theirs, ours in ZONES.items():
        array[np.rint(zones.array) == theirs] = ours
    lesions = folder / "adc_tumor_reader1.nii.gz"  # not there where no lesion was seen
    if lesions.is_file():
        mask = read_volume(lesions)
        _require_grid(mask, zones)
        array[mask.array > 0] = PROSTATE[2].value
    return replace(zones, array=array)


def _require_grid(volume: Volume, other: Volume) -> None:
    if not volume.geometry.is_close(other.geometry):
        raise GeometryError(
            f"{volume.source} does not lie on the grid of {other.source}; download the data set "
            "again."
        )


def _totalsegmentator_test(path: Path) -> list[str]:
    """The names of the test subjects in meta.csv, which is separated by semicolons."""
    try:
        with open(path, newline="", encoding="utf-8") as file:
            return [
                row["image_id"]
                for row in csv.DictReader(file, delimiter=";")
                if row["split"] == "test"
            ]
    except (OSError, KeyError) as error:
        raise InputError(f"{path} does not say which subjects are for testing: {error}.") from None


def _describe(
    out: Path,
    name: str,
    inputs: Sequence[str],
    labels: Sequence[Label],
    cases: Mapping[str, tuple[Sequence[Path], Path]],
    more: Mapping | None = None,
) -> None:
    """Write ``out/dataset.json`` and ``out/labels.csv``; ``cases`` are (images, label)."""
    labels = list(labels)
    description = {
        "name": name,
        "channel_names": {str(number): channel for number, channel in enumerate(inputs)},
        "labels": {"background": 0, **{label.name: label.value for label in labels}},
        **(more or {}),
    }
    if cases:
        description["dataset"] = {
            key: {"images": [str(path.resolve()) for path in images], "label": str(label.resolve())}
            for key, (images, label) in cases.items()
        }
    make_folder(out)
    write_json(out / "dataset.json", description)
    write_text(out / "labels.csv", labels_to_csv(labels))
