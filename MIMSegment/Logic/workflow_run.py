"""A run: from the checked inputs to the queue, and from the finished job to the scene."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from MIMSegment.Logic.audit import Provenance
from MIMSegment.Logic.errors import GeometryError, InputError
from MIMSegment.Logic.finding import Finding
from MIMSegment.Logic.image_source import ImageSource
from MIMSegment.Logic.inference import InferenceOptions
from MIMSegment.Logic.jobs import Job, JobQueue
from MIMSegment.Logic.labels import wanted_labels
from MIMSegment.Logic.package import ModelPackage
from MIMSegment.Logic.postprocess import separate_lesions
from MIMSegment.Logic.review import Review
from MIMSegment.Logic.workflow_checks import Checked, Checks
from MIMSegment.Logic.workflow_ports import OpenResult, Result, SceneGateway
from MIMSegment.Logic.workflow_state import WorkflowSettings


@dataclass(frozen=True)
class Run:
    """A run in the queue, and what was asked for when it was submitted.

    ``inputs`` are the images in the order of the package's inputs, ``findings`` what the checks
    said about them, ``wanted`` the label values to find (None: all), ``target`` the ID of the
    segmentation that the result is to be added to ("": a new one).
    """

    job: Job
    package: ModelPackage
    inputs: Sequence[ImageSource]
    findings: tuple[Finding, ...]
    wanted: tuple[int, ...] | None
    target: str

    def result(self, checks: Checks) -> Result:
        """What has become of the finished job, with each lesion an object of its own."""
        labels = self.package.labels
        found, table = separate_lesions(self.job.result, labels, self.wanted)
        findings = self.findings + checks.after(found, self.package)
        return Result.of(found, table, self.package, self.inputs, findings)


def submit(
    queue: JobQueue,
    gateway: SceneGateway,
    package: ModelPackage,
    settings: WorkflowSettings,
    inputs: Sequence[ImageSource],
    checked: Checked,
) -> Run:
    """Queue a run of ``package`` on the images ``inputs``, which are ``checked``.

    Raises InputError or GeometryError when its result could not go where ``settings`` want it.
    """
    volume, wanted = checked.volume, tuple(settings.structures) or None
    if settings.target:
        labels, made = wanted_labels(package.labels, wanted), Provenance.of(package)
        gateway.check_target(settings.target, volume.geometry, labels, made)
    options = InferenceOptions(
        device=settings.device,
        precision=settings.precision or None,
        wanted=wanted,
        mirror=settings.mirror,
    )
    job = queue.submit(volume, package.path, options)
    return Run(job, package, inputs, checked.findings, wanted, settings.target)


def place(
    gateway: SceneGateway, result: Result, target: str, review: Review | None = None
) -> tuple[OpenResult, str]:
    """Show it where the user wants it, or where nothing is in its way, so that no run is lost.

    The second of the pair is a sentence about the latter, else "". A running ``review``, which may
    be of the same segmentation, is closed first: what a model draws is no edit of the reviewer.
    It goes on when nothing can be shown.
    """
    if review is None:
        return _placed(gateway, result, target)
    review.close()
    try:
        return _placed(gateway, result, target)
    except BaseException:
        review.resume()
        raise


def _placed(gateway: SceneGateway, result: Result, target: str) -> tuple[OpenResult, str]:
    try:
        return gateway.show_result(result, target), ""
    except (InputError, GeometryError) as error:
        if not target:
            raise
        return gateway.show_result(result), f"{error} The result is in a new segmentation."
