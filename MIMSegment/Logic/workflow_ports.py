"""What the workflow needs of the world around it: images, and a scene to show results in."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from MIMSegment.Logic.audit import Provenance
from MIMSegment.Logic.doubt import DoubtfulPlace
from MIMSegment.Logic.engine import Segmentation
from MIMSegment.Logic.finding import Finding
from MIMSegment.Logic.image_record import ImageRecord
from MIMSegment.Logic.image_source import ImageSource
from MIMSegment.Logic.labels import Label
from MIMSegment.Logic.package import ModelPackage
from MIMSegment.Logic.review_items import SegmentStore
from MIMSegment.Logic.volume import Geometry, Volume
from MIMSegment.Logic.workflow_state import WorkflowSettings


@dataclass(frozen=True)
class Result:
    """A finished segmentation and all that a review of it needs.

    ``inputs`` are the (name, image) of the model's inputs; the result lies on the grid of the
    first. ``not_asked`` are the structures of the model that were not asked for, and so are in
    neither ``segmentation`` nor ``labels``.
    """

    segmentation: Segmentation
    labels: Sequence[Label]
    title: str
    provenance: Provenance
    inputs: Sequence[tuple[str, ImageSource]]
    findings: tuple[Finding, ...] = ()
    phantom: bool = False
    not_asked: tuple[Label, ...] = ()

    @staticmethod
    def of(
        segmentation: Segmentation,
        labels: Sequence[Label],
        package: ModelPackage,
        sources: Sequence[ImageSource],
        findings: tuple[Finding, ...],
    ) -> Result:
        """What ``package`` made of the images ``sources``, in the order of its inputs."""
        names = [spec.name for spec in package.spec.inputs]
        inputs = list(zip(names, sources, strict=True))
        given = {label.source_value for label in labels}
        uids = [str(source.header.get("SeriesInstanceUID", "")) for source in sources]
        return Result(
            segmentation,
            labels,
            package.title,
            Provenance.of(package, uids, [ImageRecord.of(*pair) for pair in inputs]),
            inputs,
            findings,
            package.phantom,
            tuple(label for label in package.labels if label.value not in given),
        )


@dataclass(frozen=True)
class OpenResult:
    """A result in the scene, ready for review: also one that was loaded again.

    ``inputs`` are the (name, image) of the model's inputs, None for an image that is not in the
    scene any more; ``phantom``: the model was trained on digital phantoms; ``id`` is what
    `SceneGateway.results` calls it; ``not_asked`` are the structures of the model that no run was
    asked for; ``fresh``: it was not there before, or not like this, and `SceneGateway.undo_result`
    takes it back.
    """

    store: SegmentStore
    title: str
    provenance: Provenance
    confidence: Mapping[int, float]
    doubtful: tuple[DoubtfulPlace, ...] = ()
    findings: tuple[Finding, ...] = ()
    inputs: tuple[tuple[str, ImageSource | None], ...] = ()
    phantom: bool = False
    id: str = ""
    not_asked: tuple[Label, ...] = ()
    fresh: bool = False


class SceneGateway(Protocol):
    """The scene, as far as the workflow needs it; `scene_gateway.MrmlGateway` is the real one."""

    def volumes(self) -> list[ImageSource]:
        """The volumes that are in the scene."""

    def show_inputs(
        self, names: Sequence[str], sources: Sequence[ImageSource], volumes: Sequence[Volume]
    ) -> None:
        """Make the inputs visible; those that are in the scene already are not added again."""

    def version(self, source: ImageSource) -> Hashable:
        """Equal as long as the image's voxels, grid and transforms stay as they are; None for one
        that is as its files are."""

    def read(self, source: ImageSource, original: Callable[[ImageSource], Volume]) -> Volume:
        """The image as it is in the scene now; ``original`` reads one that is as its files are.

        Raises InputError, GeometryError.
        """

    def check_target(
        self, target: str, geometry: Geometry, labels: Sequence[Label], made: Provenance
    ) -> None:
        """Raise InputError or GeometryError if a result could not be added to the existing
        segmentation with ID ``target``: so that nobody waits for a run in vain."""

    def show_result(self, result: Result, target: str = "") -> OpenResult:
        """Add the result on the grid and under the transform of its first input.

        A new segmentation, or more segments in the existing one with ID ``target``, with an undo
        point. Raises InputError when that segmentation is locked or lies on another grid.
        """

    def undo_result(self) -> None:
        """Take the last `show_result` back: remove it, or restore what it was added to."""

    def results(self) -> list[tuple[str, str]]:
        """(ID, name) of the segmentations in the scene that can be reviewed."""

    def open_result(self, id: str) -> OpenResult:
        """A segmentation of the scene for review. Raises InputError."""

    def load_settings(self) -> WorkflowSettings:
        """What was saved with the scene, defaults where nothing was."""

    def save_settings(self, settings: WorkflowSettings) -> None:
        """Keep the settings with the scene."""

    def save(self, path: Path) -> None:
        """Write the whole scene to an ``.mrb`` file. Raises OutputError."""

    def save_segmentation(self, store: SegmentStore, path: Path) -> None:
        """Write one segmentation to a ``.seg.nrrd`` file. Raises OutputError."""

    def labels(self, store: SegmentStore) -> tuple[Volume, list[Label]]:
        """All segments as a label image (1, z, y, x) on the reference grid, and their labels."""
