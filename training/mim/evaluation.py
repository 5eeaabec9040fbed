"""Measuring a segmentation network on whole images, on their own grids, by the engine itself."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from tqdm import tqdm

from mim.cases import read_images
from mim.regions import plan_regions
from mim.statistics import bootstrap_mean_ci, few_subjects, known_mean, span
from mim.structures import own_structures
from MIMSegment.Logic.engine import Predictor, segment
from MIMSegment.Logic.spec import ModelSpec
from MIMSegment.Logic.volume import Volume, read_volume


def model_spec(plan: dict, overlap: float = 0.5) -> ModelSpec:
    """The inference specification that follows from a cache's plan."""
    regions = plan.get("regions")
    values = [structure["value"] for structure in regions or plan["labels"]]
    return ModelSpec.from_dict(
        {
            "inputs": plan["inputs"],
            "preprocessing": plan["preprocessing"],
            "patch": plan["patch"],
            "channel_labels": values if regions else [0, *values],
            "head": "regions" if regions else "softmax",
            "dims": plan.get("dims", 3),
            "overlap": overlap,
        },
        "the plan",
    )


def torch_predictor(model: torch.nn.Module, bf16: bool = False) -> Predictor:
    """The network as the engine wants it: float32 arrays (b, c, z, y, x) in and out."""
    device = next(model.parameters()).device
    model.eval()

    def predict(tile: np.ndarray) -> np.ndarray:
        with torch.inference_mode(), torch.autocast(device.type, torch.bfloat16, enabled=bf16):
            logits = model(torch.from_numpy(tile).to(device))
        return (logits[0] if isinstance(logits, list) else logits).float().cpu().numpy()

    return predict


def dice_per_class(
    labels: np.ndarray,
    truth: np.ndarray,
    values: Sequence[int | Sequence[int]],
    truth_values: Sequence[int | Sequence[int]] | None = None,
) -> list[float]:
    """Dice of each label value, or union of values; NaN where neither array has it.

    ``truth_values`` are those of ``truth``, where they are others.
    """
    from monai.metrics import compute_dice

    scores = []
    for found, true in zip(values, truth_values or values, strict=True):
        masks = np.isin(labels, found), np.isin(truth, true)
        pair = [torch.from_numpy(mask)[None, None].float() for mask in masks]
        scores.append(float(compute_dice(*pair, ignore_empty=True)))
        if masks[0].any() and not masks[1].any():
            scores[-1] = 0.0  # a structure found where there is none
    return scores


def where_known(labels: np.ndarray, truth: np.ndarray, ignore: int | None) -> np.ndarray:
    """``labels`` with 0 where ``truth`` has the value ``ignore``, that is, where it is open."""
    return labels if ignore is None else np.where(truth == ignore, 0, labels)


def evaluate_cases(entries: Sequence[dict], plan: dict, predict: Predictor, desc="evaluate"):
    """Dice of every case, a row each: id, subject and the Dice per label name.

    ``entries`` are those of a cache's cases.json; the original image and label files are read.
    """
    spec, rows = model_spec(plan), []
    names = {label["value"]: label["name"] for label in plan["labels"]}
    structures = own_structures(names, plan_regions(plan))
    values = list(structures.found.values()), list(structures.truth.values())
    for entry in tqdm(entries, desc, unit="case"):
        result = segment(read_source(entry["source"]), spec, predict)
        truth = read_volume(entry["source_label"]).array[0]
        found = where_known(result.labels, truth, plan.get("ignore"))
        scores = dice_per_class(found, truth, *values)
        rows.append(
            {
                "id": entry["id"],
                "subject": entry["subject"],
                "dice": dict(zip(structures.found, scores, strict=True)),
            }
        )
    return rows


def read_source(source: str | Sequence[str]) -> Volume:
    """The original image of a case, from ``source`` in cases.json."""
    return read_images([source] if isinstance(source, str) else source)


def summarize(rows: Sequence[dict]) -> dict:
    """Mean Dice over classes and per class, with 95 % bootstrap intervals over subjects."""
    subjects = [row["subject"] for row in rows]
    means = [known_mean(row["dice"].values()) for row in rows]
    mean, low, high = bootstrap_mean_ci(means, subjects)
    per_class = {}
    for name in rows[0]["dice"] if rows else ():
        value, *interval = bootstrap_mean_ci([row["dice"][name] for row in rows], subjects)
        per_class[name] = {"dice": value, "ci95": interval}
    return {
        "dice_mean": mean,
        "dice_ci95": [low, high],
        "dice_per_class": per_class,
        "cases": len(rows),
        "subjects": len(set(subjects)),
    }


def table(summary: dict) -> str:
    """The summary as lines of text."""
    if not summary["cases"]:
        return "No held-back subject has a label: no Dice."
    rows = [("mean", summary["dice_mean"], summary["dice_ci95"])]
    rows += [(n, c["dice"], c["ci95"]) for n, c in summary["dice_per_class"].items()]
    width = max(len(name) for name, *_ in rows)
    lines = [f"Dice on {summary['cases']} held-back images of {summary['subjects']} subjects:"]
    lines += [f"  {n:{width}}  {d:.3f}  (95 % interval {span(*c)})" for n, d, c in rows]
    lines += filter(None, [few_subjects(summary["subjects"])])
    return "\n".join(lines)
