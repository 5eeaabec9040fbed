"""The tables of a batch: volumes.csv of what is done, failures.csv of what is not."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from MIMSegment.Logic.cohort import FAILURES, VOLUMES, BatchCase, read_table
from MIMSegment.Logic.errors import FileInUse, InputError
from MIMSegment.Logic.files import write_csv
from MIMSegment.Logic.labels import Label

_FURTHER = ("gravest", "findings", "warnings", "inputs", "given", "device")


class BatchTables:
    """The rows by case, of earlier runs too; ``failures`` are those of this one.

    Raises InputError for a volumes.csv that is none any more.
    """

    def __init__(self, folder: Path, labels: Sequence[Label]):
        self.failures: dict[str, dict] = {}
        self._folder = folder
        self._columns = ["case", *map(volume_column, labels), *_FURTHER]
        rows = read_table(folder / VOLUMES, errors="surrogateescape")  # names as `write` has them
        if any(not row.get("case") for row in rows):
            raise InputError(
                f"{folder / VOLUMES} has no column 'case' any more; undo what was changed in it, "
                "or remove it: then all cases are done again."
            )
        self._volumes = {row["case"]: row for row in rows}

    def is_done(self, case: BatchCase) -> bool:
        """Whether there is a row of the case, made of the same images as far as is known."""
        row = self._volumes.get(case.name)
        return row is not None and row.get("given") in (None, "", _given(case))

    def forget(self, case: BatchCase) -> bool:
        """Take out the row of a case; whether there was one."""
        return self._volumes.pop(case.name, None) is not None

    def add(self, case: BatchCase, row: Mapping) -> None:
        """The case is done."""
        self._volumes[case.name] = {"case": case.name, "given": _given(case), **row}

    def fail(self, case: BatchCase, reason: str) -> None:
        """The case has failed."""
        self.failures[case.name] = {"case": case.name, "reason": reason}

    def write(self, report: Callable[[str], None] | None = None) -> None:
        """Write both. With ``report``, which hears of it, a table that is open in another program
        is left for the next time. Raises OutputError."""
        for name, columns, rows in (
            (VOLUMES, self._columns, self._volumes.values()),
            (FAILURES, ["case", "reason"], self.failures.values()),
        ):
            path = self._folder / name
            if name == VOLUMES and not rows and not path.exists():
                continue
            cells = ([row.get(column, "") for column in columns] for row in rows)
            try:
                write_csv(path, columns, cells)
            except FileInUse as error:
                if report is None:
                    raise
                report(f"{error} It is tried again after the next case.")


def volume_column(label: Label) -> str:
    """The heading of a structure's volumes."""
    return f"{label.name} (mL)"


def _given(case: BatchCase) -> str:
    return "; ".join(case.given)
