"""The reconstruction check as part of an inference: its network, its run, its finding."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from MIMSegment.Logic.errors import DeviceError
from MIMSegment.Logic.finding import Finding
from MIMSegment.Logic.package import ModelPackage
from MIMSegment.Logic.reconstruction import judge, measure, not_compared
from MIMSegment.Logic.session import Session
from MIMSegment.Logic.working_image import WorkingImage


class FamiliarityCheck:
    """Asks once in an inference whether the scan looks like what the model knows.

    Does nothing for a package without a reconstruction network, and never fails the inference: a
    device that cannot run the network is a finding. ``report`` hears what is being done.
    """

    def __init__(self, package: ModelPackage, threads: int | None, report: Callable[[str], None]):
        self.findings: tuple[Finding, ...] = ()
        self._package, self._threads, self._report = package, threads, report
        self._known = package.expectations.reconstruction
        self._session: Session | None = None

    def open(self, device: str) -> tuple[Session, ...]:
        """Load the network on ``device``; returns its session, if there is one, to `terminate`."""
        from MIMSegment.Logic.runtime import open_session

        if self._known is None or self.findings:
            return ()
        channels = len(self._package.spec.inputs)
        path = self._package.path / self._known.model
        tile = (1, channels + 1, *self._known.patch)
        for candidate in (device, "cpu"):  # there may be no room for a second network on a GPU
            try:
                self._session = open_session(
                    path, candidate, threads=self._threads, tile_shape=tile
                )
            except DeviceError as failure:
                self.findings = (not_compared(failure),)
            else:
                self.findings = ()
                self._session.check_channels(channels + 1, channels, str(path))
                return (self._session,)
        return ()

    def look(self, array: np.ndarray | WorkingImage) -> None:
        """Compare the image as the network sees it (c, z, y, x). Raises Cancelled."""
        known = self._known
        if known is None or self.findings:
            return
        self._report("Comparing the scan with those that the model knows")
        try:
            error = measure(array, known.patch, known.block, known.ratio, self._session)
        except DeviceError as failure:
            self.findings = (not_compared(failure),)
        else:
            names = [item.name for item in self._package.spec.inputs]
            self.findings = (judge(error, known, names),)
        self._session = None  # its memory is needed now
