"""Peak memory of a whole segmentation above its input, by number of slices and of classes.

    python benchmarks/memory.py            (about 10 minutes; Linux and macOS)

Each case runs in a process of its own: a synthetic CT of 512 × 512 × slices (int16, 0.8 × 0.8 ×
1 mm) through the engine at 1.5 mm in windows of 96³, with a network that costs next to nothing, so
that what is measured is ours. The last line is one JSON object, in GB above the input.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
CASES = ((300, 25), (600, 25), (600, 104))


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--case", nargs=2, type=int, metavar=("SLICES", "CLASSES"),
                        help="measure only this one, in this process")  # fmt: skip
    arguments = parser.parse_args()
    if arguments.case:
        print(measure(*arguments.case))
        return
    peaks = {}
    for slices, classes in CASES:
        command = [sys.executable, __file__, "--case", str(slices), str(classes)]
        done = subprocess.run(command, check=True, capture_output=True, text=True)
        peaks[slices, classes] = float(done.stdout.splitlines()[-1])
        print(f"{slices} slices, {classes} classes: {peaks[slices, classes]:.2f} GB")
    result = {f"peak_gb_{s}_slices_{c}_classes": round(p, 3) for (s, c), p in peaks.items()}
    result["ratio_600_to_300_slices"] = round(peaks[600, 25] / peaks[300, 25], 3)
    print(json.dumps(result))


def measure(slices: int, classes: int) -> float:
    """Peak resident memory in GB of one run, above that with the input loaded."""
    sys.path.insert(0, str(ROOT))
    import numpy as np
    import scipy.ndimage
    import scipy.sparse  # noqa: F401  (libraries are not what is measured)

    from MIMSegment.Logic.engine import segment
    from MIMSegment.Logic.matching import InputSpec
    from MIMSegment.Logic.spec import ModelSpec, Normalization, Preprocessing
    from MIMSegment.Logic.volume import Geometry, Volume

    array = np.empty((1, slices, 512, 512), np.int16)
    rng = np.random.default_rng(0)
    for z in range(slices):
        array[0, z] = rng.integers(-1000, 1500, (512, 512), np.int16)
    volume = Volume(array, Geometry.from_parts(array.shape[1:], (1.0, 0.8, 0.8)))
    spec = ModelSpec(
        inputs=(InputSpec("CT", "CT"),),
        preprocessing=Preprocessing(
            (1.5, 1.5, 1.5),
            (Normalization("ct", mean=0, std=500, lower=-1000, upper=1500),),
            image_order=1,
        ),
        patch=(96, 96, 96),
        channel_labels=tuple(range(classes)),
    )
    shifts = np.linspace(-1, 1, classes, dtype=np.float32)[:, None, None, None]

    def cheap_network(tile: np.ndarray) -> np.ndarray:
        return -np.abs(tile[:, :1] - shifts)

    before = _peak()
    segment(volume, spec, cheap_network)
    return _peak() - before


def _peak() -> float:
    unit = 1e9 if sys.platform == "darwin" else 1e6
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit


if __name__ == "__main__":
    main()
