"""Which masking strategy helps a CNN to classify lesions? Prints a table and one JSON line.

    python training/mim/phantom_lesions.py -o lesions -n 100 --held-out 80
    python training/prepare.py lesions CACHE --patch-voxels 20000 --stages 3
    python benchmarks/mask_strategies.py CACHE RUNS [--seeds 3] [--steps 200] [--tune 150]

For every seed: pre-training of the residual encoder by `pretrain_lesions.toml` with each strategy,
contrast and both; then classification of the training subjects' crops from each, and from scratch,
with the same crops in the same order. Area under the ROC curve of the held-back subjects, mean of
the seeds' scores for each crop; the interval of the difference to scratch is a bootstrap over
patients (2,000 draws). Finished pre-trainings are used again.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "training")]

import numpy as np  # noqa: E402
import torch  # noqa: E402
from torch.nn import functional  # noqa: E402

from mim import architectures  # noqa: E402
from mim.augment import SpatialSettings, augment_spatial  # noqa: E402
from mim.classifier import ClassifierSettings  # noqa: E402
from mim.data import Cache, Crops, UnlabeledVolumes, read_cache  # noqa: E402
from mim.device import Generators, seed_everything  # noqa: E402
from mim.recipe import load_recipe  # noqa: E402
from mim.transfer import load_pretrained  # noqa: E402
from pretrain import PretrainRecipe, pretrain  # noqa: E402

RECIPE = ROOT / "training" / "recipes" / "pretrain_lesions.toml"
ARMS = {
    "scratch": None,
    **{name: [f"mask.strategy={name}"] for name in ("random", "contiguous", "slab", "grid")},
    "center": ["mask.strategy=center"],
    "random, 0.6 to 0.9": ["mask.ratio=0.6,0.9"],
    "simclr": ["method.name=simclr"],
    "masked_contrastive": ["method.name=masked_contrastive"],
}
_BATCH, _LR = 8, 1e-3


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("cache")
    parser.add_argument("runs", type=Path)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=200, help="of pre-training")
    parser.add_argument("--tune", type=int, default=150, help="steps of classification")
    options = parser.parse_args()
    cache = read_cache(options.cache)
    entries = cache.cases_of(cache.held_back)
    truth = np.array([entry["target"] for entry in entries])
    scores: dict[str, list[np.ndarray]] = {arm: [] for arm in ARMS}
    options.runs.mkdir(parents=True, exist_ok=True)
    for seed in range(options.seeds):
        for arm, overrides in ARMS.items():
            checkpoint = _pretrained(arm, overrides, seed, options) if overrides else None
            scores[arm].append(_classify(cache, checkpoint, seed, options.tune))
            print(f"seed {seed} {arm}: AUC {auc(truth, scores[arm][-1]):.3f}", file=sys.stderr)
    patients = np.array([entry["subject"] for entry in entries])
    rows = {arm: _row(truth, patients, scores[arm], scores["scratch"]) for arm in ARMS}
    for arm, row in rows.items():
        low, high = row["interval"]
        seeds = " ".join(f"{value:.3f}" for value in row["seeds"])
        print(
            f"{arm:20s} {row['auc']:.3f}  {row['gain']:+.3f} ({low:+.3f} to {high:+.3f})  {seeds}"
        )
    result = {"arms": rows, "lesions": len(truth), "patients": len(set(patients.tolist()))}
    print(json.dumps({**result, "seeds": options.seeds, "steps": options.steps}))
    return 0


def auc(truth: np.ndarray, score: np.ndarray) -> float:
    """The share of (positive, negative) pairs in the right order; ties count half."""
    positive, negative = score[truth == 1][:, None], score[truth == 0]
    return float(((positive > negative) + 0.5 * (positive == negative)).mean())


def _pretrained(arm: str, overrides: list[str], seed: int, options) -> Path:
    run = options.runs / f"{arm.replace(', ', '_').replace(' ', '_')}_{seed}"
    if not (run / "reconstruction.png").exists():
        common = [f"cache={options.cache}", f"run={run}", f"seed={seed}"]
        common += [f"loop.steps={options.steps}", f"loop.validate_every={options.steps}"]
        sections = list(overrides)
        recipe = RECIPE
        if any(text.startswith("method.name") for text in sections):
            recipe = _without_method(options.runs)
        pretrain(load_recipe(PretrainRecipe, recipe, [*common, *sections]))
    return run / "last.pt"


def _without_method(folder: Path) -> Path:
    """The recipe without the keys of its own method, for another method's defaults."""
    head, _, rest = RECIPE.read_text().partition("[method]")
    path = folder / "pretrain_lesions_no_method.toml"
    path.write_text(head + rest[rest.index("[spatial]") :])
    return path


def _classify(cache: Cache, checkpoint: Path | None, seed: int, steps: int) -> np.ndarray:
    """Train a classifier; returns the held-back crops' score of class 1."""
    seed_everything(seed)
    patch = cache.plan["patch"]
    settings = ClassifierSettings(features=(8, 16, 32), blocks=(1, 2, 2))
    network = architectures.build(architectures.configure(settings, cache.plan, patch, 1, 2))
    if checkpoint:
        load_pretrained(network, checkpoint, parts=("encoder",))
    train, held_back = (_crops(cache, subjects) for subjects in (cache.train, cache.held_back))
    optimizer = torch.optim.AdamW(network.parameters(), _LR, weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, _LR, steps, pct_start=0.1)
    generators = Generators.seeded(seed)
    targets = torch.tensor([entry["target"] for entry in cache.cases_of(cache.train)])
    spatial = SpatialSettings(flip=(False, True, True), affine=0.3)
    spacing = cache.plan["preprocessing"]["spacing"]
    for _ in range(steps):
        chosen = torch.randint(len(targets), (_BATCH,), generator=generators.host)
        batch = Crops(train.images[chosen], train.valid[chosen], ("",) * _BATCH)
        batch = augment_spatial(batch, spatial, spacing, generators)
        loss = functional.cross_entropy(network(batch.images), targets[chosen])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    with torch.no_grad():
        logits = network.eval()(held_back.images)
    return (logits[:, 1] - logits[:, 0]).double().numpy()


def _crops(cache: Cache, subjects) -> Crops:
    """The middle of every case of ``subjects``, padded or cut to the patch."""
    volumes, patch = UnlabeledVolumes(cache, subjects), cache.plan["patch"]
    images = torch.zeros(len(volumes), cache.channels, *patch)
    valid = torch.zeros(len(volumes), 1, *patch, dtype=torch.bool)
    for i, volume in enumerate(volumes.images):
        source, target = [slice(None)], [slice(None)]
        for have, want in zip(volume.shape[1:], patch, strict=True):
            size = min(have, want)
            source.append(slice((have - size) // 2, (have - size) // 2 + size))
            target.append(slice((want - size) // 2, (want - size) // 2 + size))
        images[i][tuple(target)] = volume[tuple(source)].float()
        valid[i][tuple(target)] = True
    return Crops(images, valid, volumes.ids)


def _row(truth, patients, scores: list[np.ndarray], scratch: list[np.ndarray]) -> dict:
    """AUC of the seeds' mean score, and how far it is above scratch."""
    ours, base = np.mean(scores, 0), np.mean(scratch, 0)
    random, names = np.random.default_rng(0), np.unique(patients)
    members = [np.flatnonzero(patients == name) for name in names]
    gains = []
    for _ in range(2000):
        rows = np.concatenate([members[i] for i in random.integers(0, len(names), len(names))])
        if 0 < truth[rows].sum() < len(rows):
            gains.append(auc(truth[rows], ours[rows]) - auc(truth[rows], base[rows]))
    return {
        "auc": auc(truth, ours),
        "gain": auc(truth, ours) - auc(truth, base),
        "interval": np.percentile(gains, [2.5, 97.5]).tolist(),
        "seeds": [auc(truth, score) for score in scores],
    }


if __name__ == "__main__":
    sys.exit(main())
