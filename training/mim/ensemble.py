"""Fine-tunings that go into one package together, such as the folds of a cross-validation."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from mim.bundle import provenance, results_of
from mim.checkpoint import CheckpointError, load_checkpoint
from mim.evaluation import summarize
from mim.statistics import known_mean


@dataclass(frozen=True)
class Member:
    """A checkpoint of finetune.py: its ``content``, and what its run's results.json holds."""

    path: Path
    content: dict
    results: dict

    @property
    def metadata(self) -> dict:
        """What the checkpoint says about itself, see `run_metadata`."""
        return self.content["metadata"]


def read_members(paths: Sequence[str | Path]) -> tuple[Member, ...]:
    """The checkpoints in ``paths``, one or more, that one package can hold.

    Raises CheckpointError for one that finetune.py did not write, for several that learnt other
    tasks or from other caches, and for several classifiers.
    """
    members = tuple(Member(Path(p), load_checkpoint(p), results_of(Path(p))) for p in paths)
    first = members[0]
    for member in members:
        kind = member.metadata["kind"]
        if kind not in ("segmentation", "classification"):
            raise CheckpointError(
                f"{member.path} is a {kind} checkpoint; fine-tune it with finetune.py first."
            )
        if member.metadata["plan"] != first.metadata["plan"]:
            raise CheckpointError(
                f"{member.path} was trained by another plan than {first.path} (other data, voxels, "
                "crops or structures); networks of one package must have the same cache and crop."
            )
    if len(members) > 1 and first.metadata["kind"] == "classification":
        raise CheckpointError(
            f"{first.path} classifies; a package of a classifier holds one network."
        )
    return members


def provenance_of(members: Sequence[Member]) -> dict:
    """Where the networks come from: that of the only one, or what all share and each one's own."""
    each = [provenance(member.metadata) for member in members]
    if len(each) == 1:
        return each[0]
    return {"data": each[0]["data"], "networks": each}


def seen_by(members: Sequence[Member]) -> list[str]:
    """The digests of the images that any of them has learnt from."""
    return sorted({digest for member in members for digest in member.metadata.get("seen", ())})


def results_together(members: Sequence[Member]) -> dict:
    """`evaluation.summarize` of the single networks, not of their mean.

    A case that several have measured counts once, with the mean of its Dice. Empty unless every
    one has results.
    """
    results = [member.results for member in members]
    if len(results) == 1:
        return results[0]
    if not all(result.get("cases") for result in results):
        return {}
    cases: dict[str, list[Mapping]] = {}
    for result in results:
        for row in result["rows"]:
            cases.setdefault(row["id"], []).append(row)
    return summarize([_mean_row(rows) for rows in cases.values()])


def _mean_row(rows: Sequence[Mapping]) -> dict:
    """One case as several networks segment it: of each structure the mean Dice that is known."""
    dice = {name: known_mean(row["dice"][name] for row in rows) for name in rows[0]["dice"]}
    return {**rows[0], "dice": dice}
