"""The workflow at one moment, as plain data: all that a front-end needs to draw itself."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path

from MIMSegment.Logic.about import NOTICE
from MIMSegment.Logic.actions import Action
from MIMSegment.Logic.catalog import CatalogEntry
from MIMSegment.Logic.finding import Finding, Severity
from MIMSegment.Logic.jobs import Job, JobState
from MIMSegment.Logic.review_items import ReviewState


class Step(StrEnum):
    """The steps, in their order."""

    CHOOSE = "choose"
    CHECK = "check"
    RUN = "run"
    REVIEW = "review"
    EXPORT = "export"


class Export(StrEnum):
    """What a reviewed result can be written as."""

    SCENE = "scene"
    """Slicer scene (.mrb), with the audit log beside it."""
    DICOM_SEG = "dicom_seg"
    SEGMENTATION = "segmentation"
    """.seg.nrrd with names, colors, codes and verdicts."""
    LABELS = "labels"
    """Label image (.nii.gz) with the model's label values."""
    REPORT = "report"
    """One page of HTML with key pictures."""
    TABLE = "table"
    """Volumes as .csv."""
    TRAINING = "training"
    """A folder in the layout of the Medical Segmentation Decathlon, which `finetune.py` reads."""


@dataclass
class WorkflowSettings:
    """What is remembered with the scene; every field can be written as JSON.

    ``package`` is "id@version". ``inputs`` maps an input's name to the `ImageSource.id` that the
    user chose for it. ``structures`` are the label values to keep, all if empty. ``target`` is the
    ID of an existing segmentation to write into, chosen by the user; "" for a new one.
    """

    package: str = ""
    device: str = "auto"
    precision: str = ""
    mirror: bool = True
    structures: tuple[int, ...] = ()
    inputs: dict[str, str] = field(default_factory=dict)
    target: str = ""


@dataclass(frozen=True)
class PackageCard:
    """A package to choose: its catalog entry, where it is installed (None: not yet), and whether
    its license must be read and acknowledged first."""

    entry: CatalogEntry
    path: Path | None = None
    needs_acknowledgment: bool = False
    structures: Mapping[int, str] = field(default_factory=dict)
    """Label value to name; empty until the package is installed."""
    stored: bool = False
    """Downloaded or imported, so that it can be removed; else it came with the program."""

    @property
    def key(self) -> str:
        """ "id@version"."""
        return f"{self.entry.id}@{self.entry.version}"


@dataclass(frozen=True)
class InputRow:
    """One input of the model and the image taken for it.

    ``source`` is the `ImageSource.id` of that image, "" if there is none yet; ``reason`` says why
    it was taken, ``problem`` what is wrong with it or why none was found. ``choices`` are the
    images that could be taken, as (id, name). ``chosen``: by the user.
    """

    name: str
    modality: str
    description: str
    source: str = ""
    reason: str = ""
    chosen: bool = False
    problem: str = ""
    choices: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True)
class DeviceLine:
    """What calculates: the setting, what really runs (once known), and the expected seconds.

    ``basis`` says where the estimate comes from; ``seconds`` is None while nobody has measured.
    """

    requested: str = "auto"
    description: str = ""
    seconds: float | None = None
    basis: str = ""


@dataclass(frozen=True)
class Progress:
    """A running segmentation: windows ``done`` of ``total`` (0: unknown), seconds left."""

    message: str
    done: int = 0
    total: int = 0
    eta: float | None = None
    cancelling: bool = False

    @staticmethod
    def of(job: Job) -> Progress:
        """How far ``job`` is."""
        cancelling = job.state is JobState.CANCELLING
        return Progress(job.message, job.done, job.total, job.eta, cancelling)

    @property
    def fraction(self) -> float | None:
        """0..1; None while unknown."""
        return self.done / self.total if self.total else None


@dataclass(frozen=True)
class Problem:
    """What went wrong: one sentence with the way out; ``report`` is for "copy report"."""

    message: str
    kind: str = ""
    report: str = ""

    def __str__(self) -> str:
        return self.message


@dataclass(frozen=True)
class WorkflowState:
    """All that a front-end shows.

    ``busy`` says what is being waited for without a progress (reading images), "" for nothing.
    ``study`` names the opened images, ``result`` is the ID of the result in review. ``findings``
    are about the inputs before a run, and about inputs and result afterwards. ``actions`` has an
    `Action` for each button, by name: choose, acknowledge, install, remove, open_study, assign,
    check, run, run_anyway, cancel, review, export, and export_… for each `Export`.
    """

    step: Step
    package: PackageCard | None = None
    study: str = ""
    inputs: tuple[InputRow, ...] = ()
    findings: tuple[Finding, ...] = ()
    device: DeviceLine = DeviceLine()
    progress: Progress | None = None
    busy: str = ""
    error: Problem | None = None
    message: str = ""
    review: ReviewState | None = None
    result: str = ""
    actions: Mapping[str, Action] = field(default_factory=dict, compare=False)
    notice: str = NOTICE
    catalog_warnings: tuple[str, ...] = ()
    """Why packages are missing among those to choose from."""

    @property
    def is_free(self) -> bool:
        """Whether nothing runs, is waited for or is being reviewed."""
        return self.progress is None and not self.busy and self.review is None

    @property
    def alerts(self) -> tuple[Finding, ...]:
        """The findings that must be read before a run."""
        return tuple(f for f in self.findings if f.severity is Severity.ALERT)
