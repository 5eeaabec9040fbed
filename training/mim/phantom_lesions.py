"""A set of lesions to classify, cut out of prostate phantoms: no patient's data.

    python training/mim/phantom_lesions.py -o lesions -n 60 --held-out 40
    python training/prepare.py lesions CACHE

Each lesion that a phantom has becomes a small volume around its center, with the class benign or
malignant (see `phantom_prostate.Look`). All lesions of a patient share a group, so that no split
separates them. The layout is the table that `prepare.py` reads: cases.csv with image, group, class
and split.
"""

from __future__ import annotations

import sys
from pathlib import Path

if __name__ == "__main__":  # this folder's module names must not hide the standard library's
    sys.path[0] = str(Path(__file__).resolve().parents[1])

import argparse
from collections.abc import Iterator, Sequence

import numpy as np
from tqdm import tqdm

from mim.phantom import make_phantom
from MIMSegment.Logic.errors import InputError, MIMSegmentError, OutputError
from MIMSegment.Logic.files import make_folder, write_csv
from MIMSegment.Logic.volume import Volume, write_volume

SEQUENCES = ("T2w", "ADC", "DWI")
BENIGN_SHARE = 0.5
_BOX = (36.0, 44.0, 44.0)  # (z, y, x) mm around the center


def write_lesion_set(
    folder: str | Path,
    patients: int,
    held_out: int = 0,
    seed: int = 0,
    sequences: Sequence[str] = ("T2w",),
) -> Path:
    """Write the lesions of ``patients`` + ``held_out`` phantoms; returns the path of cases.csv.

    The last ``held_out`` patients are for testing. Raises OutputError where there is such a set
    already, InputError for an unknown sequence.
    """
    folder = Path(folder)
    index = folder / "cases.csv"
    unknown = set(sequences) - set(SEQUENCES)
    if unknown or not sequences:
        raise InputError(f"Sequences are {', '.join(SEQUENCES)}; not {sorted(unknown)}.")
    if index.exists():
        raise OutputError(f"{index} exists already; choose another folder or remove the old set.")
    for name in sequences:
        make_folder(folder / name)
    rows = []
    for i in tqdm(range(patients + held_out), desc="lesions", unit="patient"):
        split = "train" if i < patients else "test"
        for number, (kind, crops) in enumerate(lesions_of(seed + i)):
            row = {"group": f"patient_{i:03d}", "class": kind, "split": split}
            for name in sequences:
                path = Path(name) / f"patient_{i:03d}_lesion_{number}.nii.gz"
                write_volume(crops[name], folder / path)
                row[f"image_{name}"] = path.as_posix()
            rows.append(row)
    if not rows:
        raise InputError("None of these phantoms has a lesion; ask for more patients.")
    write_csv(index, list(rows[0]), [list(row.values()) for row in rows])
    return index


def lesions_of(seed: int) -> Iterator[tuple[str, dict[str, Volume]]]:
    """Class and crops by sequence of every lesion of the phantom number ``seed``."""
    phantom = make_phantom("prostate", seed, benign=BENIGN_SHARE)
    for lesion in phantom.lesions:
        center = lesion["center_lps"]
        yield lesion["class"], {name: _crop(v, center) for name, v in phantom.images.items()}


def _crop(volume: Volume, center_lps: Sequence[float]) -> Volume:
    """The box around a point, moved inwards at the image's border."""
    geometry = volume.geometry
    inverse = np.linalg.inv(geometry.ijk_to_lps)
    center = (inverse @ [*center_lps, 1.0])[2::-1]  # (z, y, x)
    shape = [
        min(n, round(mm / step))
        for n, mm, step in zip(geometry.shape, _BOX, geometry.spacing, strict=True)
    ]
    start = [
        int(np.clip(round(c) - size // 2, 0, n - size))
        for c, size, n in zip(center, shape, geometry.shape, strict=True)
    ]
    box = tuple(slice(begin, begin + size) for begin, size in zip(start, shape, strict=True))
    return Volume(volume.array[(slice(None), *box)], geometry.cropped(tuple(start), tuple(shape)))


def main(arguments: list[str] | None = None) -> int:
    """The command line; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("-o", "--output", required=True, metavar="FOLDER")
    parser.add_argument("-n", "--patients", type=int, default=60, help="default: 60")
    parser.add_argument("--held-out", type=int, default=40, help="further ones to test (40)")
    parser.add_argument("--seed", type=int, default=0, help="of the first patient")
    parser.add_argument(
        "--sequences", nargs="+", default=["T2w"], metavar="NAME", help="of T2w, ADC, DWI (T2w)"
    )
    o = parser.parse_args(arguments)
    try:
        index = write_lesion_set(o.output, o.patients, o.held_out, o.seed, o.sequences)
    except MIMSegmentError as error:
        print(f"Error: {error}", file=sys.stderr)
        return 1
    print(f"Wrote {index.resolve()}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
