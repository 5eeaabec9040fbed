"""Starting a run from the weights of another, and remembering what those have learnt from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from torch import nn

from mim.data import Cache
from mim.seen import check_unseen
from mim.transfer import PARTS, load_pretrained


def start_from(
    checkpoint: str,
    model: nn.Module,
    caches: Sequence[Cache],
    metadata: dict,
    outputs: Sequence[str],
    parts: Sequence[str] = PARTS,
    required: Sequence[str] = PARTS,
) -> str:
    """Load ``checkpoint`` into ``model`` as `load_pretrained` does; what to print of it.

    What it has seen is added to the ``metadata`` of the run on ``caches``, the first of which is
    planned for, and the recipe that it was made by is noted there. Raises RecipeError when it has
    seen what one of the caches holds back, CheckpointError when it does not fit.
    """
    cache = caches[0]
    spacing = cache.plan["preprocessing"]["spacing"] if len(cache.patch) == 3 else None
    report = load_pretrained(model, checkpoint, parts, spacing, outputs, required)
    for one in caches:
        check_unseen(one, report.seen, checkpoint)
    metadata["seen"] = sorted({*metadata["seen"], *report.seen})
    if report.recipe:
        metadata["start"] = dict(report.recipe)
    return report.summary()


def go_on(metadata: dict, before: Mapping) -> None:
    """Put into the ``metadata`` of a continued run where it began, from that of its checkpoint."""
    metadata |= {key: before[key] for key in ("seen", "start") if key in before}
