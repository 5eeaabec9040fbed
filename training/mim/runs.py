"""A run's folder: what it holds, when it may be written to, when it may be continued."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mim.checkpoint import load_checkpoint
from mim.data import Cache
from mim.parallel import rank
from mim.recipe import RecipeError, differences, recipe_hash, save_recipe, to_dict
from mim.seen import seen_images

LAST = "last.pt"
BEST = "best.pt"
STOPPED = "stopped.pt"
KEPT = "step_{:06d}.pt"


def run_metadata(
    kind: str, recipe: Any, cache: Cache, network: dict, more: Sequence[Cache] = ()
) -> dict:
    """What a checkpoint says about itself.

    ``kind`` is the method of pre-training, or "segmentation"; ``network`` is a configuration of
    `architectures`. ``seen`` are the digests of the training subjects' images, also of those in
    the caches ``more``, of which a short text tells whether they are still the same.
    """
    return {
        "kind": kind,
        "network": network,
        "plan": cache.plan,
        "fingerprint": cache.fingerprint,
        "seen": seen_images(cache, more),
        "more": [_digest(other) for other in more],
        "recipe": to_dict(recipe),
        "recipe_hash": recipe_hash(recipe),
    }


def _digest(cache: Cache) -> str:
    """Another text for another plan or other training images."""
    content = json.dumps([cache.plan, cache.fingerprint], sort_keys=True)
    return hashlib.blake2b(content.encode(), digest_size=8).hexdigest()


def continues(recipe: Any, resume: bool) -> bool:
    """Whether `open_run` will return a checkpoint, whose state is what the run goes on with."""
    return resume and (Path(recipe.run) / LAST).exists()


def open_run(recipe: Any, metadata: dict, resume: bool) -> dict | None:
    """Make ``recipe.run`` ready and return the checkpoint to continue from, None to start anew.

    Writes ``recipe.json``. Raises RecipeError when the folder holds a run that would be
    overwritten, or one of another recipe or other data that cannot be continued.
    """
    run = Path(recipe.run)
    checkpoint = None
    if (run / LAST).exists():
        checkpoint = load_checkpoint(run / LAST)
        if resume:
            _check_same(run, recipe, metadata, checkpoint["metadata"])
        elif checkpoint["step"] > 0:
            raise RecipeError(
                f"{run} holds a run already; add --resume to continue it, or write run=OTHER."
            )
        else:  # it ended before its first checkpoint that is worth anything
            checkpoint = None
    run.mkdir(parents=True, exist_ok=True)
    if rank() == 0:
        for half_written in run.glob(".*.pt"):  # a process that was killed could not remove it
            half_written.unlink()
        save_recipe(recipe, run / "recipe.json")
    return checkpoint


def _check_same(run: Path, recipe: Any, now: dict, before: dict) -> None:
    if before["kind"] != now["kind"]:
        raise RecipeError(f"{run} is a run of {before['kind']}, not of {now['kind']}.")
    changes = differences(recipe, before["recipe"])
    if changes:
        raise RecipeError(
            f"{run} cannot be continued with another recipe: {'; '.join(changes)}. Another run can "
            f"start from its weights: run=OTHER pretrained={run / LAST}, without --resume."
        )
    if change := changed_data(recipe.cache, now, before):
        raise RecipeError(f"{run} cannot be continued: {change}.")


def changed_data(cache: str, now: dict, before: dict) -> str:
    """How the data of a run differ from what it began with, both as in `run_metadata`; or nothing.

    ``cache`` is the folder, for the message. Without ``more`` the other caches are left alone.
    """
    if (before["plan"], before["fingerprint"]) != (now["plan"], now["fingerprint"]):
        return f"the cache {cache} has changed"
    if "more" in now and before.get("more", now["more"]) != now["more"]:
        return f"one of the caches {', '.join(now['recipe']['more_caches'])} has changed"
    added = set(now.get("seen", ())) - set(before.get("seen", now.get("seen", ())))
    if added:
        return f"its caches have {len(added)} training images that it did not begin with"
    return ""
