"""How often does the bootstrap interval of so many subjects hold the true mean?

    python benchmarks/interval_coverage.py [--draws 2000]

Scores are drawn from a normal and from a skewed distribution, beta(8, 1.5), whose shape is that of
Dice. The last line is one JSON object: by number of subjects the mean share of both.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "training")]

from mim.statistics import bootstrap_mean_ci  # noqa: E402

SUBJECTS = (2, 3, 4, 5, 6, 7, 8, 9, 10, 20, 40)


def main() -> None:
    """Measure, and print a line for each number of subjects."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--draws", type=int, default=2000)
    arguments = parser.parse_args()
    shares = {}
    for count in SUBJECTS:
        each = [coverage(count, skewed, arguments.draws) for skewed in (False, True)]
        shares[str(count)] = round(float(np.mean(each)), 3)
        print(f"{count} subjects: normal {each[0]:.3f}, skewed {each[1]:.3f}")
    print(json.dumps({"coverage": shares}))


def coverage(count: int, skewed: bool, draws: int) -> float:
    """The share of ``draws`` of ``count`` subjects whose interval holds the true mean."""
    random, hits = np.random.default_rng(0), 0
    true = 8 / 9.5 if skewed else 0.0
    for seed in range(draws):
        values = random.beta(8, 1.5, count) if skewed else random.normal(size=count)
        _, low, high = bootstrap_mean_ci(values, range(count), resamples=500, seed=seed)
        hits += low <= true <= high
    return hits / draws


if __name__ == "__main__":
    main()
