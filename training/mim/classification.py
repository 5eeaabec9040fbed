"""Fine-tuning to tell classes apart: whole images, one class each or several findings at once."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from mim.class_results import summarize_classes
from mim.data import Cache, Crops, UnlabeledVolumes, center_crop, draw_crops
from mim.learning_curve import held_back_cases, watched_cases
from mim.mean_loss import MeanLoss
from MIMSegment.Logic.errors import InputError

ClassWeights = Literal["none", "balanced"]


class Classification:
    """The task of a cache with classes, as `finetune.py` asks for it."""

    kind = "classification"
    networks = ("resenc_classifier", "vit_classifier")
    recipes = "finetune_lesions.toml and finetune_xray_cpu.toml"
    parts = ("encoder",)

    def __init__(self, cache: Cache, weights: ClassWeights):
        self.cache, self.weights = cache, weights

    @property
    def outputs(self) -> int:
        """One logit for each class."""
        return len(self.cache.plan["classes"])

    @staticmethod
    def is_labeled(case: dict) -> bool:
        """Whether a case of cases.json has a class."""
        return case.get("target") is not None

    @staticmethod
    def stratum(cases: Sequence[dict]) -> str:
        """What subsets of subjects must have evenly: the class of a subject's first case."""
        return str(cases[0]["target"])

    def load(self, subjects: Iterable[str], device: torch.device, limit_gib: float) -> None:
        """Open the training images, see `ClassifiedVolumes`; must come before `draw` and `loss`."""
        self.volumes = ClassifiedVolumes(self.cache, subjects, device, limit_gib)

    def draw(self, batch: int, generator: torch.Generator) -> ClassifiedCrops:
        return self.volumes.draw(self.cache.patch, batch, generator)

    def loss(self, network: nn.Module) -> Callable[[ClassifiedCrops], MeanLoss]:
        balanced = self.weights == "balanced"
        weight = balanced_weights(self.volumes.targets, self.outputs) if balanced else None
        return classification_loss(network, weight)

    def watch(self, count: int) -> Callable[[nn.Module], float]:
        """Mean area under the ROC curves of ``count`` held-back images."""
        cases = watched_cases(self.cache, self.is_labeled, count)
        volumes = ClassifiedVolumes(
            self.cache.restricted_to(cases), {case["subject"] for case in cases}
        )
        classes = self.cache.plan["classes"]

        def measure(network: nn.Module) -> float:
            bf16 = torch.is_autocast_enabled(next(network.parameters()).device.type)
            probabilities = predict_cases(network, volumes, self.cache.patch, bf16)
            return summarize_classes(probabilities, volumes.entries, classes)["auc_mean"]

        return measure

    @staticmethod
    def originals() -> list[str]:
        """The files beside the cache that `evaluate` reads: none."""
        return []

    def evaluate(self, network: nn.Module, bf16: bool) -> dict:
        """Figures of the held-back images: `summarize_classes`."""
        classes, cases = self.cache.plan["classes"], held_back_cases(self.cache, self.is_labeled)
        if not cases:
            return summarize_classes(np.empty((0, len(classes))), [], classes)
        volumes = ClassifiedVolumes(self.cache, {case["subject"] for case in cases})
        probabilities = predict_cases(network, volumes, self.cache.patch, bf16)
        return summarize_classes(probabilities, volumes.entries, classes)


@dataclass(frozen=True)
class ClassifiedCrops(Crops):
    """``targets``: int64 (b,) class of each sample, or float (b, classes) of 0 and 1."""

    targets: Tensor


class ClassifiedVolumes:
    """Images of some subjects and their classes; those without a class are left out.

    ``entries`` are the cases of cases.json, ``targets`` as in `ClassifiedCrops`, in their order.
    """

    def __init__(
        self,
        cache: Cache,
        subjects: Iterable[str],
        device: torch.device | str = "cpu",
        limit_gib: float = 8.0,
    ):
        wanted = set(subjects)
        chosen = (case for case in cache.cases if case["subject"] in wanted)
        self.entries = [case for case in chosen if Classification.is_labeled(case)]
        if not self.entries:
            raise InputError(f"None of the asked subjects in {cache.folder} has a class.")
        known = cache.restricted_to(self.entries)
        self.volumes = UnlabeledVolumes(
            known, {case["subject"] for case in self.entries}, device, limit_gib
        )
        kind = torch.float32 if cache.plan["multi_label"] else torch.int64
        self.targets = torch.tensor([case["target"] for case in self.entries], dtype=kind)
        self._index = {case["id"]: i for i, case in enumerate(self.entries)}

    def draw(
        self, patch: tuple[int, ...], batch: int, generator: torch.Generator
    ) -> ClassifiedCrops:
        """As `data.draw_crops`, with classes."""
        crops = draw_crops(self.volumes, patch, batch, generator)
        targets = self.targets[[self._index[name] for name in crops.cases]]
        targets = targets.to(crops.images.device, non_blocking=True)
        return ClassifiedCrops(crops.images, crops.valid, crops.cases, targets)


def classification_loss(
    network: nn.Module, weight: Tensor | None = None
) -> Callable[[ClassifiedCrops], MeanLoss]:
    """Cross-entropy; where several classes can be there at once a binary one for each of them.

    ``weight`` (classes,) scales each class, of several at once its positive samples.
    """

    def compute_loss(crops: ClassifiedCrops) -> MeanLoss:
        logits = network(crops.images)
        with torch.autocast(logits.device.type, enabled=False):
            scale = None if weight is None else weight.to(logits.device, non_blocking=True)
            if crops.targets.ndim == 2:
                return MeanLoss(
                    functional.binary_cross_entropy_with_logits(
                        logits.float(), crops.targets, pos_weight=scale
                    )
                )
            loss = functional.cross_entropy(logits.float(), crops.targets, weight=scale)
            return MeanLoss(loss, None if scale is None else scale[crops.targets].sum())

    return compute_loss


def balanced_weights(targets: Tensor, classes: int) -> Tensor:
    """Weights (classes,) by which rare classes of the training data count as much as common ones.

    Of exclusive classes the mean count of a class over its own; of findings that can be there at
    once the images without one over those with it.
    """
    if targets.ndim == 2:
        positive = targets.sum(0)
        return (len(targets) - positive).clamp(min=1) / positive.clamp(min=1)
    counts = torch.bincount(targets, minlength=classes).clamp(min=1)
    return len(targets) / (classes * counts.float())


def predict_cases(
    network: nn.Module, volumes: ClassifiedVolumes, patch: tuple[int, ...], bf16: bool
) -> np.ndarray:
    """Probabilities (cases, classes) from the middle of each image."""
    device = next(network.parameters()).device
    network.eval()
    found = []
    for image in volumes.volumes.images:
        crop = center_crop(image, patch).to(device)
        with torch.inference_mode(), torch.autocast(device.type, torch.bfloat16, enabled=bf16):
            found.append(network(crop).float().cpu())
    logits = torch.cat(found)
    several = volumes.targets.ndim == 2
    return (logits.sigmoid() if several else logits.softmax(1)).numpy()
