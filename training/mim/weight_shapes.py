"""Fitting a pre-trained tensor to a model of other inputs: channels, positions, dimensions."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor
from torch.nn import functional

# Layers that see the image itself, in all the networks used here.
_FIRST = re.compile(
    r"(^|\.)(stem\.convs\.0\.conv|patch_embed\.proj|patch_embedding\.patch_embeddings(\.1)?"
    r"|encoder1\.layer\.conv[13]\.conv)\.weight$|^conv1\.weight$"
)
_POSITIONS = re.compile(r"(^|\.)(pos_embed|position_embeddings|positions)$")


@dataclass(frozen=True)
class Grids:
    """Where positions lie: tokens ([z,] y, x) of the model, and of the file where it says so.

    ``dims`` are those of the images that the file's network was for, where that shows; else they
    are taken to be the model's.
    """

    model: tuple[int, ...]
    file: tuple[int, ...] | None = None
    dims: int | None = None


def fit(
    name: str, tensor: Tensor, shape: Sequence[int], grids: Grids | None = None
) -> tuple[Tensor | None, str]:
    """``tensor`` in ``shape`` and how it was made so, or None and why it cannot be.

    Positions are fitted where ``grids`` says where they lie.
    """
    shape, old = tuple(shape), tuple(tensor.shape)
    mismatch = f"shape {old} against {shape}"
    if _POSITIONS.search(name) and grids:
        return _fit_positions(tensor, shape, grids)
    if old == shape:
        return tensor, ""
    steps = []
    if tensor.ndim == 4 and len(shape) == 5:
        tensor = inflate(tensor, shape[2])
        steps.append(f"inflated to {shape[2]} slices" if shape[2] > 1 else "made one slice of 3D")
    if not _FIRST.search(name):
        return (tensor, steps[0]) if tuple(tensor.shape) == shape else (None, mismatch)
    if tensor.ndim == len(shape) > 2 and tensor.shape[1] != shape[1]:
        steps.append(f"{tensor.shape[1]} to {shape[1]} input channels")
        tensor = adapt_inputs(tensor, shape[1])
    if tensor.ndim == len(shape) and tuple(tensor.shape[2:]) != shape[2:]:
        steps.append(f"kernel {_times(tensor.shape[2:])} to {_times(shape[2:])}")
        tensor = crop_kernel(tensor, shape[2:])
    return (tensor, ", ".join(steps)) if tuple(tensor.shape) == shape else (None, mismatch)


def adapt_inputs(weight: Tensor, channels: int) -> Tensor:
    """A convolution's weight (out, in, ...) for ``channels`` inputs instead.

    Inputs that are all alike give the same output as before.
    """
    mean = weight.sum(1, keepdim=True) / channels
    return mean.repeat(1, channels, *(1 for _ in weight.shape[2:]))


def inflate(weight: Tensor, slices: int) -> Tensor:
    """A 2D kernel (out, in, y, x) as a 3D one: repeated along z and divided by ``slices``.

    A volume of equal slices gives what the image gave (I3D, Carreira and Zisserman, CVPR 2017).
    """
    return weight[:, :, None].repeat(1, 1, slices, 1, 1) / slices


def crop_kernel(weight: Tensor, size: Sequence[int]) -> Tensor:
    """The middle of a larger kernel; returned as it is where ``size`` is the larger one."""
    for axis, want in enumerate(size, 2):
        have = weight.shape[axis]
        if want < have:
            weight = weight.narrow(axis, (have - want) // 2, want)
    return weight


def resize_positions(positions: Tensor, old: Sequence[int], new: Sequence[int]) -> Tensor:
    """Learnt positions (1, tokens, width) of the grid ``old`` for the grid ``new``.

    Linear interpolation. Positions of an image become those of a volume by repeating them along z.
    """
    width = positions.shape[2]
    field = positions.transpose(1, 2).reshape(1, width, *old)
    if len(old) == 2 and len(new) == 3:
        field = field[:, :, None]
    mode = "trilinear" if field.ndim == 5 else "bilinear"
    field = functional.interpolate(field.float(), tuple(new), mode=mode, align_corners=False)
    return field.flatten(2).transpose(1, 2).to(positions.dtype)


def _fit_positions(
    tensor: Tensor, shape: tuple[int, ...], grids: Grids
) -> tuple[Tensor | None, str]:
    tokens, new, old = tensor.shape[1], grids.model, grids.file
    if old is None:
        dims = grids.dims or len(new)
        if tuple(tensor.shape) == shape and dims == len(new):  # nothing speaks for another order
            return tensor, ""
        # One more than a grid has may be that of a class token.
        old = _guessed_grid(tokens, dims, new) or _guessed_grid(tokens - 1, dims, new)
        if old is None:
            return None, f"it is not known where the {tokens} positions of the file lie"
    fits = math.prod(new) == shape[1] and 0 <= tokens - math.prod(old) <= 1
    if not fits or tensor.shape[2] != shape[2]:
        return None, f"positions {tuple(tensor.shape)} of {_times(old)} tokens against {shape}"
    if len(old) > len(new):
        return None, f"positions of a volume {_times(old)} for an image {_times(new)}"
    tensor = tensor[:, tokens - math.prod(old) :]
    if old == new:
        return tensor, "" if len(tensor[0]) == tokens else "positions without the class token's"
    how = f"positions of {_times(old)} tokens resized to {_times(new)}"
    return resize_positions(tensor, old, new), how


def _guessed_grid(tokens: int, dims: int, model: tuple[int, ...]) -> tuple[int, ...] | None:
    """The square or cube of ``tokens``, in ``dims`` dimensions; None where it may be another grid.

    A cube may as well be fewer and larger slices (8 x 8 x 8 or 2 x 16 x 16); then the model's own
    grid must be a cube for it to be taken as one.
    """
    edge = round(max(tokens, 0) ** (1 / dims))
    if tokens < 2 or edge**dims != tokens:
        return None
    flatter = any(tokens % m**2 == 0 for m in range(edge + 1, math.isqrt(tokens) + 1))
    if dims == 3 and flatter and len(set(model)) > 1:
        return None
    return (edge,) * dims


def _times(values: Sequence[int]) -> str:
    return "×".join(map(str, values))
