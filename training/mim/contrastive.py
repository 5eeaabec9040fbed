"""Contrastive pre-training: two views of a crop agree, views of different crops do not.

SimCLR (Chen et al., ICML 2020, arXiv 2002.05709) with the normalized temperature-scaled
cross-entropy (NT-Xent), as the baseline of MIM-Med3D (arXiv 2204.11716) and of OpenMind
(arXiv 2412.17041). On any backbone that gives one vector for an image, see `embedding`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, NamedTuple

import torch
from torch import Tensor, distributed, nn
from torch.nn import functional

from mim.intensity import IntensitySettings
from mim.parallel import mean_over_processes, rank, world_size
from mim.pooling import pool_mean
from mim.recipe import RecipeError, section, setting
from mim.run_log import TrainingError
from mim.views import ViewSettings
from mim.vit import VisionTransformer

# Embeddings of independent random directions have a spread of about 1, collapsed ones of 0.
COLLAPSED = 0.05
_LEAST_VARIANCE = 1e-5  # as of torch's batch norm


@dataclass(frozen=True)
class ContrastiveSettings:
    """The head above the backbone and the loss."""

    temperature: float = setting(0.5, "of NT-Xent; lower values look harder at similar crops")
    projection: int = setting(128, "width of the embeddings that are compared")
    hidden: int = setting(512, "width of the projection head's inner layer")
    standardize: bool = setting(
        False, "features over the batch before the head; for networks with instance normalization"
    )
    views: ViewSettings = section(ViewSettings)
    intensity: IntensitySettings = section(IntensitySettings)
    name: Literal["simclr"] = setting("simclr", "contrast of two views (SimCLR), encoder only")

    def __post_init__(self):
        if self.temperature <= 0 or min(self.projection, self.hidden) < 1:
            raise RecipeError("method.temperature, projection and hidden must be above 0.")


class Contrast(NamedTuple):
    """``loss`` is a scalar; ``embeddings`` (2, b, projection) of unit length, one for each view."""

    loss: Tensor
    embeddings: Tensor


class ContrastiveModel(nn.Module):
    """A backbone under a projection head; only the backbone is kept after pre-training."""

    def __init__(self, network: nn.Module, width: int, settings: ContrastiveSettings):
        super().__init__()
        self.network = network
        self.settings = settings
        self.head = ProjectionHead(width, settings)
        self.guard = CollapseGuard()

    def forward(self, first: Tensor, second: Tensor) -> Contrast:
        """Two views (b, c, [z,] y, x) of the same crops, in the same order."""
        return self.compare(embedding(self.network, torch.cat((first, second))))

    def compare(self, features: Tensor) -> Contrast:
        """``features`` (2b, width): those of the first views, then those of the second.

        In training the crops of all processes are compared; in evaluation those of this one, as
        every process then holds the same crops and would find its own among the negatives.
        """
        shared = self.training
        if self.settings.standardize:
            features = standardized(features, shared)
        embeddings = self.head(features)
        with torch.autocast(features.device.type, enabled=False):
            first, second = functional.normalize(embeddings.float(), dim=1).chunk(2)
            loss = nt_xent(first, second, self.settings.temperature, shared)
        self.guard.watch(torch.cat((first, second)))
        return Contrast(loss, torch.stack((first, second)))


class Backbone(nn.Module):
    """The part of a network that gives its features, under its own name; the rest is left out."""

    PARTS = ("encoder", "swinViT", "vit")

    def __init__(self, network: nn.Module):
        super().__init__()
        if isinstance(network, VisionTransformer):  # it has no other part
            self.add_module("vit", network)
            return
        part = next((name for name in self.PARTS if hasattr(network, name)), None)
        if part is None:
            raise RecipeError(
                f"{type(network).__name__} has no encoder that contrast could train; choose "
                f"another network.name."
            )
        self.add_module(part, getattr(network, part))


class ProjectionHead(nn.Sequential):
    """Linear, layer norm, GELU, linear."""

    def __init__(self, width: int, settings: ContrastiveSettings):
        super().__init__(
            nn.Linear(width, settings.hidden),
            nn.LayerNorm(settings.hidden),
            nn.GELU(),
            nn.Linear(settings.hidden, settings.projection),
        )


class CollapseGuard(nn.Module):
    """Follows how widely embeddings are spread, on the device, and speaks when asked."""

    spread: Tensor

    def __init__(self, momentum: float = 0.9):
        super().__init__()
        self.momentum = momentum
        self.register_buffer("spread", torch.ones(()))

    @torch.no_grad()
    def watch(self, embeddings: Tensor) -> None:
        """Take in a batch (n, width) of unit vectors; nothing is read back."""
        if self.training:
            self.spread.lerp_(spread(embeddings), 1 - self.momentum)

    def check(self) -> float:
        """The spread, mean of the processes; raises TrainingError when all embeddings have become
        one, and then in all of them.

        Waits for the device: call it where a loop reads numbers anyway.
        """
        value = float(mean_over_processes(self.spread.clone()))
        if value < COLLAPSED:
            raise TrainingError(
                f"The embeddings have collapsed: their spread is {value:.3f}, where 1 is healthy "
                f"and 0 means that every crop looks the same. Lower optimizer.lr, use a larger "
                f"loop.batch (the negatives), or change method.temperature."
            )
        return value


def spread(embeddings: Tensor) -> Tensor:
    """Standard deviation over the batch, mean over dimensions, in units of a random direction's."""
    return embeddings.float().std(0, correction=0).mean() * embeddings.shape[1] ** 0.5


def nt_xent(first: Tensor, second: Tensor, temperature: float, shared: bool = True) -> Tensor:
    """NT-Xent of two views (b, width) of unit length; negatives come from all processes, or from
    this one where not ``shared``.

    Each embedding must find its other view among all 2B - 1 others, B samples in all processes
    together. The mean over this process's 2b embeddings is returned.
    """
    own = torch.cat((first, second))
    others = torch.cat((gather(first), gather(second))) if shared else own
    similarity = own @ others.T / temperature
    batch, total = len(first), len(others) // 2
    place = torch.arange(batch, device=own.device) + (rank() * batch if shared else 0)
    itself = torch.cat((place, total + place))
    similarity = similarity.scatter(1, itself[:, None], -torch.inf)
    return functional.cross_entropy(similarity, torch.cat((total + place, place)))


def standardized(features: Tensor, shared: bool = True) -> Tensor:
    """Each feature of (n, width) with mean 0 and deviation 1 over the samples of all processes, or
    of this one where not ``shared``.

    What the batch norm of the paper's head does. The pooled features of a network with instance
    normalization hardly differ between images: without it embeddings begin, and can stay, alike.
    """
    with torch.autocast(features.device.type, enabled=False):
        features = features.float()
        over = gather(features) if shared else features
        variance, mean = torch.var_mean(over, 0, correction=0)
        return (features - mean) / (variance + _LEAST_VARIANCE).sqrt()


def gather(x: Tensor) -> Tensor:
    """``x`` (b, ...) of every process, in their order; gradients find their way back."""
    if world_size() == 1:
        return x
    return torch.cat(_GatherWithGradient.apply(x.contiguous()))


class _GatherWithGradient(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x: Tensor) -> tuple[Tensor, ...]:
        parts = [torch.empty_like(x) for _ in range(world_size())]
        distributed.all_gather(parts, x)
        return tuple(parts)

    @staticmethod
    def backward(ctx, *gradients: Tensor) -> Tensor:
        # Every process's loss depends on this process's part: add up all their gradients for it.
        stacked = torch.stack(gradients)
        distributed.all_reduce(stacked)
        return stacked[rank()]


def embedding(network: nn.Module, images: Tensor) -> Tensor:
    """One vector (b, width) for each image: the mean of the backbone's coarsest features.

    Knows residual encoders (``network.encoder``), MONAI's UNETR and ViT, SwinUNETR and SwinViT; any
    other network gives it by a method ``embed``.
    """
    if hasattr(network, "embed"):
        return network.embed(images)
    if hasattr(network, "encoder"):
        return pool_mean(network.encoder(images)[-1])
    if hasattr(network, "swinViT"):
        return pool_mean(network.swinViT(images)[-1])
    return getattr(network, "vit", network)(images)[0].mean(1)
