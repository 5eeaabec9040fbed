"""Reading weights from files of this and of other programs, without running code from them.

Understood: checkpoints of this program; of nnssl/OpenMind and of nnU-Net v2 (``network_weights``);
state dicts as torchvision, timm, MONAI, VoCo and others publish them, bare or under one of the
usual keys, with or without the prefixes that wrappers add.
"""

from __future__ import annotations

import pickle
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor

from mim.checkpoint import FORMAT, CheckpointError, first_line, require_file
from mim.outputs import outputs_in

OWN = "MIM Segment"  # origin of the checkpoints of this program
# Where programs keep the state dict; the first that is there counts. "average" is ours: the
# averaged weights of a run are the better ones.
_HOLDERS = ("network_weights", "state_dict", "model_state_dict", "average", "model", "net")
# Of DistributedDataParallel, torch.compile, Lightning, and our own methods around a network.
_WRAPPERS = ("module.", "_orig_mod.", "model.", "network.", "backbone.")


T = TypeVar("T")


@dataclass(frozen=True)
class Weights:
    """Tensors by name, who wrote them, and what the file says about them beside that."""

    state: dict[str, Tensor]
    origin: str
    facts: dict[str, Any] = field(default_factory=dict)


def read_weights(path: str | Path) -> Weights:
    """The weights in ``path``; raises CheckpointError naming the file and the way out."""
    path = Path(path)
    content = _load(path)
    if not isinstance(content, Mapping):
        raise CheckpointError(
            f"{path} holds {type(content).__name__}, not a state dict; save model.state_dict()."
        )
    holder = next((k for k in _HOLDERS if isinstance(content.get(k), Mapping)), None)
    state = content[holder] if holder else content
    tensors = {name: value for name, value in state.items() if isinstance(value, Tensor)}
    if not tensors:
        keys = ", ".join(map(str, list(content)[:6])) or "nothing"
        raise CheckpointError(f"{path} has no tensors by name (it has {keys}).")
    return Weights(unwrapped(tensors), _origin(content, holder), _facts(content))


def unwrapped(state: Mapping[str, T]) -> dict[str, T]:
    """The same, of tensors, without the prefixes that wrappers put before a network's own names.

    A prefix goes when any tensor has it; what lies beside the network keeps its name.
    """
    state = dict(state)
    for _ in _WRAPPERS:  # wrappers nest
        for prefix in _WRAPPERS:
            if any(name.startswith(prefix) for name in state):
                state = {name.removeprefix(prefix): value for name, value in state.items()}
    return state


def numpy_scalars() -> list:
    """What the training logs in checkpoints of nnU-Net and nnssl hold beside plain numbers."""
    scalar = np.float64(0).__reduce__()[0]
    types = (np.float16, np.float32, np.float64, np.int32, np.int64)
    kinds = {type(np.dtype(kind)) for kind in types}
    return [
        (scalar, "numpy.core.multiarray.scalar"),
        (scalar, "numpy._core.multiarray.scalar"),
        np.dtype,
        *kinds,
    ]


def _load(path: Path) -> Any:
    require_file(path)
    try:
        with torch.serialization.safe_globals(numpy_scalars()):
            return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise CheckpointError(
            f"{path} is damaged, or holds more than numbers and is not opened because it could run "
            f"code ({first_line(error)}). If you trust it, load it yourself and save its "
            f"state_dict() alone."
        ) from None
    except (RuntimeError, OSError, EOFError, ValueError, KeyError) as error:
        raise CheckpointError(
            f"{path} is damaged or no PyTorch file ({first_line(error)}); copy it again."
        ) from None


def _origin(content: Mapping, holder: str | None) -> str:
    if holder in ("average", "model") and content.get("format") == FORMAT:
        return OWN
    if holder == "network_weights":
        return "nnssl" if "nnssl_adaptation_plan" in content else "nnU-Net"
    return f"a state dict ({holder})" if holder else "a state dict"


def _facts(content: Mapping) -> dict[str, Any]:
    """``trainer``, ``plan``, ``architecture`` (a name), ``spacing`` (z, y, x in mm), ``grid`` of
    tokens, ``seen``, ``recipe`` and ``outputs`` (of `outputs_of`), where the file has them."""
    plan, metadata = content.get("nnssl_adaptation_plan"), content.get("metadata")
    facts = {
        "trainer": content.get("trainer_name"),
        "plan": plan,
        "architecture": _architecture(plan),
        "spacing": _spacing(metadata, "plan", "preprocessing")
        or _spacing(plan, "pretrain_plan", "configurations", None),
        "grid": _grid(metadata.get("network")) if isinstance(metadata, Mapping) else None,
        "seen": metadata.get("seen") if isinstance(metadata, Mapping) else None,
        "recipe": metadata.get("recipe") if isinstance(metadata, Mapping) else None,
        "outputs": outputs_in(content, content.get("format") == FORMAT),
    }
    return {key: value for key, value in facts.items() if value}


def _architecture(plan: Any) -> str | None:
    """What nnssl calls the network of its plan."""
    planned = plan.get("architecture_plans") if isinstance(plan, Mapping) else None
    return str(planned.get("arch_class_name") or "") if isinstance(planned, Mapping) else None


def _grid(network: Any) -> tuple[int, ...] | None:
    """Tokens along each axis of a transformer's images, from its configuration."""
    if not isinstance(network, Mapping) or not {"size", "patch"} <= set(network):
        return None
    return tuple(n // edge for n, edge in zip(network["size"], network["patch"], strict=True))


def _spacing(values: Any, *path: str | None) -> tuple[float, ...] | None:
    """``spacing`` at the end of a path into tables; None in a path is the first entry."""
    for key in (*path, "spacing"):
        if not isinstance(values, Mapping) or not values:
            return None
        values = next(iter(values.values())) if key is None else values.get(key)
    known = isinstance(values, list | tuple) and all(isinstance(v, int | float) for v in values)
    return tuple(map(float, values)) if known and len(values) == 3 else None
