"""Which licenses the user has said to have read: asked once, kept in a small file."""

from __future__ import annotations

import datetime
from pathlib import Path

from MIMSegment.Logic.catalog import CatalogEntry
from MIMSegment.Logic.files import not_written, read_json_object, write_json


class LicenseRecord:
    """``path`` is a JSON table from license and address to the date of the acknowledgment."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def is_missing(self, entry: CatalogEntry) -> bool:
        """Whether the entry's license must still be shown to the user and acknowledged."""
        return entry.license_acknowledgment and _key(entry) not in read_json_object(self._path)

    def acknowledge(self, entry: CatalogEntry) -> None:
        """Record that the user has read the entry's license. Raises OutputError."""
        record = read_json_object(self._path) | {_key(entry): datetime.date.today().isoformat()}
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise not_written(self._path, error) from error
        write_json(self._path, record)


def _key(entry: CatalogEntry) -> str:
    return f"{entry.license} {entry.license_url}"
