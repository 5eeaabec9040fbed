"""Connected parts of a label image, found among its runs: no array as large as the image."""

from __future__ import annotations

import numpy as np

from MIMSegment.Logic.run_lengths import PLANE, ROW, RunLengths

_EARLIER_ROWS = (ROW, PLANE - ROW, PLANE, PLANE + ROW)  # back to those that touch a row's voxels


def number_parts(runs: RunLengths) -> np.ndarray:
    """For each run the number, from 0, of the connected part that it belongs to.

    A part's voxels have one label and share at least a corner with each other.
    """
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    count = len(runs.position)
    pairs = [_touching(runs, distance) for distance in _EARLIER_ROWS]
    run, other = (np.concatenate(side) for side in zip(*pairs, strict=True))
    graph = coo_array((np.ones(len(run), bool), (run, other)), (count, count))
    return connected_components(graph, directed=False)[1]


def number_joint_parts(runs: RunLengths) -> np.ndarray:
    """As `number_parts`, of all runs together: their labels do not matter."""
    begins = np.ones(len(runs.position), bool)  # of a row of runs without a gap
    begins[1:] = runs.position[1:] != runs.position[:-1] + runs.length[:-1]
    first = np.flatnonzero(begins)
    length = np.add.reduceat(runs.length, first) if len(first) else runs.length
    joined = RunLengths(runs.position[first], length, np.ones_like(first, np.uint16))
    return number_parts(joined)[np.cumsum(begins) - 1]


def _touching(runs: RunLengths, distance: int) -> tuple[np.ndarray, np.ndarray]:
    """Pairs of runs of one label, of which the second lies ``distance`` earlier and touches."""
    begin, end = runs.position, runs.position + runs.length
    low = np.searchsorted(end, begin - distance, "left")  # ends at the corner, or later
    high = np.searchsorted(begin, end - distance, "right")
    count = np.maximum(high - low, 0)
    run = np.repeat(np.arange(len(begin)), count)
    within = np.arange(len(run)) - np.repeat(np.cumsum(count) - count, count)
    other = low[run] + within
    equal = runs.value[run] == runs.value[other]
    return run[equal], other[equal]
