"""Make the packages that come with the module, from phantoms, by the recipes of this tree.

    python training/phantom_packages.py WORK [TASK ...]

Draws 48 patients for each task, prepares, pre-trains, fine-tunes and exports into
MIMSegment/Resources/Models, and writes the catalog there. WORK keeps the runs, and a second call
goes on where the first one stopped. Half an hour to an hour on two CPU cores.
"""

from __future__ import annotations

import argparse
import os
import shlex
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from MIMSegment.Logic.catalog import BUNDLED_CATALOG
from MIMSegment.Logic.errors import MIMSegmentError
from MIMSegment.Logic.files import write_json
from MIMSegment.Logic.package import METADATA, load_package, sha256

TRAINING = Path(__file__).resolve().parent
RECIPES = TRAINING / "recipes"
ENVIRONMENT = {**os.environ, "PYTHONPATH": str(TRAINING.parent)}
PATIENTS, FIRST_PATIENT, PATCH_VOXELS = 48, 100, 100_000
VERSION, LICENSE = "1.0.0", "Apache-2.0"


@dataclass(frozen=True)
class Card:
    """What the catalog says of a package beside what the package says itself."""

    title: str
    region: str
    description: str


CARDS = {
    "abdomen": Card(
        "Abdominal organs (phantom model)",
        "abdomen",
        "Ten organs and structures on CT. Trained on digital phantoms: for trying out, not for "
        "patients.",
    ),
    "brain": Card(
        "Brain tumor (phantom model)",
        "brain",
        "Necrotic core, peritumoral edema and enhancing tumor on skull-stripped T1, T1c, T2 and "
        "FLAIR. Trained on digital phantoms: for trying out, not for patients.",
    ),
    "prostate": Card(
        "Prostate zones and lesions (phantom model)",
        "prostate",
        "Peripheral zone, transition zone and lesions on T2w, ADC and DWI. Trained on digital "
        "phantoms: for trying out, not for patients.",
    ),
}


def main(argv: list[str] | None = None) -> int:
    """Run the command; 0, or 2 after one line about what went wrong."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("work", type=Path, help="folder for data and runs")
    parser.add_argument("tasks", nargs="*", metavar="TASK", help=f"of {', '.join(CARDS)}")
    arguments = parser.parse_args(argv)
    try:
        for task in arguments.tasks or CARDS:
            make_package(task, arguments.work / task)
        write_catalog()
    except MIMSegmentError as error:
        print(f"phantom_packages: error: {error}", file=sys.stderr)
        return 2
    return 0


def make_package(task: str, work: Path) -> None:
    """Every step for one task, skipping those whose result is there."""
    data, cache, pre, fine = (work / name for name in ("data", "cache", "pre", "fine"))
    if not (data / "dataset.json").is_file():
        _run("mim/phantom.py", task, "-o", data, "-n", PATIENTS, "--seed", FIRST_PATIENT)
    if not (cache / "plan.json").is_file():
        _run("prepare.py", data, cache, "--patch-voxels", PATCH_VOXELS)
    places = f"cache={cache}"
    if not (pre / "reconstruction.png").is_file():
        _run("pretrain.py", RECIPES / "phantom_pretrain.toml", places, f"run={pre}", *_resume(pre))
    if not (fine / "results.json").is_file():
        start = f"pretrained={pre / 'last.pt'}"
        recipe = RECIPES / "phantom_finetune.toml"
        _run("finetune.py", recipe, places, f"run={fine}", start, *_resume(fine))
    package = BUNDLED_CATALOG.parent / f"phantom-{task}"
    options = ["--phantom", "--half-weights", "--version", VERSION, "--license", LICENSE]
    options += ["--title", CARDS[task].title, "--authors", "The MIM Segment contributors"]
    options += ["--reconstruction", pre / "last.pt"]
    _run("export.py", fine / "last.pt", package, *options)


def write_catalog(path: Path = BUNDLED_CATALOG) -> None:
    """List the package folders that are there beside ``path`` in it."""
    packages = []
    for task, card in CARDS.items():
        folder = path.parent / f"phantom-{task}"
        if not folder.is_dir():
            continue
        package = load_package(folder)
        files = [file for file in package.path.rglob("*") if file.is_file()]
        packages.append(
            {
                "id": package.id,
                "version": package.version,
                "title": card.title,
                "description": card.description,
                "region": card.region,
                "inputs": [{"name": i.name, "modality": i.modality} for i in package.spec.inputs],
                "structures": [label.name for label in package.labels],
                "license": LICENSE,
                "license_url": "https://www.apache.org/licenses/LICENSE-2.0",
                "license_acknowledgment": False,
                "training_data": f"{PATIENTS} digital phantoms, no patient's data",
                "size_bytes": sum(file.stat().st_size for file in files),
                "phantom": True,
                "folder": package.path.name,
                "urls": [],
                "sha256": sha256(package.path / METADATA),
            }
        )
    write_json(path, {"schema_version": 1, "packages": packages})


def _resume(run: Path) -> list[str]:
    return ["--resume"] if (run / "last.pt").is_file() else []


def _run(script: str, *arguments) -> None:
    command = [script, *map(str, arguments)]
    print(f"\npython training/{shlex.join(command)}", flush=True)
    whole = [sys.executable, str(TRAINING / script), *command[1:]]
    if subprocess.run(whole, env=ENVIRONMENT, check=False).returncode:
        raise MIMSegmentError(f"{script} failed (see above).")


if __name__ == "__main__":
    sys.exit(main())
