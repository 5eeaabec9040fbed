"""Fine-tuning to segment: one label for each voxel, or regions that lie in each other."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from mim.data import IGNORED, Cache, LabeledCrops, LabeledVolumes, draw_labeled_crops
from mim.evaluation import evaluate_cases, summarize, torch_predictor
from mim.learning_curve import WatchedSegmentation, held_back_cases, watched_cases
from mim.regions import Region, plan_regions, region_targets
from mim.sources import originals


class Segmentation:
    """The task of a cache with labels, as `finetune.py` asks for it.

    ``foreground`` is the share of crops that are centered on a structure.
    """

    kind = "segmentation"
    networks = ("resenc_unet", "unetr", "swin_unetr")
    recipes = "finetune_cpu.toml and finetune_unetr_cpu.toml"
    parts = ("encoder", "decoder")

    def __init__(self, cache: Cache, foreground: float):
        self.cache, self.foreground = cache, foreground

    @property
    def outputs(self) -> int:
        """Channels of the network: background and labels, or regions."""
        return len(plan_regions(self.cache.plan)) or len(self.cache.plan["labels"]) + 1

    @staticmethod
    def is_labeled(case: dict) -> bool:
        """Whether a case of cases.json can be learnt from."""
        return case["label"] is not None

    @staticmethod
    def stratum(cases: Sequence[dict]) -> tuple[int, ...]:
        """What subsets of subjects must have evenly: the set of structures in a subject's cases.

        A lesion is not in everyone. Caches of older versions do not say what is where.
        """
        return tuple(sorted({value for case in cases for value in case.get("structures") or ()}))

    def load(self, subjects: Iterable[str], device: torch.device, limit_gib: float) -> None:
        """Open the training images, see `LabeledVolumes`; must come before `draw`."""
        self.volumes = LabeledVolumes(self.cache, subjects, device, limit_gib)

    def draw(self, batch: int, generator: torch.Generator) -> LabeledCrops:
        return draw_labeled_crops(self.volumes, self.cache.patch, batch, generator, self.foreground)

    def loss(self, network: nn.Module) -> Callable[[LabeledCrops], Tensor]:
        return segmentation_loss(network, self.cache.plan)

    def watch(self, count: int) -> Callable[[nn.Module], float]:
        """Mean Dice of the middles of ``count`` held-back images, on the cache's grid."""
        cases = watched_cases(self.cache, self.is_labeled, count)
        regions = bool(plan_regions(self.cache.plan))
        return WatchedSegmentation(self.cache, cases, self._masks, regions)

    def _masks(self, labels: Tensor) -> Tensor:
        """Structures (b, structures, ...) of labels (b, 1, ...): regions, or labels 1, 2, ..."""
        regions = plan_regions(self.cache.plan)
        values = [0, *(label["value"] for label in self.cache.plan["labels"])]
        if regions:
            return region_targets(labels.where(labels != IGNORED, 0), regions, values) > 0.5
        return torch.cat([labels == channel for channel in range(1, len(values))], dim=1)

    def evaluate(self, network: nn.Module, bf16: bool) -> dict:
        """Dice of the held-back images: `evaluation.summarize`, and ``rows`` with each of them."""
        rows = evaluate_cases(self._measured(), self.cache.plan, torch_predictor(network, bf16))
        return {**summarize(rows), "rows": rows}

    def originals(self) -> list[str]:
        """The files beside the cache that `evaluate` reads."""
        return originals(self._measured())

    def _measured(self) -> list[dict]:
        return held_back_cases(self.cache, self.is_labeled)


def segmentation_loss(network: nn.Module, plan: dict) -> Callable[[LabeledCrops], Tensor]:
    """Soft Dice plus cross-entropy in float32, over the foreground classes or over the regions.

    A network that returns outputs at several resolutions, the finest first, learns from all of
    them, each half as much as the finer one (deep supervision, Lee et al., 2015). `IGNORED` voxels
    count neither as anything nor as background.
    """
    from monai.losses import DiceCELoss, DiceLoss

    regions = plan_regions(plan)
    values = [0, *(label["value"] for label in plan["labels"])]
    softmax = DiceCELoss(include_background=False, to_onehot_y=True, softmax=True, batch=True)
    dice = DiceLoss(sigmoid=True, batch=True)

    def at_one_resolution(logits: Tensor, labels: Tensor) -> Tensor:
        if plan.get("ignore") is not None:
            return _loss_of_known(logits, labels, regions, values)
        if not regions:
            return softmax(logits, labels)
        targets = region_targets(labels, regions, values)
        entropy = functional.binary_cross_entropy_with_logits(logits, targets)
        return dice(logits, targets) + entropy

    def compute_loss(crops: LabeledCrops) -> Tensor:
        outputs = network(crops.images)
        outputs = outputs if isinstance(outputs, Sequence) else [outputs]
        weights = [0.5**level for level in range(len(outputs))]
        with torch.autocast(outputs[0].device.type, enabled=False):
            losses = [
                weight * at_one_resolution(logits.float(), _resized(crops.labels, logits))
                for weight, logits in zip(weights, outputs, strict=True)
            ]
        return sum(losses) / sum(weights)

    return compute_loss


def _loss_of_known(
    logits: Tensor, labels: Tensor, regions: Sequence[Region], values: Sequence[int]
) -> Tensor:
    """The same loss over the voxels that are not `IGNORED`; 0 where there is none."""
    from monai.losses import DiceLoss

    known = labels != IGNORED
    labels = labels.where(known, 0)
    if regions:
        targets, found = region_targets(labels, regions, values), logits.sigmoid()
        entropy = functional.binary_cross_entropy_with_logits(logits, targets, reduction="none")
        entropy = entropy.mean(1, keepdim=True)
    else:
        targets = torch.cat([labels == channel for channel in range(1, logits.shape[1])], dim=1)
        targets, found = targets.float(), logits.softmax(1)[:, 1:]
        entropy = functional.cross_entropy(logits, labels[:, 0], reduction="none")[:, None]
    dice = DiceLoss(batch=True)(found * known, targets * known)
    return dice + (entropy * known).sum() / known.sum().clamp(min=1)


def _resized(labels: Tensor, logits: Tensor) -> Tensor:
    """Labels (b, 1, ...) on the grid of ``logits``, nearest neighbor."""
    if labels.shape[2:] == logits.shape[2:]:
        return labels
    small = functional.interpolate(labels.float(), logits.shape[2:], mode="nearest-exact")
    return small.to(labels.dtype)
