"""Segments in memory, as `SegmentStore` wants them."""

import numpy as np

from MIMSegment.Logic.review_items import SegmentRecord


class MemoryStore:
    """Labels in one array: where a segment is painted, another is erased."""

    def __init__(self, labels: np.ndarray, names: dict[int, str], voxel_ml: float = 0.001):
        self.labels, self.voxel_ml, self.lines = labels.copy(), voxel_ml, []
        self._records = {
            f"Segment_{value}": SegmentRecord(f"Segment_{value}", value, name, (value, 0, 0))
            for value, name in names.items()
        }
        self._callback = None

    def paint(self, segment_id: str, where) -> None:
        self.labels[where] = self._records[segment_id].label
        self.stir()

    def remove(self, segment_id: str) -> None:
        record = self._records.pop(segment_id)
        self.labels[self.labels == record.label] = 0
        self.stir()

    def stir(self) -> None:
        if self._callback:
            self._callback()

    def records(self):
        return list(self._records.values())

    def write(self, record):
        self._records[record.id] = record

    def volumes_ml(self, ids=None):
        ids = list(self._records) if ids is None else ids
        counts = {i: int((self.labels == self._records[i].label).sum()) for i in ids}
        return {i: count * self.voxel_ml for i, count in counts.items()}

    def snapshot(self):
        return self.labels.copy()

    def changed_voxels(self, snapshot):
        different = snapshot != self.labels
        changed = {}
        for record in self._records.values():
            now, then = self.labels == record.label, snapshot == record.label
            count = int((different & (now | then)).sum())
            changed |= {record.id: count} if count else {}
        return changed

    def restore(self, snapshot, ids):
        for segment_id in ids:
            value = self._records[segment_id].label
            self.labels[self.labels == value] = 0
            self.labels[snapshot == value] = value
        self.stir()

    def watch(self, callback):
        self._callback = callback

    def log(self, entry):
        self.lines.append(dict(entry))

    def logged(self):
        return list(self.lines)
