"""What a network's output layer is for, so that it is kept only where it means the same again."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

# Methods of pre-training whose output is the image itself, and nnssl's trainers that are such.
_RESTORING = ("masked_unet", "s3d", "masked_contrastive", "models_genesis")
_RESTORING_TRAINER = re.compile(rf"MAE|Spark|{'|'.join(_RESTORING)}")


def outputs_of(kind: str, plan: Mapping) -> tuple[str, ...]:
    """What the channels of an output layer stand for: a word for all, then their names in order.

    ``kind`` is that of a checkpoint: segmentation, classification or a method of pre-training.
    """
    if kind == "segmentation":
        what = "regions" if plan.get("regions") else "labels"
        word = "regions" if what == "regions" else "structures"
        return word, *(str(entry["name"]) for entry in plan.get(what, ()))
    if kind == "classification":
        word = "findings" if plan.get("multi_label") else "classes"
        return word, *map(str, plan.get("classes", ()))
    return ("restored images" if kind in _RESTORING else f"the method {kind}",)


def outputs_in(content: Mapping, own: bool) -> tuple[str, ...]:
    """The same of a file's ``content``, where it tells; ``own``: it was written by this program."""
    metadata = content.get("metadata")
    if own and isinstance(metadata, Mapping) and "kind" in metadata:
        return outputs_of(metadata["kind"], metadata.get("plan") or {})
    if _RESTORING_TRAINER.search(str(content.get("trainer_name", ""))):
        return ("restored images",)
    return ()


def in_words(outputs: Sequence[str]) -> str:
    """``outputs`` for a sentence."""
    what, *names = outputs
    return f"the {what} {', '.join(names)}" if names else what


def comparison(kept: bool, theirs: Sequence[str], ours: Sequence[str]) -> list[str]:
    """What to say of an output layer that was ``kept`` or left; nothing where it is not known."""
    if kept:
        return [f"the output layer is kept: both are for {in_words(ours)}"]
    if theirs and ours and tuple(theirs) != tuple(ours):
        return [
            f"the file's output layer is for {in_words(theirs)}, this one for {in_words(ours)}: it "
            f"starts fresh"
        ]
    return []
