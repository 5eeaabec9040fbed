"""The plausibility checks as the workflow calls them, before and after a run."""

from __future__ import annotations

from collections.abc import Sequence

from MIMSegment.Logic.engine import Segmentation
from MIMSegment.Logic.finding import Finding, Severity
from MIMSegment.Logic.package import ModelPackage
from MIMSegment.Logic.plausibility import check_inputs
from MIMSegment.Logic.volume import Volume


class Checks:
    """What is said about inputs and results."""

    def before(
        self, stacked: Volume, volumes: Sequence[Volume], package: ModelPackage
    ) -> tuple[Finding, ...]:
        """About the inputs: ``volumes`` as they are, ``stacked`` on the first one's grid."""
        read = (Finding("reading", Severity.WARNING, text) for text in stacked.warnings)
        return (*check_inputs(volumes, package), *read)

    def after(self, result: Segmentation, package: ModelPackage) -> tuple[Finding, ...]:
        """About the result; inference has made these checks in its own process."""
        return result.findings
