"""The names that other programs give to the tensors of the networks that are used here.

A *dialect* is a list of substitutions. `translate` tries each and keeps the one in which most
tensors find their place in the model: nobody has to say where a file came from.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping

from torch import Tensor

Substitutions = tuple[tuple[str, str], ...]

# dynamic-network-architectures registers each layer up to four times. What its forward pass uses is
# `encoder`, not `decoder.encoder`, and `all_modules`, not `conv` and `norm`: where a program has
# torn the aliases apart (nnssl's S3D does) only these were trained.
_RESENC: Substitutions = (
    (r"^decoder\.encoder\.", "encoder."),
    (r"\.all_modules\.0\.", ".conv."),
    (r"\.all_modules\.1\.", ".norm."),
)
_MLP: Substitutions = ((r"\.mlp\.fc(\d)\.", r".mlp.linear\1."),)
_TIMM_VIT: Substitutions = (
    (r"^patch_embed\.proj\.", "patch_embedding.patch_embeddings."),
    (r"^pos_embed$", "patch_embedding.position_embeddings"),
    (r"\.attn\.proj\.", ".attn.out_proj."),
    *_MLP,
)
# MONAI's masked auto-encoder has the last norm as one more block.
_VIT: Substitutions = ((r"^blocks\.\d+\.(weight|bias)$", r"norm.\1"),)
_OUT_OF_UNETR: Substitutions = ((r"^vit\.", ""),)
_INTO_UNETR: Substitutions = ((r"^(?=patch_embedding\.|blocks\.|norm\.|cls_token)", "vit."),)


def _resnet(offset: int) -> Callable[[str], str]:
    """torchvision's basic ResNets in the residual encoder, layer 1 at stage ``offset``."""

    def stage(match: re.Match) -> str:
        return f"encoder.stages.{int(match[1]) - 1 + offset}.blocks.{match[2]}."

    def rename(name: str) -> str:
        name = re.sub(r"^conv1\.", "encoder.stem.convs.0.conv.", name)
        name = re.sub(r"^bn1\.", "encoder.stem.convs.0.norm.", name)
        name = re.sub(r"^layer(\d)\.(\d+)\.", stage, name)
        name = re.sub(r"(blocks\.\d+)\.conv(\d)\.", r"\1.conv\2.conv.", name)
        name = re.sub(r"(blocks\.\d+)\.bn(\d)\.", r"\1.conv\2.norm.", name)
        # Our skip path pools first, so that its convolution is the second part.
        name = re.sub(r"\.downsample\.0\.", ".skip.1.conv.", name)
        return re.sub(r"\.downsample\.1\.", ".skip.1.norm.", name)

    return rename


def _substitute(*groups: Substitutions) -> Callable[[str], str]:
    rules = [rule for group in groups for rule in group]

    def rename(name: str) -> str:
        for pattern, replacement in rules:
            name = re.sub(pattern, replacement, name)
        return name

    return rename


_DIALECTS: dict[str, Callable[[str], str]] = {
    "the model's own": _substitute(_RESENC),
    "MONAI's ViT": _substitute(_VIT),
    "MONAI's ViT, into UNETR": _substitute(_VIT, _INTO_UNETR),
    "UNETR's ViT": _substitute(_OUT_OF_UNETR),
    "MONAI's Swin pre-training": _substitute(((r"^(?=patch_embed\.|layers\d)", "swinViT."),), _MLP),
    "disruptive auto-encoders": _substitute(
        (
            (r"^encoder\.patch_embed\.", "swinViT.patch_embed."),
            (r"^encoder\.(layers\d\.0\.)0\.", r"swinViT.\1"),
        ),
        _MLP,
    ),
    "timm's ViT": _substitute(_TIMM_VIT),
    "timm's ViT, into UNETR": _substitute(_TIMM_VIT, _INTO_UNETR),
    "torchvision's ResNet": _resnet(0),
    "torchvision's ResNet, one stage deeper": _resnet(1),
}


def translate(
    state: Mapping[str, Tensor], target: Mapping[str, Tensor]
) -> tuple[dict[str, Tensor], str, list[str]]:
    """``state`` under the names of ``target``, the dialect's name, and notes for the user.

    Of tensors that come to the same name the one that the network computes with is kept.
    """
    best, name = {}, ""
    best_count = -1
    for dialect, rename in _DIALECTS.items():
        renamed = _renamed(state, rename)
        count = sum(key in target for key in renamed)
        if count > best_count:
            best, name, best_count = renamed, dialect, count
    torn = [key for key, tensors in best.items() if _differ(tensors)]
    notes = []
    if torn:
        notes.append(
            f"{len(torn)} tensors have several names and not the same values under each "
            f"(as nnssl's S3D writes them); taken: those that the network computes with"
        )
    return {key: tensors[0] for key, tensors in best.items()}, name, notes


def _renamed(state: Mapping[str, Tensor], rename: Callable[[str], str]) -> dict[str, list[Tensor]]:
    found: dict[str, list[tuple[tuple, Tensor]]] = {}
    for name, tensor in state.items():
        found.setdefault(rename(name), []).append((_preference(name), tensor))
    return {
        name: [tensor for _, tensor in sorted(entries, key=lambda entry: entry[0])]
        for name, entries in found.items()
    }


def _preference(name: str) -> tuple[bool, bool]:
    return name.startswith("decoder.encoder."), ".all_modules." not in name


def _differ(tensors: list[Tensor]) -> bool:
    first, *others = tensors
    return any(
        other.shape != first.shape
        or (other.data_ptr() != first.data_ptr() and not other.equal(first))
        for other in others
    )
