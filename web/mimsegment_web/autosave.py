"""A review on the disk while it goes on, so that a crash or a restart costs seconds of work.

Beside the audit log lie ``review.npz`` (label values) and ``review.json`` (verdicts, comments and
what the scene knows of the result), both whole at any time.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from concurrent.futures import Executor, Future
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from MIMSegment.Logic.errors import InputError
from MIMSegment.Logic.files import replacing
from MIMSegment.Logic.labels import labels_from_csv, labels_to_csv
from MIMSegment.Logic.review_items import SegmentRecord, Verdict
from MIMSegment.Logic.scene_labels import label_table, labels_from_segmentation
from MIMSegment.Logic.scene_results import keep_inputs
from MIMSegment.Logic.scene_review import NodeSegments
from MIMSegment.Logic.scene_segments import add_segmentation, provenance, set_provenance
from MIMSegment.Logic.volume import Geometry

_LABELS, _FACTS = "review.npz", "review.json"


class Autosave:
    """Writes one review at a time into the study's folder, in the background."""

    def __init__(self, executor: Executor):
        self._executor = executor
        self._writing: Future | None = None

    @property
    def busy(self) -> bool:
        """Whether the last version is still being written."""
        return self._writing is not None and not self._writing.done()

    def save(self, node, folder: Path) -> Future:
        """Copy the segmentation ``node`` now, and write the copy in the background."""
        labels, geometry = labels_from_segmentation(node)
        store = NodeSegments(node)
        facts = {
            "name": node.GetName(),
            "shape": list(geometry.shape),
            "ijk_to_lps": geometry.ijk_to_lps.tolist(),
            "labels": labels_to_csv(label_table(node)),
            "attributes": provenance(node),
            "records": [_plain(record) for record in store.records()],
            "log": store.logged(),
        }
        self._writing = self._executor.submit(_write, folder, labels, facts)
        return self._writing


@dataclass(frozen=True)
class Summary:
    """What a saved review is: the package ("id@version") that made it, and what was decided."""

    package: str
    name: str
    decided: int
    total: int
    has_decisions: bool


def has_review(folder: Path) -> bool:
    """Whether a review can be gone on with."""
    return (folder / _LABELS).is_file() and (folder / _FACTS).is_file()


def summary(folder: Path) -> Summary | None:
    """About the saved review in ``folder``; None when there is none that can be read."""
    if not has_review(folder):
        return None
    try:
        facts = _read_facts(folder)
        made, records = facts["attributes"], [_record(item) for item in facts["records"]]
        package = f"{made['Package']}@{made['Version']}"
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return Summary(
        package,
        facts["name"],
        sum(record.verdict.resolved for record in records),
        len(records),
        any(r.verdict is not Verdict.OPEN or r.edited or r.comment for r in records),
    )


def set_aside(folder: Path) -> None:
    """Give a saved review in which something was decided another name, for a new one to come."""
    saved = summary(folder)
    if saved is None or not saved.has_decisions:
        return
    number = 1
    while (folder / f"review-{number}.json").exists():
        number += 1
    for name in (_LABELS, _FACTS):
        path = folder / name
        path.replace(path.with_stem(f"{path.stem}-{number}"))


def restore(scene, folder: Path, inputs: Sequence[tuple[str, object]]):
    """Add the saved segmentation to the scene; returns its node.

    ``inputs`` are names and volume nodes of the images that it was made from, the first of which
    has its grid. Raises InputError when the files are damaged, GeometryError for another grid.
    """
    try:
        facts = _read_facts(folder)
        with np.load(folder / _LABELS, allow_pickle=False) as file:
            labels = file["labels"]
        geometry = Geometry(tuple(facts["shape"]), np.array(facts["ijk_to_lps"], float))
        table = labels_from_csv(facts["labels"])
        records, log = [_record(item) for item in facts["records"]], list(facts.get("log", []))
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(
            f"The saved review in {folder} cannot be read ({error}); segment again."
        ) from None
    node = add_segmentation(
        scene, labels, geometry, table, facts["name"], reference_node=inputs[0][1]
    )
    set_provenance(node, facts["attributes"])
    keep_inputs(node, inputs)
    store = NodeSegments(node)
    known = {record.label: record for record in store.records()}
    for record in records:
        store.write(SegmentRecord(**{**asdict(record), "id": known[record.label].id}))
    for entry in log:
        store.log(entry)
    return node


def _write(folder: Path, labels: np.ndarray, facts: dict) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    with replacing(folder / _LABELS) as temporary, open(temporary, "wb") as file:
        np.savez_compressed(file, labels=labels)
    with replacing(folder / _FACTS) as temporary:
        temporary.write_text(json.dumps(facts, ensure_ascii=False), encoding="utf-8")


def _read_facts(folder: Path) -> dict:
    return json.loads((folder / _FACTS).read_text(encoding="utf-8"))


def _plain(record: SegmentRecord) -> dict:
    return {**asdict(record), "verdict": str(record.verdict)}


def _record(item: dict) -> SegmentRecord:
    return SegmentRecord(
        **{**item, "verdict": Verdict(item["verdict"]), "color": tuple(item["color"])}
    )
