"""What settings that several commands share may be."""

from __future__ import annotations

from collections.abc import Sequence

from mim.recipe import RecipeError


def check_shared(seed: int, patch: Sequence[int], memory_gib: float) -> None:
    """Raise RecipeError for values that a run would only stumble over later."""
    if not 0 <= seed < 2**32:  # NumPy's generator takes no other
        raise RecipeError(f"seed must be at least 0 and below 2**32, not {seed}.")
    if len(patch) not in (0, 2, 3) or min(patch, default=1) < 1:
        raise RecipeError(f"patch has a size for each axis, or none, not {tuple(patch)}.")
    if memory_gib < 0:
        raise RecipeError(f"memory_gib must not be below 0: {memory_gib}.")
