"""Carrying pre-trained weights into a network for another task, and saying what was carried.

Loading that matches nothing and says nothing is the commonest way to lose a pre-training.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor, nn

from mim.checkpoint import CheckpointError, load_checkpoint

_STEM = "encoder.stem.convs.0.conv.weight"
_HEAD = "decoder.seg_layers."
_ALIASES = (
    ("decoder.encoder.", "encoder."),
    (".all_modules.0.", ".conv."),
    (".all_modules.1.", ".norm."),
)


@dataclass(frozen=True)
class TransferReport:
    """What became of each tensor, once for each, by its first name.

    ``loaded`` as it was; ``adapted`` to another shape; ``skipped``: in the checkpoint, not used;
    ``missing``: in the model, kept its fresh weights. The values of all but the first say why.
    ``parameters`` counts numbers, not tensors: those loaded or adapted, and all of the model.
    """

    source: str
    loaded: tuple[str, ...]
    adapted: dict[str, str]
    skipped: dict[str, str]
    missing: dict[str, str]
    parameters: tuple[int, int]

    def summary(self) -> str:
        """A short table to print."""
        carried, total = self.parameters
        lines = [
            f"Weights from {self.source}",
            f"  loaded   {len(self.loaded):4d} tensors",
            *_rows("adapted", self.adapted),
            *_rows("skipped", self.skipped),
            *_rows("missing", self.missing),
            f"  {carried:,} of {total:,} parameters are pre-trained ({carried / total:.1%})",
        ]
        return "\n".join(lines)


def load_pretrained(
    model: nn.Module, checkpoint: str | Path, parts: Sequence[str] = ("encoder", "decoder")
) -> TransferReport:
    """Load the parts of a pre-trained U-Net into ``model``, in place.

    A tensor is loaded where name and shape agree. The first convolution is adapted to another
    number of input channels; the output layers belong to their task and are left alone. Raises
    CheckpointError when a part of ``parts`` finds no tensor at all.
    """
    source = _canonical(load_checkpoint(checkpoint)["model"])
    target = dict(model.named_parameters())
    loaded, adapted, skipped = [], {}, {}
    for name, tensor in source.items():
        reason = _reason_to_skip(name, tensor, target, parts)
        if reason:
            skipped[name] = reason
        elif tensor.shape == target[name].shape:
            target[name].data.copy_(tensor)
            loaded.append(name)
        else:
            adapted[name] = f"{tensor.shape[1]} to {target[name].shape[1]} input channels"
            target[name].data.copy_(adapt_inputs(tensor, target[name].shape[1]))
    carried = [*loaded, *adapted]
    _require_each_part(parts, carried, skipped, checkpoint)
    missing = {name: skipped.get(name, "not in the checkpoint") for name in target}
    for name in carried:
        del missing[name]
    count = sum(target[name].numel() for name in carried)
    total = sum(tensor.numel() for tensor in target.values())
    return TransferReport(str(checkpoint), tuple(loaded), adapted, skipped, missing, (count, total))


def adapt_inputs(weight: Tensor, channels: int) -> Tensor:
    """A convolution's weight (out, in, ...) for ``channels`` inputs instead.

    Inputs that are all alike give the same output as before.
    """
    mean = weight.sum(1, keepdim=True) / channels
    return mean.repeat(1, channels, *(1 for _ in weight.shape[2:]))


def _canonical(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """One name for each tensor, without the pre-training method's prefix.

    What is not part of the network (a mask token) keeps its name, and is reported as such.
    """
    prefix = "network." if any(name.startswith("network.") for name in state) else ""
    canonical = {}
    for name, tensor in state.items():
        name = name.removeprefix(prefix)
        for alias, first in _ALIASES:
            name = name.replace(alias, first)
        canonical.setdefault(name, tensor)
    return canonical


def _reason_to_skip(
    name: str, tensor: Tensor, target: dict[str, nn.Parameter], parts: Sequence[str]
) -> str:
    if not name.startswith(tuple(f"{part}." for part in parts)):
        return "part not asked for" if name.startswith(("encoder.", "decoder.")) else "no network"
    if name.startswith(_HEAD):
        return "output layer of another task"
    if name not in target:
        return "not in the model"
    old, new = tuple(tensor.shape), tuple(target[name].shape)
    if old == new or (name == _STEM and old[:1] + old[2:] == new[:1] + new[2:]):
        return ""
    return f"shape {old} against {new}"


def _require_each_part(
    parts: Sequence[str], carried: Sequence[str], skipped: dict[str, str], checkpoint: str | Path
) -> None:
    for part in parts:
        if not any(name.startswith(f"{part}.") for name in carried):
            examples = "; ".join(f"{name}: {why}" for name, why in list(skipped.items())[:3])
            raise CheckpointError(
                f"{checkpoint} gave no tensor to the model's {part} ({examples or 'it is empty'}); "
                f"the network must be of the kind it was pre-trained as."
            )


def _rows(title: str, tensors: dict[str, str]) -> list[str]:
    """The number of tensors, and of each reason."""
    lines = [f"  {title:8s} {len(tensors):4d} tensors"] if tensors else []
    for reason in dict.fromkeys(tensors.values()):
        count = sum(1 for other in tensors.values() if other == reason)
        lines.append(f"           {count:4d} {reason}")
    return lines
