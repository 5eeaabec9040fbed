"""Does the masked-reconstruction check tell real scans from the phantoms that a model knows?

    python benchmarks/familiarity.py DATA [--phantoms 20]

DATA is the folder of real data sets. Phantoms are those with the seeds 200 and following, which no
package was trained on: the 5, 50 and 95 % quantiles of their errors are the ranges that stand in
the packages' metadata. The last line is one JSON object.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "training")]

from mim.phantom import make_phantom  # noqa: E402
from mim.reconstruction_export import QUANTILES  # noqa: E402
from MIMSegment.Logic.alignment import combine  # noqa: E402
from MIMSegment.Logic.package import ModelPackage, load_package  # noqa: E402
from MIMSegment.Logic.preprocess import open_prepared  # noqa: E402
from MIMSegment.Logic.reconstruction import ReconstructionError, judge, measure  # noqa: E402
from MIMSegment.Logic.runtime import OnnxSession  # noqa: E402
from MIMSegment.Logic.volume import Volume, read_volume  # noqa: E402

FIRST = 200
PROSTATEX, BRATS = "prostate_mpmri_prostatex/dicom/ProstateX-0000", "BraTS-GLI-00001-000"
REAL = {
    "abdomen": {
        "CHAOS CT": ["liver_ct_chaos_dicom/dicom"],
        "TotalSegmentator CT": ["organs_ct_totalsegmentator/example_ct.nii.gz"],
        "MSD spleen CT": ["spleen_ct_msd_lowres/imagesTr/spleen_2.nii.gz"],
    },
    "prostate": {"ProstateX MR": [f"{PROSTATEX}/{name}" for name in ("t2w", "adc", "hbv")]},
    "brain": {
        "BraTS MR": [
            f"brain_brats23_4seq_unlabelled/{BRATS}/{BRATS}-{name}.nii.gz"
            for name in ("t1n", "t1c", "t2w", "t2f")
        ]
    },
}


def main() -> None:
    """Measure, and print a line for each scan."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", type=Path)
    parser.add_argument("--phantoms", type=int, default=20, help="0: leave them out")
    arguments = parser.parse_args()
    results = {}
    for task, scans in REAL.items():
        package = load_package(ROOT / f"MIMSegment/Resources/Models/phantom-{task}")
        results[task] = {}
        if arguments.phantoms:
            results[task]["phantoms"] = phantom_ranges(task, package, arguments.phantoms)
        for name, paths in scans.items():
            volume = combine([read_volume(arguments.data / path) for path in paths])
            error = error_of(volume, package)
            finding = judge(error, package.expectations.reconstruction, inputs_of(package))
            print(f"{name}: {finding.severity}: {finding}", flush=True)
            results[task][name] = {
                "error": round(error.total, 3),
                "in_tissue": round(error.tissue, 3),
                "severity": str(finding.severity),
            }
    print(json.dumps(results))


def error_of(volume: Volume, package: ModelPackage) -> ReconstructionError:
    """The error of the package's reconstruction network on ``volume`` (c, z, y, x)."""
    known = package.expectations.reconstruction
    image, _ = open_prepared(volume, package.spec.preprocessing)
    session = OnnxSession(package.path / known.model)
    return measure(image, known.patch, known.block, known.ratio, session)


def phantom_ranges(task: str, package: ModelPackage, count: int) -> dict:
    """The quantiles of the errors on phantoms, as they stand in the package's metadata."""
    errors = []
    for seed in range(FIRST, FIRST + count):
        volume = combine(list(make_phantom(task, seed).images.values()))
        errors.append(error_of(volume, package))
        print(f"{task} phantom {seed}: {errors[-1]}", flush=True)
    return {
        "errors": quantiles([error.total for error in errors]),
        "input_errors": [quantiles(e) for e in zip(*(e.inputs for e in errors), strict=True)],
        "tissue_errors": quantiles([error.tissue for error in errors]),
        "images": count,
    }


def quantiles(values) -> list[float]:
    return [round(float(q), 5) for q in np.quantile(values, QUANTILES)]


def inputs_of(package: ModelPackage) -> list[str]:
    return [item.name for item in package.spec.inputs]


if __name__ == "__main__":
    main()
