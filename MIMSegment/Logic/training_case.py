"""Reviewed cases as a Medical Segmentation Decathlon folder, which prepare.py and finetune.py read.

    imagesTr/case_0f3a….nii.gz   the inputs on the first one's grid, 4D where there are several
    labelsTr/case_0f3a….nii.gz   the structures that were not rejected, with the model's values;
                                 a rejected lesion is the organ that it lies in
    dataset.json                 written last; "subjects" keeps the studies of one person together
    labels.csv                   names, codes and colors

Names of files are digests, never a patient's name or number. They are pseudonyms and no anonymity:
the images themselves may still show a face.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import secrets
from pathlib import Path

from MIMSegment.Logic.alignment import combine
from MIMSegment.Logic.dicom_source import patient_of
from MIMSegment.Logic.errors import MIMSegmentError, OutputError
from MIMSegment.Logic.file_lock import file_lock
from MIMSegment.Logic.files import not_written, write_json, write_text
from MIMSegment.Logic.image_file import write_channels
from MIMSegment.Logic.labels import labels_to_csv
from MIMSegment.Logic.phrases import joined
from MIMSegment.Logic.rejected_lesions import with_organs_restored
from MIMSegment.Logic.reviewed_case import ReviewedCase, in_model_labels
from MIMSegment.Logic.volume import write_volume

_INDEX = "dataset.json"


def write_training_case(case: ReviewedCase, folder: str | Path) -> None:
    """Add ``case`` to ``folder``, which is made where there is none; a case of the same images
    replaces the one that is there.

    Raises OutputError when an image is missing, a structure is still open or being edited or none
    of the model's, or the folder holds another data set; InputError when a DICOM file of it cannot
    be read any more.
    """
    folder = Path(folder)
    _refuse_incomplete(case)
    with contextlib.ExitStack() as stack:
        try:
            for name in ("imagesTr", "labelsTr"):
                (folder / name).mkdir(parents=True, exist_ok=True)
            stack.enter_context(file_lock(folder / f".{_INDEX}.lock"))
        except OSError as error:
            raise not_written(folder / _INDEX, error) from error
        _add(case, folder)


def _refuse_incomplete(case: ReviewedCase) -> None:
    missing = [item.name for item in case.inputs if item.volume is None]
    if missing or not case.inputs:
        images, are, them = ("images", "are", "them") if missing[1:] else ("image", "is", "it")
        which = joined(missing) if missing else "of the case"
        raise OutputError(
            f"The {images} {which} {are} not loaded any more; load {them} again to keep the case "
            "for training."
        )
    undecided = [item.name for item in case.kept if not item.verdict.resolved]
    if undecided:
        raise OutputError(
            f"{joined(undecided)} {'has' if len(undecided) == 1 else 'have'} no verdict yet; "
            "accept or reject every structure before the case is kept for training."
        )
    foreign = [label for label in case.foreign if label in case.table]
    if foreign:
        raise OutputError(
            f"{joined([label.name for label in foreign])} {'are' if foreign[1:] else 'is'} none of "
            f"the model's structures ({_names_of_model(case)}); give "
            f"{'each' if foreign[1:] else 'it'} the name or the terminology of one of these, or "
            "reject what the model shall not learn."
        )


def _names_of_model(case: ReviewedCase) -> str:
    own = [s for s in in_model_labels(case)[1] if s.value not in {f.value for f in case.foreign}]
    return ", ".join(dict.fromkeys(s.name for s in (*own, *case.not_asked)))


def _add(case: ReviewedCase, folder: Path) -> None:
    index = _read_index(folder) or _new_index(case)
    _check_same(index, case, folder)
    image = combine([item.volume for item in case.inputs])
    name = f"case_{_digest(image.array.tobytes())}"
    entry = {"image": f"./imagesTr/{name}.nii.gz", "label": f"./labelsTr/{name}.nii.gz"}
    known = entry in index["training"]
    try:
        write_channels(image, folder / entry["image"])
        write_volume(in_model_labels(with_organs_restored(case))[0], folder / entry["label"])
        _list_case(case, folder, index, entry, name)
    except MIMSegmentError:
        for path in () if known else entry.values():
            (folder / path).unlink(missing_ok=True)
        raise


def _list_case(case: ReviewedCase, folder: Path, index: dict, entry: dict, name: str) -> None:
    others = [e for e in index["training"] if e["image"] != entry["image"]]
    index["training"] = [*others, entry]
    index["numTraining"] = len(index["training"])
    index["subjects"][name] = _subject(case, index["salt"], name)
    write_text(folder / "labels.csv", labels_to_csv(in_model_labels(case)[1]))
    write_json(folder / _INDEX, index)


def _new_index(case: ReviewedCase) -> dict:
    return {
        "name": f"Reviewed cases of {case.title}",
        "description": "Segmentations of MIM Segment, accepted by a reviewer.",
        "tensorImageSize": "3D" if len(case.inputs) == 1 else "4D",
        "modality": {str(n): item.name for n, item in enumerate(case.inputs)},
        "labels": {"0": "background"} | {str(s.value): s.name for s in in_model_labels(case)[1]},
        "numTraining": 0,
        "numTest": 0,
        "training": [],
        "test": [],
        "subjects": {},
        "salt": secrets.token_hex(16),
    }


def _read_index(folder: Path) -> dict | None:
    path = folder / _INDEX
    if not path.is_file():
        return None
    try:
        index = json.loads(path.read_text(encoding="utf-8"))
        if {"training", "labels", "modality", "subjects", "salt"} <= set(index):
            return index
    except (OSError, ValueError) as error:
        raise OutputError(f"{path} cannot be read ({error}); choose another folder.") from None
    raise OutputError(f"{path} is of a data set made elsewhere; choose another folder.")


def _check_same(index: dict, case: ReviewedCase, folder: Path) -> None:
    now = _new_index(case)
    for key, what in (("modality", "inputs"), ("labels", "structures")):
        if index[key] != now[key]:
            raise OutputError(
                f"{folder} holds cases with other {what} ({', '.join(index[key].values())}); "
                "choose another folder for this model."
            )


def _subject(case: ReviewedCase, salt: str, name: str) -> str:
    """A pseudonym that the studies of one person share; the case's own name where unknown."""
    patient = patient_of(case.inputs[0].files)
    return f"subject_{_digest((salt + patient).encode())}" if patient else name


def _digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()[:12]
