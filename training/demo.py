"""The whole path on one data set: unlabelled scans, pre-training, fine-tuning, package, scene.

    python training/demo.py [DATA] [-o demo-training]

Without DATA prostate phantoms are made. One labelled subject is put aside before anything else
looks at the data; at the end the exported package segments it from its file. Every step is a
command that is printed, so that you can run it yourself.
"""

from __future__ import annotations

import argparse
import json
import os
import shlex
import shutil
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from mim.cases import Case, find_dataset
from mim.demo_report import DemoResult, write_report
from mim.evaluation import dice_per_class
from mim.figures_file import read_figures
from MIMSegment.Logic.errors import InputError, MIMSegmentError
from MIMSegment.Logic.package import load_package
from MIMSegment.Logic.volume import Volume, read_volume

TRAINING = Path(__file__).resolve().parent
RECIPES = TRAINING / "recipes"
# So that the steps find this checkout where it is not installed.
ENVIRONMENT = {**os.environ, "PYTHONPATH": str(TRAINING.parent)}
PHANTOM_TASK, PHANTOM_CASES = "prostate", 24


def main(argv: list[str] | None = None) -> int:
    """Run the demo; 0, or 2 after one line about what went wrong."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("data", nargs="?", help="labelled Medical-Decathlon-style folder")
    parser.add_argument("-o", "--output", default="demo-training", help="folder to write")
    parser.add_argument("--patch-voxels", type=int, default=100_000, help="see prepare.py")
    parser.add_argument(
        "--pretrain",
        nargs="*",
        default=[],
        metavar="key=value",
        help="changes to recipes/pretrain_cpu.toml",
    )
    parser.add_argument(
        "--finetune",
        nargs="*",
        default=[],
        metavar="key=value",
        help="changes to recipes/finetune_cpu.toml",
    )
    arguments = parser.parse_args(argv)
    try:
        demo = Demo(Path(arguments.output))
        result = demo.run(
            Path(arguments.data) if arguments.data else None,
            arguments.patch_voxels,
            arguments.pretrain,
            arguments.finetune,
        )
    except MIMSegmentError as error:
        print(f"demo: error: {error}", file=sys.stderr)
        return 2
    write_report(result, demo.folder)
    print(f"\nMean Dice on held-back subjects: {result.results['dice_mean']:.3f}")
    print(f"Slicer scene  {demo.folder / 'scene.mrb'}")
    print(f"Figures       {demo.folder / 'summary.json'}")
    print(f"Report        {demo.folder / 'report.html'}")
    return 0


class Demo:
    """Runs the steps, each in its own process as a user would, and keeps their times."""

    def __init__(self, folder: Path):
        self.folder = folder
        self.seconds: dict[str, float] = {}

    def run(
        self,
        data: Path | None,
        patch_voxels: int,
        pretrain: Sequence[str],
        finetune: Sequence[str],
    ) -> DemoResult:
        """Take every step; raises MIMSegmentError when one of them fails."""
        self.folder.mkdir(parents=True, exist_ok=True)
        phantom = data is None
        data = data or self._phantoms()
        unseen = unseen_case(data)
        cache, pre, fine = (self.folder / name for name in ("cache", "pretrain", "finetune"))
        package = self.folder / "package"
        self._forget(pre, fine)
        if (cache / "cases.json").is_file():  # maybe of other data
            shutil.rmtree(cache)
        self._training(
            "prepare", data, cache, "--patch-voxels", patch_voxels, "--exclude", unseen.subject
        )
        places = f"cache={cache}", f"run={pre}"
        self._training("pretrain", RECIPES / "pretrain_cpu.toml", *places, *pretrain)
        places = f"cache={cache}", f"run={fine}", f"pretrained={pre / 'last.pt'}"
        self._training("finetune", RECIPES / "finetune_cpu.toml", *places, *finetune)
        self._training("export", fine / "last.pt", package, *(["--phantom"] if phantom else []))
        labels, scene = self.folder / "unseen.seg.nrrd", self.folder / "scene.mrb"
        self._mimsegment("segment", unseen.image, "--model", package, "--output", labels, "--quiet")
        self._mimsegment(
            "scene", unseen.image, "--segmentation", labels, "--model", package,
            "--output", scene, "--pictures", self.folder,
        )  # fmt: skip
        return self._result(data, phantom, unseen, labels, package)

    def _phantoms(self) -> Path:
        data = self.folder / "phantoms"
        if not (data / "dataset.json").is_file():  # seeded, so always the same
            script = TRAINING / "mim" / "phantom.py"
            self._step("phantoms", script, PHANTOM_TASK, "-o", data, "-n", PHANTOM_CASES)
        return data

    def _result(self, data, phantom, unseen: Case, labels: Path, package: Path) -> DemoResult:
        names = {label.value: label.name for label in load_package(package).labels}
        found, truth = read_volume(labels), read_volume(unseen.label)
        return DemoResult(
            data="digital prostate phantoms" if phantom else find_dataset(data).name,
            phantom=phantom,
            unseen=unseen.id,
            results=read_figures(self.folder / "finetune" / "results.json"),
            unseen_dice=dict(
                zip(
                    names.values(),
                    dice_per_class(found.array[0], truth.array[0], list(names)),
                    strict=True,
                )
            ),
            unseen_volumes={
                name: (_milliliters(found, value), _milliliters(truth, value))
                for value, name in names.items()
            },
            seconds=self.seconds,
            recipes={
                step: json.loads((self.folder / step / "recipe.json").read_text(encoding="utf-8"))
                for step in ("pretrain", "finetune")
            },
        )

    def _training(self, command: str, *arguments) -> None:
        self._step(command, TRAINING / f"{command}.py", *arguments)

    def _mimsegment(self, command: str, *arguments) -> None:
        self._step(command, "-m", "MIMSegment.Logic.cli", command, *arguments)

    def _step(self, name: str, *arguments) -> None:
        command = [str(a) for a in arguments]
        print(f"\n[{name}] python {shlex.join(command)}", flush=True)
        began = time.perf_counter()
        status = subprocess.run([sys.executable, *command], env=ENVIRONMENT, check=False).returncode
        self.seconds[name] = round(time.perf_counter() - began, 1)
        if status != 0:
            raise MIMSegmentError(f"the step {name!r} failed (see above)")

    @staticmethod
    def _forget(*runs: Path) -> None:
        """Remove what an earlier demo trained: each demo starts anew."""
        for run in runs:
            for file in ("last.pt", "log.jsonl", "recipe.json", "results.json"):
                (run / file).unlink(missing_ok=True)


def unseen_case(data: Path) -> Case:
    """The labelled case to put aside: the last by name, of a subject with a single image if any."""
    labelled = [case for case in find_dataset(data).cases if case.label is not None]
    if len({case.subject for case in labelled}) < 5:
        raise InputError(f"{data} has labels of fewer than 5 subjects; the demo needs as many.")
    images = {case.subject: 0 for case in labelled}
    for case in labelled:
        images[case.subject] += 1
    single = [case for case in labelled if images[case.subject] == 1]
    return max(single or labelled, key=lambda case: case.id)


def _milliliters(volume: Volume, value: int) -> float:
    return float(np.count_nonzero(volume.array == value) * volume.geometry.voxel_volume_ml)


if __name__ == "__main__":
    sys.exit(main())
