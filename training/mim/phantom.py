"""Digital phantoms of three clinical tasks, made from a seed: no patient's data, no download.

`make_phantom` draws one patient of a task of `TASKS`: abdominal CT with ten structures, brain MR
with a glioma, prostate MR with zones and lesions. `write_dataset` writes a training set in the
layout of the Medical Segmentation Decathlon, `write_study` one patient as a scanner sends it.
"""

from __future__ import annotations

import sys
from pathlib import Path

if __name__ == "__main__":  # this folder's module names must not hide the standard library's
    sys.path[0] = str(Path(__file__).resolve().parents[1])

import argparse
import zlib
from dataclasses import replace

import numpy as np
from tqdm import tqdm

from mim import phantom_abdomen, phantom_brain, phantom_prostate
from mim.phantom_scan import Phantom, PhantomTask
from MIMSegment.Logic.alignment import stack_inputs
from MIMSegment.Logic.errors import InputError, MIMSegmentError, OutputError
from MIMSegment.Logic.files import make_folder, write_json, write_text
from MIMSegment.Logic.image_file import write_channels
from MIMSegment.Logic.labels import labels_to_csv
from MIMSegment.Logic.volume import write_volume

TASKS: dict[str, PhantomTask] = {
    module.TASK.name: module.TASK for module in (phantom_abdomen, phantom_brain, phantom_prostate)
}


def make_phantom(
    task: str, seed: int, size=None, sequence_grids: bool = False, **options
) -> Phantom:
    """The patient number ``seed`` of ``task``, a name in `TASKS`; the same at every call.

    ``size`` is the grid (z, y, x) that spans the task's field of view; without it the grid is
    modest and varies a little from patient to patient. With ``sequence_grids`` ADC and DWI of the
    prostate lie on their own coarser grid, as a scanner sends them. ``options`` belong to a task:
    ``skull=True`` gives a brain that is not skull-stripped. ``info`` holds the truth: volumes_ml
    by label, lesions. Raises InputError for an unknown task or an impossible size or seed.
    """
    chosen = _task(task)
    if size is not None and (len(size) != 3 or min(size) < 8):
        raise InputError(f"A phantom of size {tuple(size)} cannot be made: give z y x, each >= 8.")
    if seed < 0:
        raise InputError(f"A phantom cannot be made from seed {seed}: give 0 or more.")
    rng = np.random.default_rng([zlib.crc32(task.encode()), seed])
    phantom = chosen.recipe(rng, size, sequence_grids, **options)
    counts = np.bincount(phantom.label.array.ravel(), minlength=256)
    voxel = phantom.label.geometry.voxel_volume_ml
    volumes = {label.name: float(counts[label.value]) * voxel for label in chosen.labels}
    return replace(phantom, info={"seed": seed, "volumes_ml": volumes, **phantom.info})


def write_dataset(
    task: str, folder: str | Path, count: int, seed: int = 0, held_out: int = 0, size=None
) -> Path:
    """Write ``count`` training and ``held_out`` test patients, numbers ``seed`` and following.

    imagesTr, labelsTr (imagesTs, labelsTs) hold NIfTI files, 4D (x, y, z, sequence) where there
    are several sequences; dataset.json, written last, and labels.csv describe them. Returns the
    path of dataset.json. Raises OutputError where there is one already.
    """
    chosen, folder = _task(task), Path(folder)
    index = folder / "dataset.json"
    if index.exists():
        raise OutputError(f"{index} exists already; choose another folder or remove the old set.")
    cases = {"Tr": [], "Ts": []}
    for i in tqdm(range(count + held_out), desc=f"{task} phantoms", unit="patient"):
        part, name = "Tr" if i < count else "Ts", f"{task}_{i:03d}"
        _write_case(make_phantom(task, seed + i, size), folder, part, name)
        cases[part].append(name)
    write_text(folder / "labels.csv", labels_to_csv(chosen.labels))
    write_json(index, _dataset_json(chosen, cases, seed))
    return index


def write_study(task: str, folder: str | Path, seed: int, size=None) -> list[Path]:
    """Write one patient: every sequence on its own grid as NRRD, label.nrrd, labels.csv."""
    folder = Path(folder)
    make_folder(folder)
    phantom = make_phantom(task, seed, size, sequence_grids=True)
    paths = []
    for name, volume in {**phantom.images, "label": phantom.label}.items():
        paths.append(folder / f"{name}.nrrd")
        write_volume(volume, paths[-1])
    write_text(folder / "labels.csv", labels_to_csv(TASKS[task].labels))
    return [*paths, folder / "labels.csv"]


def _task(name: str) -> PhantomTask:
    if name not in TASKS:
        raise InputError(f"There is no phantom task {name!r}; choose one of {', '.join(TASKS)}.")
    return TASKS[name]


def _write_case(phantom: Phantom, folder: Path, part: str, name: str) -> None:
    for kind in ("images", "labels"):
        make_folder(folder / f"{kind}{part}")
    write_channels(
        stack_inputs(list(phantom.images.values())), folder / f"images{part}" / f"{name}.nii.gz"
    )
    write_volume(phantom.label, folder / f"labels{part}" / f"{name}.nii.gz")


def _dataset_json(task: PhantomTask, cases: dict[str, list[str]], seed: int) -> dict:
    names = cases["Tr"] + cases["Ts"]
    return {
        "name": f"{task.name} phantoms",
        "description": f"Digital phantoms, not patients: {task.description}. Drawn from a seed; "
        "results on them say nothing about clinical accuracy.",
        "licence": "Apache-2.0",  # spelled as in the Decathlon's own files
        "release": "1.0",
        "tensorImageSize": "3D" if len(task.sequences) == 1 else "4D",
        "modality": {str(i): name for i, name in enumerate(task.sequences)},
        "labels": {"0": "background"} | {str(label.value): label.name for label in task.labels},
        "numTraining": len(cases["Tr"]),
        "numTest": len(cases["Ts"]),
        "training": [
            {"image": f"./imagesTr/{name}.nii.gz", "label": f"./labelsTr/{name}.nii.gz"}
            for name in cases["Tr"]
        ],
        "test": [f"./imagesTs/{name}.nii.gz" for name in cases["Ts"]],
        "subjects": {name: i + 1 for i, name in enumerate(names)},
        "seeds": {name: seed + i for i, name in enumerate(names)},
    }


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("task", choices=list(TASKS))
    parser.add_argument("-o", "--output", required=True, type=Path, metavar="FOLDER")
    parser.add_argument("-n", "--count", type=int, default=1, help="patients (default: 1)")
    parser.add_argument("--held-out", type=int, default=0, help="further patients for testing")
    parser.add_argument("--seed", type=int, default=0, help="of the first patient (default: 0)")
    parser.add_argument(
        "--size", type=int, nargs=3, metavar=("Z", "Y", "X"), help="voxels (default: modest)"
    )
    parser.add_argument(
        "--study", action="store_true", help="a folder of NRRD files for each patient instead"
    )
    parser.add_argument("--preview", type=Path, metavar="PNG", help="a picture of the first one")
    return parser


def _run(arguments: argparse.Namespace) -> str:
    """Write what was asked for; return the sentence that says so."""
    task, folder, seed = arguments.task, arguments.output, arguments.seed
    total = arguments.count + arguments.held_out
    if arguments.study:
        for i in tqdm(range(total), desc=f"{task} studies", unit="patient"):
            write_study(task, folder / f"{task}_{i:03d}", seed + i, arguments.size)
    else:
        write_dataset(task, folder, arguments.count, seed, arguments.held_out, arguments.size)
    if arguments.preview:
        from mim.phantom_preview import save_preview

        save_preview(make_phantom(task, seed, arguments.size), TASKS[task], arguments.preview)
    what = f"{total} {task} phantom{'s' * (total != 1)} ({', '.join(TASKS[task].sequences)})"
    return f"Wrote {what} to {folder.resolve()}"


def main(arguments: list[str] | None = None) -> int:
    """The command line; returns the exit status."""
    try:
        print(_run(_parser().parse_args(arguments)))
    except MIMSegmentError as error:
        print(f"Error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
