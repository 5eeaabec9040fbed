"""The plausibility checks as the workflow calls them, before and after a run."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from MIMSegment.Logic.alignment import combine
from MIMSegment.Logic.engine import Segmentation
from MIMSegment.Logic.finding import Finding, Severity
from MIMSegment.Logic.package import ModelPackage
from MIMSegment.Logic.plausibility import check_inputs
from MIMSegment.Logic.volume import Volume


@dataclass(frozen=True)
class Checked:
    """The inputs of a run: the images as they are, as channels (c, z, y, x) on the first one's
    grid, and what is said about them."""

    images: Sequence[Volume]
    volume: Volume
    findings: tuple[Finding, ...]


class Checks:
    """What is said about inputs and results."""

    def inputs(self, images: Sequence[Volume], package: ModelPackage) -> Checked:
        """The images of the package's inputs, in their order, brought together and checked.

        Raises GeometryError for images that barely overlap.
        """
        stacked = combine(images)
        return Checked(images, stacked, self.before(stacked, images, package))

    def before(
        self, stacked: Volume, volumes: Sequence[Volume], package: ModelPackage
    ) -> tuple[Finding, ...]:
        """About the inputs: ``volumes`` as they are, ``stacked`` on the first one's grid."""
        read = (Finding("reading", Severity.WARNING, text) for text in stacked.warnings)
        return (*check_inputs(volumes, package), *read)

    def after(self, result: Segmentation, package: ModelPackage) -> tuple[Finding, ...]:
        """About the result; inference has made these checks in its own process."""
        return result.findings
