"""The volumes inside one DICOM series.

A series may hold several b-values, echoes, time points, image types or orientations. They are
told apart only where that is needed: a trait that merely varies from slice to slice (a trigger
time, an acquisition number) must not tear a volume to pieces.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass

import numpy as np

from MIMSegment.Logic.dicom_headers import Frame

SAME_PLACE = 0.01  # mm along the normal within which two slices lie at one place
EVEN = 0.1  # of the slice distance by which a slice may be off its even place
_SAME_DIRECTION = 5e-3  # difference of direction cosines, about 0.3°


@dataclass(frozen=True)
class Part:
    """The frames of one volume, and what tells it from the others of its series."""

    frames: tuple[Frame, ...]
    traits: tuple[tuple[str, str], ...] = ()


def split_series(frames: list[Frame]) -> list[Part]:
    """Divide the frames of one series into volumes, each with its frames in slice order."""
    parts = []
    for group in _by_grid(frames):
        originals, copies = _without_copies(group)
        for part in _split(originals, list(originals[0].traits)):
            own = {_identity(f) for f in part.frames}
            extra = [c for c in copies if _identity(c) in own]
            parts.append(Part(tuple(_in_order([*part.frames, *extra])), part.traits))
    return parts


def normal(frame: Frame) -> np.ndarray:
    """The unit vector in which the slices of a stack follow each other."""
    vector = np.cross(*frame.orientation)
    return vector / np.linalg.norm(vector)


def places(frames) -> np.ndarray:
    """Millimeters along the first frame's normal, one for each frame."""
    return np.array([f.position for f in frames]) @ normal(frames[0])


def slots(frames) -> list[list[Frame]]:
    """The frames by place along the normal, in ascending order; more than one means duplicates."""
    along = places(frames)
    order = np.argsort(along, kind="stable")
    result: list[list[Frame]] = []
    last = -np.inf
    for i in order:
        if along[i] - last > SAME_PLACE:
            result.append([])
            last = along[i]
        result[-1].append(frames[i])
    return result


def is_even(along: np.ndarray) -> bool:
    """Whether ascending places are evenly spaced, up to rounding in the headers."""
    if len(along) < 3:
        return True
    ideal = np.linspace(along[0], along[-1], len(along))
    step = (along[-1] - along[0]) / (len(along) - 1)
    return bool(np.abs(along - ideal).max() <= EVEN * step + SAME_PLACE)


def _by_grid(frames: list[Frame]) -> list[list[Frame]]:
    """Frames that could lie in one regular grid: same size, spacing and orientation."""
    groups: list[list[Frame]] = []
    for frame in frames:
        for group in groups:
            if _same_grid(group[0], frame):
                group.append(frame)
                break
        else:
            groups.append([frame])
    return groups


def _same_grid(a: Frame, b: Frame) -> bool:
    if a.shape != b.shape or (a.position is None) != (b.position is None):
        return False
    for x, y, tolerance in (
        (a.spacing, b.spacing, 1e-4),
        (a.orientation, b.orientation, _SAME_DIRECTION),
    ):
        if (x is None) != (y is None):
            return False
        if x is not None and np.abs(np.subtract(x, y)).max() > tolerance:
            return False
    return True


def _identity(frame: Frame):
    place = None if frame.position is None else tuple(np.round(frame.position, 3))
    return frame.uid, frame.index, frame.instance, place


def _without_copies(frames: list[Frame]) -> tuple[list[Frame], list[Frame]]:
    """Split off second files of the same image, which are found in copied folders."""
    seen, originals, copies = set(), [], []
    for frame in frames:
        (copies if _identity(frame) in seen else originals).append(frame)
        seen.add(_identity(frame))
    return originals, copies


def _split(frames: list[Frame], traits: list[str], path=()) -> list[Part]:
    """Divide by the first traits that lessen what speaks against the frames being one volume."""
    if not _placed(frames[0]) or _cost([frames])[:2] == (0, 0):
        return [Part(tuple(frames), path)]
    for i, trait in enumerate(traits):
        groups = defaultdict(list)
        for frame in frames:
            groups[frame.traits[trait]].append(frame)
        if len(groups) > 1 and _cost(groups.values()) < _cost([frames]):
            ordered = sorted(groups.items(), key=lambda item: _sortable(item[0]))
            return [
                part
                for n, (value, group) in enumerate(ordered, start=1)
                for part in _split(
                    group, traits[i + 1 :], (*path, (trait, _said(trait, value, n, len(ordered))))
                )
            ]
    return _by_turns(frames, path)


def _by_turns(frames: list[Frame], path) -> list[Part]:
    """With nothing else to go by: the n-th image at every place belongs to the n-th volume."""
    stacks = slots(frames)
    counts = {len(stack) for stack in stacks}
    if len(stacks) < 2 or len(counts) != 1 or counts == {1}:
        return [Part(tuple(frames), path)]
    ordered = [sorted(stack, key=lambda f: (f.instance, f.uid, f.index)) for stack in stacks]
    count = counts.pop()
    return [
        Part(tuple(stack[n] for stack in ordered), (*path, ("turn", f"volume {n + 1} of {count}")))
        for n in range(count)
    ]


def _cost(groups) -> tuple[int, int, int]:
    """What speaks against each group being one volume; smaller is better.

    Frames at a place that is taken, or alone in a group; then groups unevenly spaced; then groups.
    """
    groups = list(groups)
    several = len(slots([frame for group in groups for frame in group])) > 1
    misfits = uneven = 0
    for group in groups:
        stacks = slots(group)
        misfits += len(group) - len(stacks) + (1 if several and len(stacks) == 1 else 0)
        uneven += not is_even(places([stack[0] for stack in stacks]))
    return misfits, int(uneven > 0), len(groups)


def _placed(frame: Frame) -> bool:
    return frame.position is not None and frame.orientation is not None


def _in_order(frames: list[Frame]) -> list[Frame]:
    if not _placed(frames[0]):
        return sorted(frames, key=lambda f: (f.instance, f.index))
    return [frame for stack in slots(frames) for frame in stack]


def _sortable(value):
    return (value is not None, value if not isinstance(value, tuple) else tuple(map(str, value)))


def _said(trait: str, value, n: int, count: int) -> str:
    """How a volume's share in a trait is told; never a time of day."""
    if value is not None and trait == "b":
        return f"b {value:g}"
    if value is not None and trait in ("TE", "TI"):
        return f"{trait} {value:g} ms"
    if trait == "type":
        return "/".join(v for v in value if v) or f"type {n} of {count}"
    return f"{trait} {n} of {count}"
