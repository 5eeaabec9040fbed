"""How long a segmentation will take, from the last one here or from the catalog."""

from __future__ import annotations

import time

from MIMSegment.Logic.jobs import Job, JobState
from MIMSegment.Logic.run_times import RunTime, RunTimes
from MIMSegment.Logic.volume import Volume
from MIMSegment.Logic.workflow_state import DeviceLine, PackageCard

_PROCESSOR = ("auto", "cpu", "openvino")
_PLACES = {
    "CPU": "on the processor",
    "cuda": "on the NVIDIA graphics card",
    "directml": "on the graphics card",
    "coreml": "on the Apple chip",
}


class Estimates:
    """Times each run by a stopwatch and tells what to expect of the next."""

    def __init__(self, times: RunTimes):
        self._times = times
        self._running: tuple[str, str, int, float] | None = None

    def begin(self, package: str, device: str, volume: Volume) -> None:
        """A run of ``package`` ("id@version") on ``volume`` with this device setting begins."""
        self._running = package, device, _voxels(volume), time.monotonic()

    def end(self, job: Job) -> None:
        """The run has ended; only a whole one says how long it takes."""
        running, self._running = self._running, None
        if running and job.state is JobState.DONE:
            package, device, voxels, began = running
            run = RunTime(time.monotonic() - began, voxels, job.device)
            self._times.note(package, device, run)

    def line(
        self, card: PackageCard | None, device: str, volume: Volume | None, job: Job | None
    ) -> DeviceLine:
        """What calculates (or did so last), and the seconds to expect where somebody measured."""
        if job is not None:
            return DeviceLine(device, plain_device(job.device))
        run = self._times.find(card.key, device) if card else None
        if run is not None:
            seconds = run.for_voxels(_voxels(volume)) if volume else run.seconds
            where = plain_device(run.device)
            return DeviceLine(device, where, seconds, "as the last run on this computer")
        if card and card.entry.cpu_seconds and device in _PROCESSOR:
            basis = f"measured on {card.entry.cpu_hardware}"
            return DeviceLine(device, "", card.entry.cpu_seconds, basis)
        return DeviceLine(device)


def plain_device(description: str) -> str:
    """What a session says about its device, as a user would; the audit log has it in full.

    Of "OpenVINO 2026.4.1, CPU, 2 threads, bfloat16" it is "on the processor"; what is not known
    stays as it is.
    """
    _library, _comma, rest = description.partition(", ")
    word = rest.split(",")[0].split(" ")[0]
    return _PLACES.get(word, description)


def _voxels(volume: Volume) -> int:
    depth, height, width = volume.array.shape[-3:]
    return depth * height * width
