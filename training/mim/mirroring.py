"""Mirroring at inference: along the axes in which a network has learnt that sides do not matter."""

from __future__ import annotations

from collections.abc import Sequence

from mim.agreement import ExportError
from mim.ensemble import Member

_AXES = "zyx"


def flipped_axes(members: Sequence[Member]) -> tuple[int, ...]:
    """The axes (0 is z, 2 is x) along which crops were mirrored in the training of every member.

    Of pictures only those in the plane. Raises ExportError where there is none.
    """
    dims = members[0].metadata["plan"].get("dims", 3)
    flips = [m.metadata["recipe"].get("spatial", {}).get("flip", ()) for m in members]
    axes = tuple(
        axis
        for axis in range(3 - dims, 3)
        if all(axis < len(flip) and flip[axis] for flip in flips)
    )
    if not axes:
        raise ExportError(
            f"{members[0].path}: along no axis was every crop of its training mirrored at times "
            "(spatial.flip), so that a mirrored image is none that the network knows; leave out "
            "--mirror, or train with flips."
        )
    return axes


def mirroring_in_words(axes: Sequence[int]) -> str:
    """What the model card says of it."""
    return (
        f"Mirroring: along {', '.join(_AXES[axis] for axis in axes)}; {2 ** len(axes)} predictions "
        "of each window are averaged (--no-mirroring: one)"
    )
