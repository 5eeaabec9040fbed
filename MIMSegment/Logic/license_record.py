"""Which licenses the user has said to have read: asked once, kept in a small file."""

from __future__ import annotations

import datetime
import json
from pathlib import Path

from MIMSegment.Logic.catalog import CatalogEntry
from MIMSegment.Logic.errors import OutputError
from MIMSegment.Logic.files import replacing


class LicenseRecord:
    """``path`` is a JSON table from license and address to the date of the acknowledgment."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def is_missing(self, entry: CatalogEntry) -> bool:
        """Whether the entry's license must still be shown to the user and acknowledged."""
        return entry.license_acknowledgment and _key(entry) not in self._read()

    def acknowledge(self, entry: CatalogEntry) -> None:
        """Record that the user has read the entry's license. Raises OutputError."""
        record = self._read() | {_key(entry): datetime.date.today().isoformat()}
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise OutputError(
                f"{self._path} could not be written: {error.strerror or error}; choose a folder "
                "that you may write to."
            ) from error
        with replacing(self._path) as temporary:
            temporary.write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")

    def _read(self) -> dict[str, str]:
        try:
            record = json.loads(self._path.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return {}
        return record if isinstance(record, dict) else {}


def _key(entry: CatalogEntry) -> str:
    return f"{entry.license} {entry.license_url}"
