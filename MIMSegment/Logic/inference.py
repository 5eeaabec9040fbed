"""Running a package on an image: sessions, and what to do when memory runs out.

The order is: fewer windows at once, then smaller windows where the network allows other sizes,
then the next device. That is also taken when a network overflows. Every step is told to the caller.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace

from MIMSegment.Logic.batching import BatchSize
from MIMSegment.Logic.device_report import fallback_order, precision_on
from MIMSegment.Logic.engine import Progress, Segmentation, segment
from MIMSegment.Logic.errors import (
    DeviceError,
    MissingDevice,
    NotANumber,
    OutOfMemory,
    PackageError,
)
from MIMSegment.Logic.familiarity import FamiliarityCheck
from MIMSegment.Logic.gpu_runtime import nvidia_gpu
from MIMSegment.Logic.largest_component import keep_largest_component, with_companions
from MIMSegment.Logic.package import ModelPackage
from MIMSegment.Logic.plausibility import check_result, gravest_first
from MIMSegment.Logic.preprocess import open_prepared
from MIMSegment.Logic.session import Session, check_precision
from MIMSegment.Logic.spec import ModelSpec
from MIMSegment.Logic.volume import Volume

_GPU_BATCH = 8
_NO_ROOM = "Not enough memory for the image and its result; close other programs."
_SHOWN = 12  # labels that a message lists
_SMALLEST_WINDOW = 16  # voxels along an axis; smaller ones see too little to be of use

Report = Callable[[str], None]


@dataclass(frozen=True)
class InferenceOptions:
    """How to run a package.

    ``device`` and ``precision`` as in `runtime.open_session`; a fallback keeps float32 where it was
    asked for, while other precisions are of the device. ``trusted`` allows TorchScript, which is
    code; ``wanted`` keeps only these label values; ``mirror`` False leaves out the mirrored
    predictions that a package may ask for (2 to 8 times faster, slightly less accurate).
    """

    device: str = "auto"
    precision: str | None = None
    threads: int | None = None
    trusted: bool = False
    wanted: tuple[int, ...] | None = None
    mirror: bool = True


def run_package(
    volume: Volume,
    package: ModelPackage,
    options: InferenceOptions | None = None,
    report: Report = lambda sentence: None,
    progress: Progress | None = None,
    cancelled: Callable[[], bool] | None = None,
    opened: Callable[[Sequence[Session]], None] = lambda sessions: None,
    warn: Report | None = None,
) -> Segmentation:
    """Segment ``volume`` (c, z, y, x) with ``package``, stepping down when memory runs out, and
    check the result.

    ``report`` gets sentences for the user, such as what it runs on, and ``warn`` (default:
    ``report``) those that say why it is not what the user would expect; ``opened`` gets the
    sessions, for `terminate`. Raises PackageError, DeviceError, OutOfMemory, Cancelled.
    """
    options, warn = options or InferenceOptions(), warn or report
    check_options(options, package)
    spec = package.spec if options.mirror else replace(package.spec, mirror_axes=())
    with ThreadPoolExecutor(1) as other:
        # Beside the loading of the networks: each waits for the disk and imports libraries.
        prepared = other.submit(open_prepared, volume, spec.preprocessing)
        failure: DeviceError = DeviceError("No device can run this model.")
        familiarity = FamiliarityCheck(package, options.threads, report)
        for sessions in _sessions(package, options, warn):
            opened([*sessions, *familiarity.open(sessions[0].device)])
            report(f"Runs on {sessions[0].description}.")
            limit = 1 if sessions[0].device in ("cpu", "openvino") else _GPU_BATCH
            closing = _Closing(sessions, progress)
            for smaller in _with_smaller_windows(spec, sessions[0]):
                if smaller.patch != spec.patch:
                    size = " × ".join(map(str, smaller.patch))
                    warn(f"Little memory: now in smaller parts, of {size} voxels.")
                try:
                    result = segment(
                        volume,
                        smaller,
                        sessions,
                        closing,
                        cancelled,
                        with_companions(spec.keep_largest_component, options.wanted),
                        BatchSize(limit, warn),
                        familiarity.look,
                        options.threads,
                        prepared.result(),
                    )
                    return _checked(result, package, options, familiarity, report)
                except OutOfMemory as error:
                    failure = OutOfMemory(str(error))  # without the frames, which hold memory
                except MemoryError:
                    failure = OutOfMemory(_NO_ROOM)
                except NotANumber as error:
                    failure = NotANumber(str(error))
                    break
                if closing.closed:
                    break  # it was the result that did not fit
            device = sessions[0].device
            if isinstance(failure, NotANumber):
                warn(f"The network calculated values that are no numbers on {device}.")
            else:
                warn(f"Too little memory on {device}.")
        raise failure


class _Closing:
    """Progress, after whose last window the networks' memory is given back: what comes then needs
    some of its own."""

    def __init__(self, sessions: Sequence[Session], progress: Progress | None):
        self.closed = False
        self._sessions, self._progress = sessions, progress

    def __call__(self, done: int, total: int) -> None:
        if done == total:
            self.closed = True
            for session in self._sessions:
                session.close()
        if self._progress is not None:
            self._progress(done, total)


def _checked(result, package, options, familiarity, report: Report) -> Segmentation:
    report("Checking the result")
    if groups := package.spec.keep_largest_component:
        result = keep_largest_component(result, groups, package.labels, options.wanted)
    checked = check_result(result, package, options.wanted)
    found = (*familiarity.findings, *result.findings, *checked)
    return replace(result, findings=gravest_first(found))


def _sessions(package: ModelPackage, options: InferenceOptions, warn: Report):
    """Yield the opened networks of the package on one device after the other."""
    from MIMSegment.Logic.runtime import open_session

    spec, failures = package.spec, []
    tile = (1, len(spec.inputs), *spec.patch[3 - spec.dims :])
    for device in (devices := fallback_order(options.device)):
        precision = precision_on(device, options.device, options.precision)
        try:
            sessions = [
                open_session(path, device, precision, options.threads, options.trusted, tile)
                for path in package.model_paths
            ]
        except DeviceError as error:
            failures.append(error)
            if device == options.device or not isinstance(error, MissingDevice):
                warn(f"{error} Trying the next device.")
            elif device == "cuda" and (card := nvidia_gpu()) is not None:
                warn(f"The {card.name} is not used: {error}")
            continue
        for session in sessions:
            session.check_channels(len(spec.inputs), len(spec.channel_labels), str(package.path))
        yield sessions
        for session in sessions:  # the next device may be in the same memory
            session.close()
    if len(failures) == len(devices):
        raise failures[-1]


def _with_smaller_windows(spec: ModelSpec, session: Session) -> Iterator[ModelSpec]:
    """The spec, and then with ever smaller patches if the network takes other sizes."""
    factors = _size_factors(session.input_shape[-spec.dims :])
    while True:
        yield spec
        if factors is None:
            return
        patch = list(spec.patch)
        first = 3 - spec.dims
        axis = max(range(first, 3), key=lambda a: patch[a])
        factor = factors[axis - first]
        patch[axis] = -(-patch[axis] // (2 * factor)) * factor
        if patch[axis] < _SMALLEST_WINDOW or tuple(patch) == spec.patch:
            return
        spec = replace(spec, patch=tuple(patch))


def _size_factors(shape: Sequence[int | str | None]) -> list[int] | None:
    """Sizes along each axis must be multiples of these; None when the file fixes them or does not
    say, as TorchScript.

    An exported axis of free size is named like ``8*z``.
    """
    if not shape or any(isinstance(size, int) for size in shape):
        return None
    return [int(m[0]) if (m := re.match(r"\d+", str(size))) else 1 for size in shape]


def check_options(options: InferenceOptions, package: ModelPackage) -> None:
    """Raise DeviceError for an unknown precision, PackageError when a structure is asked for that
    the package does not have."""
    check_precision(options.precision)
    known = {label.value for label in package.labels}
    unknown = sorted(set(options.wanted or ()) - known)
    if unknown:
        shown = ", ".join(f"{label.value} ({label.name})" for label in package.labels[:_SHOWN])
        more = (
            "" if len(known) <= _SHOWN else f" and more, which `mimsegment info {package.id}` lists"
        )
        raise PackageError(
            f"{package.title} has no structure with label {unknown[0]}; it has {shown}{more}."
        )
