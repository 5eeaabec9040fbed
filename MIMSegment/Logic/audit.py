"""The audit log: who decided what about which structure of which result, and from which model.

One JSON object per line, only ever appended. A line is written in one piece and begins on a fresh
line even after a crash in the middle of the one before, and `read_log` skips what is no whole line,
so that a broken line costs itself and nothing else. Nothing identifies the patient, and nothing
leaves the computer.
"""

from __future__ import annotations

import contextlib
import datetime
import json
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from MIMSegment.Logic.about import NAME, VERSION
from MIMSegment.Logic.errors import OutputError
from MIMSegment.Logic.image_record import ImageRecord
from MIMSegment.Logic.package import ModelPackage

LOG_SUFFIX = ".audit.jsonl"

COLUMNS = (
    "time", "event", "package", "version", "weights", "software", "series", "structure", "label",
    "verdict", "volume_before_ml", "volume_after_ml", "voxels_changed", "export", "device",
    "reviewer",
)  # fmt: skip
"""The keys of an entry, in the order in which a table shows them; a line has those that apply."""

Entry = dict[str, Any]
Sink = Callable[[Mapping[str, Any]], None]


@dataclass(frozen=True)
class Provenance:
    """What a result was made with: package, SHA-256 of its weights, software, input series.

    ``series_uids`` are the SeriesInstanceUIDs of the inputs, in their order, "" where unknown.
    ``images`` say which images these were; they are for the report and not in the audit log.
    """

    package: str
    version: str
    weights: Mapping[str, str] = field(default_factory=dict)
    series_uids: Sequence[str] = ()
    software: str = f"{NAME} {VERSION}"
    images: Sequence[ImageRecord] = ()

    @staticmethod
    def of(
        package: ModelPackage,
        series_uids: Sequence[str] = (),
        images: Sequence[ImageRecord] = (),
    ) -> Provenance:
        """The provenance of a result of ``package``."""
        weights = {name: package.checksums[name] for name in package.spec.models}
        return Provenance(
            package.id, package.version, weights, tuple(series_uids), images=tuple(images)
        )

    @property
    def algorithm(self) -> str:
        """The name for DICOM's SegmentAlgorithmName."""
        return f"{self.package} {self.version}"


class AuditLog:
    """Appends entries to a file and to further ``sinks`` (the table in the scene).

    Without a ``path`` the entries wait in memory until `move_to` gives them a file. ``reviewer`` is
    the name that the user has set for that purpose (Slicer's user information), never guessed.
    ``entries`` are those of earlier sittings, which the sinks hold already.
    """

    def __init__(
        self,
        provenance: Provenance,
        path: Path | None = None,
        sinks: Sequence[Sink] = (),
        reviewer: str = "",
        entries: Sequence[Mapping[str, Any]] = (),
        now: Callable[[], datetime.datetime] = lambda: datetime.datetime.now(datetime.UTC),
    ):
        self.path = path
        self.entries: list[Entry] = [dict(entry) for entry in entries]
        self.provenance, self._reviewer, self._now = provenance, reviewer, now
        self._sinks = list(sinks)

    def record(self, event: str, **values) -> Entry:
        """Append one entry; ``values`` are further columns. Raises OutputError."""
        made = self.provenance
        entry = {
            "time": self._now().isoformat(timespec="seconds").replace("+00:00", "Z"),
            "event": event,
            "package": made.package,
            "version": made.version,
            "weights": dict(made.weights),
            "software": made.software,
            "series": list(made.series_uids),
            **{k: plain_text(v) if isinstance(v, str) else v for k, v in values.items()},
        }
        if self._reviewer:
            entry["reviewer"] = plain_text(self._reviewer)
        self.entries.append(entry)
        for sink in self._sinks:
            sink(entry)
        if self.path is not None:
            append_line(self.path, entry)
        return entry

    def move_to(self, path: Path) -> None:
        """Go on in ``path``, which gets the entries that it does not hold yet. Raises
        OutputError."""
        if self.path == path:
            return
        held = read_log(path) if path.is_file() else []
        for entry in self.entries:
            if entry in held:
                held.remove(entry)  # two steps within one second may have equal lines
            else:
                append_line(path, entry)
        self.path = path


def plain_text(text: str) -> str:
    """Text as the scene's table can hold it, so that table and file have equal lines."""
    return " ".join(text.replace('"', "'").split())


def log_path(scene: Path) -> Path:
    """The log beside a scene file: ``case.mrb`` has ``case.audit.jsonl``."""
    return scene.with_name(scene.name.removesuffix(scene.suffix) + LOG_SUFFIX)


def append_line(path: Path, entry: Mapping[str, Any]) -> None:
    """Append one entry as one line that is on the disk on return. Raises OutputError."""
    line = json.dumps(entry, ensure_ascii=False).encode("utf-8") + b"\n"
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT | _BINARY, 0o600)
        with open(descriptor, "r+b", buffering=0) as file:
            if _ends_within_a_line(file):
                line = b"\n" + line
            if file.write(line) != len(line):
                raise OSError("the disk is full")
            os.fsync(file.fileno())
    except OSError as error:
        raise OutputError(
            f"The audit log {path} could not be written ({error.strerror or error}); free space, "
            "or save the scene to a folder that you may write to."
        ) from None


def read_log(path: Path) -> list[Entry]:
    """The whole entries of a log, oldest first. Raises OutputError when it cannot be opened."""
    try:
        lines = path.read_bytes().split(b"\n")
    except OSError as error:
        raise OutputError(f"The audit log {path} cannot be read ({error.strerror}).") from None
    entries = []
    for line in lines:
        with contextlib.suppress(ValueError):
            entry = json.loads(line)
            if isinstance(entry, dict):
                entries.append(entry)
    return entries


_BINARY = getattr(os, "O_BINARY", 0)  # Windows would write \r\n otherwise


def _ends_within_a_line(file) -> bool:
    size = file.seek(0, os.SEEK_END)
    if not size:
        return False
    file.seek(size - 1)
    return file.read(1) != b"\n"
