"""Carrying pre-trained weights into a network for another task, and saying what was carried.

Loading that matches nothing and says nothing is the commonest way to lose a pre-training.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor, nn

from mim.checkpoint import CheckpointError
from mim.outputs import comparison
from mim.weight_files import OWN, Weights, read_weights, unwrapped
from mim.weight_names import translate
from mim.weight_shapes import Grids, fit

# The output layers of the networks used here; each belongs to its task.
_HEAD = re.compile(r"^(decoder\.seg_layers|out\.conv|classification_head|head|fc)\.")
# What is pre-trained as the encoder: of a residual encoder U-Net, UNETR, SwinUNETR, a bare ViT.
_ENCODER = re.compile(
    r"^(encoder|vit|swinViT|patch_embed(ding)?|blocks|norm|layers\d+c?)\.|^(cls_token|pos_embed)$"
)
_EMBEDDING = re.compile(r"(^|\.)patch_embed(\.proj|ding\.patch_embeddings)\.weight$")

PARTS = ("encoder", "decoder")
_SAME_SPACING = 1.5  # factor; augmentation scales by about as much
_FEW = 0.1  # of the parameters asked for; output layers and adapted kernels are fewer


@dataclass(frozen=True)
class TransferReport:
    """What became of each tensor, once for each, by its name in the model.

    ``loaded`` as it was; ``adapted`` to another shape; ``skipped``: in the checkpoint, not used;
    ``missing``: in the model, kept its fresh weights. The values of all but the first say why.
    ``parameters`` counts numbers, not tensors: those loaded or adapted, and all of the model;
    ``shares`` the part of the encoder's and the decoder's that is pre-trained, 0 to 1. ``seen``
    are the digests of the images that it learnt from, and ``recipe`` what it was made by, where the
    file tells them.
    """

    source: str
    loaded: tuple[str, ...]
    adapted: dict[str, str]
    skipped: dict[str, str]
    missing: dict[str, str]
    parameters: tuple[int, int]
    shares: dict[str, float]
    notes: tuple[str, ...] = ()
    seen: tuple[str, ...] = ()
    recipe: Mapping = field(default_factory=dict)

    def summary(self) -> str:
        """A short table to print."""
        carried, total = self.parameters
        share = f"{carried:,} of {total:,} parameters are pre-trained ({carried / total:.1%}"
        shares = ", ".join(f"{part} {share:.1%}" for part, share in self.shares.items())
        lines = [
            f"Weights from {self.source}",
            *(f"  {note}" for note in self.notes),
            f"  loaded   {len(self.loaded):4d} tensors",
            *_rows("adapted", self.adapted),
            *_rows("skipped", self.skipped),
            *_rows("missing", self.missing),
            f"  {share}: {shares})",
        ]
        return "\n".join(lines)


def load_pretrained(
    model: nn.Module,
    checkpoint: str | Path,
    parts: Sequence[str] = PARTS,
    spacing: Sequence[float] | None = None,
    outputs: Sequence[str] = (),
    required: Sequence[str] = PARTS,
) -> TransferReport:
    """Load the ``parts`` of a pre-trained network into ``model``, in place.

    ``model`` is a network, or a method of pre-training around one. The file may come from this
    program, nnssl/OpenMind, nnU-Net, MONAI (ViT, UNETR, SwinUNETR and its pre-trainings, VoCo),
    torchvision or timm; see `weight_files` and `weight_names`. A tensor is loaded where name and
    shape agree, and adapted where `weight_shapes.fit` knows how. Output layers belong to their
    task: the file's is loaded where it is for the same ``outputs`` (see `outputs_of`), and left
    alone elsewhere. ``spacing`` is the voxel size (z, y, x in mm) of the task, to note where that
    of the pre-training was another. Raises CheckpointError when the encoder finds no tensor, or a
    decoder that is all that was asked for, or is in the file and ``required``, when nothing was
    loaded at all, and for a network that is not built here.
    """
    weights = read_weights(checkpoint)
    _check_known(weights, checkpoint)
    target = _targets(model)
    source, dialect, notes = translate(weights.state, target)
    theirs = weights.facts.get("outputs", ())
    wanted = (*parts, "head") if theirs and tuple(theirs) == tuple(outputs) else tuple(parts)
    loaded, adapted, skipped = _carry(model, source, target, wanted, weights.facts.get("grid"))
    carried = {*loaded, *adapted}
    _check_parts(parts, required, carried, skipped, checkpoint, target)
    shares = {part: _share(target, carried, part) for part in PARTS}
    shares = {part: share for part, share in shares.items() if share is not None}
    notes += [
        f"the file holds no {part} that fits this model: it starts fresh"
        for part in parts
        if shares.get(part) == 0
    ]
    if any(part_of(name) == "head" for name in source):
        kept = any(part_of(name) == "head" for name in carried)
        notes += comparison(kept, theirs, outputs)
    missing = {
        name: skipped.get(name, "not in the checkpoint") for name in target if name not in carried
    }
    counts = (_count(target, carried), _count(target, target))
    notes = [_provenance(weights, dialect), *notes, *_other_spacing(weights, spacing)]
    notes += _other_shapes(target, skipped, parts, weights, checkpoint)
    return TransferReport(
        str(checkpoint),
        tuple(loaded),
        adapted,
        skipped,
        missing,
        counts,
        shares,
        tuple(notes),
        tuple(weights.facts.get("seen", ())),
        weights.facts.get("recipe", {}),
    )


def _carry(
    model: nn.Module,
    source: dict[str, Tensor],
    target: dict[str, Tensor],
    parts: Sequence[str],
    grid: tuple[int, ...] | None,
) -> tuple[list[str], dict[str, str], dict[str, str]]:
    """Copy what fits; the names that were loaded, adapted and skipped, the last two with why.

    ``grid`` is that of the file's tokens, where it says so.
    """
    loaded, adapted, skipped = [], {}, {}
    dims, grids_of = _image_dims(source), _grids(model)
    for name, tensor in source.items():
        reason = _reason_to_skip(name, target, parts)
        if not reason:
            own = grids_of[name]
            grids = Grids(own, grid, dims) if own else None
            fitted, how = fit(name, tensor, target[name].shape, grids)
            reason = how if fitted is None else ""
        if reason:
            skipped[name] = reason
            continue
        with torch.no_grad():
            target[name].copy_(fitted)
        if how:
            adapted[name] = how
        else:
            loaded.append(name)
    return loaded, adapted, skipped


def part_of(name: str) -> str:
    """``"head"``, ``"encoder"`` or ``"decoder"``: where a model's tensor belongs."""
    if _HEAD.match(name):
        return "head"
    return "encoder" if _ENCODER.match(name) else "decoder"


def _targets(model: nn.Module) -> dict[str, Tensor]:
    """The model's parameters and running statistics, each by its first name in the network."""
    state = model.state_dict()
    buffers = {n: b for n, b in model.named_buffers() if n in state and b.is_floating_point()}
    return unwrapped({**dict(model.named_parameters()), **buffers})


def _grids(model: nn.Module) -> dict[str, tuple[int, ...] | None]:
    """`_grid` of every tensor of `_targets`."""
    return unwrapped({name: _grid(model, name) for name in model.state_dict()})


def _reason_to_skip(name: str, target: dict[str, Tensor], parts: Sequence[str]) -> str:
    part = part_of(name)
    if part == "head" and part not in parts:
        return "output layer of another task"
    if name not in target:
        return "not in the model"
    return "" if part in parts else "part not asked for"


def _grid(model: nn.Module, name: str) -> tuple[int, ...] | None:
    """The grid of tokens of the module that owns the tensor, where it says so."""
    owner = model
    for step in name.split(".")[:-1]:
        owner = getattr(owner, step, None)
    # MONAI's UNETR calls it feat_size.
    grid = getattr(owner, "grid", None) or getattr(model, "feat_size", None)
    return tuple(grid) if isinstance(grid, list | tuple) else None


def _image_dims(source: dict[str, Tensor]) -> int | None:
    """2 or 3, from the kernel that embeds patches; None where there is none, or a plain matrix."""
    kernels = (tensor for name, tensor in source.items() if _EMBEDDING.search(name))
    return next((kernel.ndim - 2 for kernel in kernels if kernel.ndim > 3), None)


def _check_known(weights: Weights, checkpoint: str | Path) -> None:
    """Raise CheckpointError for OpenMind's transformer, by the plan or by the names of tensors."""
    network = weights.facts.get("architecture", "")
    if not network and any(name.startswith("eva.") for name in weights.state):
        network = "Primus"
    if network.startswith("Primus"):
        raise CheckpointError(
            f"{checkpoint} holds {network}, nnssl's transformer, which MIM Segment does not build; "
            f"take the file of the same pre-training with ResEncL."
        )


def _check_parts(
    parts: Sequence[str],
    required: Sequence[str],
    carried: set[str],
    skipped: dict[str, str],
    checkpoint: str | Path,
    target: dict[str, Tensor],
) -> None:
    """Raise CheckpointError for a part that had to find a tensor and did not."""
    found = {part_of(name) for name in carried}
    in_file = {part_of(name) for name in skipped if name in target}
    for part in parts:
        must = part == "encoder" or len(parts) == 1 or (part in in_file and part in required)
        if must and part not in found:
            raise _nothing_for(part, skipped, checkpoint)
    if not carried:
        raise _nothing_for("encoder or decoder", skipped, checkpoint)


def _nothing_for(part: str, skipped: dict[str, str], checkpoint: str | Path) -> CheckpointError:
    examples = "; ".join(f"{name}: {why}" for name, why in list(skipped.items())[:3])
    return CheckpointError(
        f"{checkpoint} gave no tensor to the model's {part} ({examples or 'it is empty'}); the "
        f"network must be of the kind it was pre-trained as, and parts must name what the file "
        f"holds."
    )


def _provenance(weights: Weights, dialect: str) -> str:
    trainer = f" by {weights.facts['trainer']}" if "trainer" in weights.facts else ""
    return f"written as {weights.origin}{trainer}, read with the names of {dialect}"


def _other_spacing(weights: Weights, spacing: Sequence[float] | None) -> list[str]:
    """A warning when voxels were of another size, which costs most of what pre-training gives."""
    before = weights.facts.get("spacing")
    if before is None or spacing is None:
        return []
    ratios = [max(a / b, b / a) for a, b in zip(before, spacing, strict=True)]
    if max(ratios) <= _SAME_SPACING:
        return []
    sizes = [" x ".join(f"{mm:g}" for mm in size) for size in (before, spacing)]
    return [
        f"WARNING: pre-trained on voxels of {sizes[0]} mm, used on voxels of {sizes[1]} mm; that "
        f"can cost more than pre-training gives. Pre-train on this cache, or compare with scratch."
    ]


def _other_shapes(
    target: dict[str, Tensor],
    skipped: dict[str, str],
    parts: Sequence[str],
    weights: Weights,
    checkpoint: str | Path,
) -> list[str]:
    """A warning when much of what was asked for is in the file, but in other shapes."""
    misfits = [name for name in skipped if name in target and part_of(name) in parts]
    lost = _count(target, misfits)
    total = _count(target, [name for name in target if part_of(name) in parts])
    if lost <= _FEW * total:
        return []
    way_out = "choose network.features, strides and kernel_sizes as the file's network has them"
    if weights.origin == OWN:
        way_out = (
            f"prepare this cache with prepare.py --like {checkpoint}, and keep network.features"
        )
    example = f"{misfits[0]}: {skipped[misfits[0]]}"
    return [
        f"WARNING: {lost / total:.0%} of the parameters of {' and '.join(parts)} stay fresh, as "
        f"the pre-trained network has other shapes ({example}); {way_out}."
    ]


def _count(target: dict[str, Tensor], names) -> int:
    return sum(target[n].numel() for n in names if isinstance(target[n], nn.Parameter))


def _share(target: dict[str, Tensor], carried: set[str], part: str) -> float | None:
    names = [name for name in target if part_of(name) == part]
    total = _count(target, names)
    return _count(target, [name for name in names if name in carried]) / total if total else None


def _rows(title: str, tensors: dict[str, str]) -> list[str]:
    """The number of tensors, and of each reason."""
    lines = [f"  {title:8s} {len(tensors):4d} tensors"] if tensors else []
    for reason in dict.fromkeys(tensors.values()):
        count = sum(1 for other in tensors.values() if other == reason)
        lines.append(f"           {count:4d} {reason}")
    return lines
