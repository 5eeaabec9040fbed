"""What the person who starts the server decides."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from MIMSegment.Logic.store import data_home
from mimsegment_web.address import LOOPBACK


@dataclass(frozen=True)
class Settings:
    """``study`` is opened at once; the studies in ``data`` can be chosen on the page; ``packages``
    is the folder of the installed models (default: the user's own); reviews are kept in
    ``output``. ``upload_limit`` is in bytes for one study. ``reviewer`` is the name for the audit
    log, "" for none.
    """

    study: Path | None = None
    data: Path | None = None
    packages: Path | None = None
    output: Path = field(default_factory=lambda: data_home() / "reviews")
    model: str = ""
    reviewer: str = ""
    host: str = LOOPBACK
    port: int = 0
    upload_limit: int = 4_000_000_000
