"""What the Slicer panel says about each export, and asks for. ``_`` translates."""

from __future__ import annotations

from collections.abc import Callable
from itertools import count
from pathlib import Path

from MIMSegment.Logic.volume import IMAGE_SUFFIXES
from MIMSegment.Logic.workflow_state import Export

Translate = Callable[[str], str]

_OTHER_ENDINGS = {Export.LABELS: IMAGE_SUFFIXES, Export.REPORT: (".htm",)}


def export_hint(kind: Export, _: Translate = str) -> str:
    """What an export is good for."""
    return {
        Export.DICOM_SEG: _("For the archive: with codes, algorithm and source images (.dcm)"),
        Export.REPORT: _("One page with pictures, volumes and verdicts (.html)"),
        Export.SEGMENTATION: _("With names, colors, codes and verdicts (.seg.nrrd)"),
        Export.LABELS: _("One image, a number for each structure as the model has it (.nii.gz)"),
        Export.TABLE: _("A row for each structure (.csv)"),
        Export.SCENE: _("Everything, with the audit log beside it (.mrb)"),
        Export.TRAINING: _("Add the reviewed case to a folder from which models are trained"),
    }[kind]


def export_dialog(kind: Export, _: Translate = str) -> tuple[str, str, bool]:
    """Caption and file pattern of the dialog, and whether a folder is asked for."""
    patterns = {
        Export.DICOM_SEG: "DICOM (*.dcm)",
        Export.REPORT: "HTML (*.html)",
        Export.SEGMENTATION: "Segmentation (*.seg.nrrd)",
        Export.LABELS: "NIfTI (*.nii.gz)",
        Export.TABLE: "CSV (*.csv)",
        Export.SCENE: "Slicer scene (*.mrb)",
        Export.TRAINING: "",
    }
    return export_hint(kind, _), patterns[kind], kind is Export.TRAINING


def with_ending(path: str, kind: Export) -> str:
    """The path that was chosen in the dialog, which adds the file's ending on some systems only; a
    file that is there keeps its contents, as nobody was asked about that one."""
    ending = export_dialog(kind)[1].partition("*")[2].rstrip(")")
    if not path or not ending or path.lower().endswith((ending, *_OTHER_ENDINGS.get(kind, ()))):
        return path
    name, numbers = f"{path}{ending}", count(2)
    while Path(name).exists():
        name = f"{path}_{next(numbers)}{ending}"
    return name
