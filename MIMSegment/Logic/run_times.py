"""How long segmentations took on this computer, to say beforehand how long the next one takes."""

from __future__ import annotations

import contextlib
from dataclasses import asdict, dataclass
from pathlib import Path

from MIMSegment.Logic.errors import OutputError
from MIMSegment.Logic.files import read_json_object, write_json


@dataclass(frozen=True)
class RunTime:
    """The last run of a package with a device setting: seconds from the request to the result,
    voxels of the image, and what calculated."""

    seconds: float
    voxels: int
    device: str

    def for_voxels(self, voxels: int) -> float:
        """The seconds to expect for another image, in proportion to its size."""
        return self.seconds * voxels / self.voxels


class RunTimes:
    """Run times by package and device setting in the JSON file ``path``.

    The file is a help and no record: one that cannot be read or written is passed over.
    """

    def __init__(self, path: Path):
        self._path = path
        self._runs: dict | None = None

    def find(self, package: str, device: str) -> RunTime | None:
        """The last run of ``package`` ("id@version") with the setting ``device``, if any."""
        if self._runs is None:
            self._runs = read_json_object(self._path)
        try:
            run = RunTime(**self._runs[_key(package, device)])
            return run if run.voxels > 0 and run.seconds > 0 else None
        except (KeyError, TypeError):
            return None

    def note(self, package: str, device: str, run: RunTime) -> None:
        """Remember ``run`` in place of the one before."""
        self._runs = read_json_object(self._path) | {_key(package, device): asdict(run)}
        with contextlib.suppress(OSError, OutputError):
            self._path.parent.mkdir(parents=True, exist_ok=True)
            write_json(self._path, self._runs)


def _key(package: str, device: str) -> str:
    return f"{package} {device}"
