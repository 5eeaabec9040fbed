"""How good a network is while it learns: a score of fixed held-back images, logged and not used."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from mim.data import IGNORED, Cache, LabeledVolumes, center_crop
from MIMSegment.Logic.errors import InputError

WATCHED = "held_back_score"


def held_back_cases(cache: Cache, is_labeled: Callable[[dict], bool]) -> list[dict]:
    """The labelled held-back cases, in the order of the cache."""
    held_back = set(cache.held_back)
    return [case for case in cache.cases if case["subject"] in held_back and is_labeled(case)]


def watched_cases(cache: Cache, is_labeled: Callable[[dict], bool], count: int) -> list[dict]:
    """``count`` labelled held-back cases, or all where there are fewer; the same for every run.

    Raises InputError when there is none.
    """
    cases = held_back_cases(cache, is_labeled)
    if not cases:
        raise InputError(f"{cache.folder} has no labelled held-back case to watch; use watch=0.")
    return random.Random(0).sample(cases, min(count, len(cases)))


class WatchedSegmentation:
    """Mean Dice of the middles of some cases.

    ``masks`` makes boolean structures (b, structures, ...) of labels (b, 1, ...); ``regions`` says
    that the network has one sigmoid for each of them, and no background.
    """

    def __init__(
        self,
        cache: Cache,
        cases: Sequence[dict],
        masks: Callable[[Tensor], Tensor],
        regions: bool,
    ):
        subjects = {case["subject"] for case in cases}
        volumes = LabeledVolumes(cache.restricted_to(cases), subjects)
        self.images = [center_crop(image, cache.patch) for image in volumes.images]
        labels = [center_crop(label[None], cache.patch).long() for label in volumes.labels]
        self.truth = [masks(label) for label in labels]
        self.known = [label != IGNORED for label in labels]
        self.masks, self.regions = masks, regions

    def __call__(self, network: nn.Module) -> float:
        """Structures that neither the network nor the reader sees do not count, nor does what the
        reader left open."""
        device = next(network.parameters()).device
        scores = []
        for image, truth, known in zip(self.images, self.truth, self.known, strict=True):
            outputs = network(image.to(device))
            logits = (outputs[0] if isinstance(outputs, list) else outputs).cpu()
            found = logits > 0 if self.regions else self.masks(logits.argmax(1, keepdim=True))
            scores.append(_dice(found & known, truth))
        return float(torch.cat(scores).nanmean())


def _dice(found: Tensor, truth: Tensor) -> Tensor:
    """Of each structure (b, structures, ...), one after the other; NaN where both are empty."""
    found, truth = found.flatten(2).double(), truth.flatten(2).double()
    return (2 * (found * truth).sum(2) / (found.sum(2) + truth.sum(2))).flatten()
