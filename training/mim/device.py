"""Which device and number format a run uses, and its random generators."""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch

from mim.recipe import RecipeError

Precision = Literal["auto", "bf16", "fp32"]


def resolve_device(name: str) -> torch.device:
    """``"auto"`` is the first CUDA device if there is one, else the CPU.

    Raises RecipeError for what is neither, and for a GPU that is not there.
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(name)
    except RuntimeError:
        device = None
    if device is None or device.type not in ("cpu", "cuda"):
        raise RecipeError(f"device {name} is unknown; write auto, cpu, cuda or cuda:1.")
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if device.type == "cuda" and (device.index or 0) >= count:
        raise RecipeError(f"device {name} is not there; write device=cpu or device=auto.")
    return device


def uses_bf16(precision: Precision, device: torch.device) -> bool:
    """Whether to compute in bfloat16; ``"auto"`` does so where the hardware multiplies in it.

    Elsewhere bfloat16 is emulated, and slower than float32.
    """
    if precision != "auto":
        return precision == "bf16"
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    features = torch.cpu.get_capabilities()
    return bool(features.get("avx512_bf16") or features.get("amx_bf16"))


@dataclass(frozen=True)
class Generators:
    """A run's random numbers: ``host`` decides (which crop, which angle), ``device`` fills tensors
    (masks, noise) without a transfer."""

    host: torch.Generator
    device: torch.Generator

    @staticmethod
    def seeded(seed: int, device: torch.device | str = "cpu", process: int = 0) -> Generators:
        """Each ``process`` of a run draws its own numbers."""
        seed += 1_000_003 * process
        return Generators(
            torch.Generator().manual_seed(seed), torch.Generator(device).manual_seed(seed + 1)
        )

    def state_dict(self) -> dict:
        return {"host": self.host.get_state(), "device": self.device.get_state()}

    def load_state_dict(self, state: dict) -> None:
        self.host.set_state(state["host"])
        self.device.set_state(state["device"])


def seed_everything(seed: int) -> None:
    """Seed the global generators of Python, NumPy and torch (initial weights come from there)."""
    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)


def global_rng_state() -> dict:
    """The global generators' states in types that ``torch.load(weights_only=True)`` reads."""
    name, keys, *rest = np.random.get_state()
    state = {
        "python": random.getstate(),
        "numpy": (name, torch.from_numpy(keys.astype(np.int64)), *rest),
        "torch": torch.get_rng_state(),
    }
    if torch.cuda.is_available():
        state["cuda"] = torch.cuda.get_rng_state_all()
    return state


def set_global_rng_state(state: dict) -> None:
    """Undo `global_rng_state`."""
    random.setstate(state["python"])
    name, keys, *rest = state["numpy"]
    np.random.set_state((name, keys.numpy().astype(np.uint32), *rest))
    torch.set_rng_state(state["torch"])
    if "cuda" in state and torch.cuda.is_available():
        torch.cuda.set_rng_state_all(state["cuda"])
