"""Writing a reviewed result in every form that it can be wanted in."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module, util
from pathlib import Path

from MIMSegment.Logic.audit import AuditLog, log_path
from MIMSegment.Logic.comparison import Prior
from MIMSegment.Logic.dicom_source import other_patient
from MIMSegment.Logic.errors import MIMSegmentError
from MIMSegment.Logic.hand_drawn import with_model_labels
from MIMSegment.Logic.image_source import ImageSource
from MIMSegment.Logic.review_items import ReviewState, SegmentStore
from MIMSegment.Logic.reviewed_case import (
    CaseInput,
    ReviewedCase,
    in_model_labels,
    without_rejected,
)
from MIMSegment.Logic.volume import write_volume
from MIMSegment.Logic.workflow_ports import OpenResult, SceneGateway
from MIMSegment.Logic.workflow_state import Export

# Imported when used, as they bring heavy libraries.
_WRITERS = {
    Export.DICOM_SEG: ("MIMSegment.Logic.dicom_seg", "write_dicom_seg"),
    Export.REPORT: ("MIMSegment.Logic.report", "write_report"),
    Export.TABLE: ("MIMSegment.Logic.report", "write_table"),
    Export.TRAINING: ("MIMSegment.Logic.training_case", "write_training_case"),
}


def is_available(kind: Export) -> bool:
    """Whether this installation can write ``kind``."""
    return kind not in _WRITERS or util.find_spec(_WRITERS[kind][0]) is not None


def reviewed_case(
    result: OpenResult, review: ReviewState, gateway: SceneGateway, options: dict
) -> ReviewedCase:
    """The result as it stands now. ``options`` may have the ID of an earlier result as ``prior``.

    Raises OutputError when every structure is rejected.
    """
    if isinstance(options.get("prior"), str):
        options = options | {"prior": _prior(gateway, options["prior"], result)}
    everything, names = gateway.labels(result.store)
    names = with_model_labels(names, review.items, result.not_asked)
    labels, table = without_rejected(everything, names, review.items)
    drawn = {item.label for item in review.items if item.volume_ml}
    there = {label.source_value for label in table if label.value in drawn}
    return ReviewedCase(
        result.title,
        labels,
        table,
        review.items,
        result.provenance,
        result.findings,
        tuple(_case_input(name, source) for name, source in result.inputs),
        result.phantom,
        options,
        tuple(label for label in names if label not in table),
        tuple(label for label in result.not_asked if label.value not in there),
        everything if labels is not everything else None,
    )


def _case_input(name: str, source: ImageSource | None) -> CaseInput:
    if source is None:
        return CaseInput(name)
    return CaseInput(name, source.read(), tuple(dict.fromkeys(source.instances.values())))


def _prior(gateway: SceneGateway, id: str, now: OpenResult) -> Prior | None:
    """The result with this ID to compare ``now`` with, without what was rejected in it."""
    if not id:
        return None
    then = gateway.open_result(id)
    everything, names = gateway.labels(then.store)
    records = then.store.records()
    names = with_model_labels(names, records, then.not_asked)
    labels, table = without_rejected(everything, names, records)
    differs = other_patient(_files(now), _files(then))
    return Prior(labels, table, then.provenance.algorithm, then.title, differs)


def _files(result: OpenResult) -> list[Path]:
    """The DICOM files of the first of its images that has any."""
    sources = (source for _, source in result.inputs if source is not None)
    return next((files for s in sources if (files := list(s.instances.values()))), [])


def write_export(
    kind: Export,
    path: Path,
    make_case: Callable[[], ReviewedCase],
    gateway: SceneGateway,
    store: SegmentStore,
    log: AuditLog,
) -> Path:
    """Write ``path`` and note that in the log; returns what was written. Raises OutputError.

    A saved scene has its audit log beside it, which goes on there. The log names the kind of
    export and not the file, whose name may be the patient's.
    """
    if kind is Export.SCENE:
        return _write_scene(path, gateway, log)
    match kind:
        case Export.SEGMENTATION:
            gateway.save_segmentation(store, path)
        case Export.LABELS:
            write_volume(in_model_labels(make_case())[0], path)
        case _:
            module, function = _WRITERS[kind]
            getattr(import_module(module), function)(make_case(), path)
    log.record("export", export=str(kind))
    return path


def _write_scene(path: Path, gateway: SceneGateway, log: AuditLog) -> Path:
    """The line comes first, as the scene holds the log as well."""
    log.record("export", export=str(Export.SCENE))
    try:
        gateway.save(path)
    except MIMSegmentError:
        log.record("export failed", export=str(Export.SCENE))
        raise
    log.move_to(log_path(path))
    return path
