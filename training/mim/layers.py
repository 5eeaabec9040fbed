"""Which layer of a network a parameter belongs to, for learning rates that fall with depth."""

from __future__ import annotations

import re
from collections.abc import Sequence

from torch import nn

# The first number in a name like these is the layer; what matches none comes before the first.
_NUMBERED = re.compile(r"\b(?:blocks|stages|layers)(\d*)c?\.(\d+)\b")


def layer_of(name: str) -> int:
    """The layer of the encoder's parameter ``name``: 0 is the stem, 1 the first block or stage.

    Understands vision transformers (``blocks.3``), residual encoders (``stages.3``) and Swin
    (``layers4.0``, numbered from 1; the convolution before it, ``layers4c.0``, is of the same
    layer), with any prefix. A normalization after the last block counts
    as 0 here; `layers` puts it at the end.
    """
    found = _NUMBERED.search(name)
    if found is None:
        return 0
    return int(found[1]) if found[1] else int(found[2]) + 1


def layers(names: Sequence[str]) -> dict[str, int]:
    """The layer of each parameter of an encoder; names in the model's order."""
    depth = {name: layer_of(name) for name in names}
    last, seen = max(depth.values(), default=0), 0
    for name in names:
        seen = max(seen, depth[name])
        if depth[name] == 0 and seen:  # after blocks: a final norm
            depth[name] = last
    return depth


def layer_scales(
    model: nn.Module, encoder: str | tuple[str, ...], layer_decay: float, head_lr: float
) -> dict[str, float]:
    """The factor of the learning rate of every parameter of ``model``.

    Parameters whose name starts with ``encoder`` get ``layer_decay`` to the power of the layers
    above them (Clark et al., ELECTRA, 2020; Bao et al., BEiT, 2022); all others get ``head_lr``.
    """
    names = [name for name, _ in model.named_parameters()]
    depth = layers([name for name in names if name.startswith(encoder)])
    top = max(depth.values(), default=0) + 1
    return {
        name: layer_decay ** (top - depth[name]) if name in depth else head_lr for name in names
    }
