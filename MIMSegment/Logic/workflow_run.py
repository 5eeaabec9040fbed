"""A run: from the checked inputs to the queue, and from the finished job to the scene."""

from __future__ import annotations

from MIMSegment.Logic.audit import Provenance
from MIMSegment.Logic.errors import GeometryError, InputError
from MIMSegment.Logic.inference import InferenceOptions
from MIMSegment.Logic.jobs import Job, JobQueue
from MIMSegment.Logic.package import ModelPackage
from MIMSegment.Logic.volume import Volume
from MIMSegment.Logic.workflow_ports import OpenResult, Result, SceneGateway
from MIMSegment.Logic.workflow_state import WorkflowSettings


def submit(
    queue: JobQueue,
    gateway: SceneGateway,
    volume: Volume,
    package: ModelPackage,
    settings: WorkflowSettings,
) -> Job:
    """Queue a run of ``package`` on ``volume`` (c, z, y, x).

    Raises InputError or GeometryError when its result could not go where ``settings`` want it.
    """
    if settings.target:
        made = Provenance.of(package)
        gateway.check_target(settings.target, volume.geometry, package.labels, made)
    options = InferenceOptions(
        device=settings.device,
        precision=settings.precision or None,
        wanted=tuple(settings.structures) or None,
        mirror=settings.mirror,
    )
    return queue.submit(volume, package.path, options)


def place(gateway: SceneGateway, result: Result, target: str) -> tuple[OpenResult, str]:
    """Show it where the user wants it, or where nothing is in its way, so that no run is lost.

    The second of the pair is a sentence about the latter, else "".
    """
    try:
        return gateway.show_result(result, target), ""
    except (InputError, GeometryError) as error:
        if not target:
            raise
        return gateway.show_result(result), f"{error} The result is in a new segmentation."
