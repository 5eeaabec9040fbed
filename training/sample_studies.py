"""Draw the sample studies that come with the module, and list them with their checksums.

    python training/sample_studies.py [FOLDER]

They are phantoms with numbers that no bundled package was trained on (those begin at 100).
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

from mim.phantom import TASKS, make_phantom
from MIMSegment.Logic.files import write_json
from MIMSegment.Logic.package import sha256
from MIMSegment.Logic.samples import SAMPLE_FOLDER, sample_studies
from MIMSegment.Logic.volume import read_volume, write_volume

ICONS = SAMPLE_FOLDER.parent / "Icons"
SOFT_TISSUE = (-160, 240)  # HU
THUMBNAIL = (144, 96)  # pixels, the proportion that Sample Data shows

STUDIES = {  # task: (patient number, title, description)
    "prostate": (8, "Prostate phantom", "T2w, ADC and DWI of a digital phantom with two lesions"),
    "brain": (7, "Brain tumor phantom", "T1, T1c, T2 and FLAIR of a digital phantom with a glioma"),
    "abdomen": (7, "Abdomen phantom", "CT of a digital phantom with ten organs and structures"),
}


def write_samples(folder: Path = SAMPLE_FOLDER) -> None:
    """Write every study to a folder of its own and ``samples.json`` last."""
    studies = []
    for task, (seed, title, description) in STUDIES.items():
        phantom, files = make_phantom(task, seed, sequence_grids=True), {}
        (folder / task).mkdir(parents=True, exist_ok=True)
        for name in TASKS[task].sequences:
            path = folder / task / f"Phantom{task.capitalize()}_{name}.nrrd"
            write_volume(phantom.images[name], path)
            files[name] = {"path": path.relative_to(folder).as_posix(), "sha256": sha256(path)}
        studies.append(
            {
                "id": f"phantom-{task}",
                "title": title,
                "description": f"{description}; it shows no patient.",
                "package": f"phantom-{task}",
                "files": files,
            }
        )
    write_json(folder / "samples.json", {"studies": studies})
    write_thumbnails(folder)


def write_thumbnails(folder: Path = SAMPLE_FOLDER, icons: Path = ICONS) -> None:
    """Write the middle slice of each study as a picture for Slicer's Sample Data."""
    for study in sample_studies(folder):
        volume = read_volume(study.files.get("FLAIR") or next(iter(study.files.values())))
        gray = volume.array[0, len(volume.array[0]) // 2].astype(np.float32)
        low, high = np.percentile(gray[gray > gray.min()], (5, 99.5))
        if "CT" in study.files:
            low, high = SOFT_TISSUE
        shades = np.clip((gray - low) / (high - low), 0, 1) * 255
        _, height, width = volume.geometry.spacing
        picture = Image.fromarray(shades.astype(np.uint8)).resize(
            (round(shades.shape[1] * width), round(shades.shape[0] * height)), Image.LANCZOS
        )
        ImageOps.fit(picture, THUMBNAIL).save(icons / f"{study.id}.png", optimize=True)


def main(argv: list[str] | None = None) -> int:
    """Run the command; 0."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "folder", nargs="?", type=Path, default=SAMPLE_FOLDER, help="default: the module's own"
    )
    write_samples(parser.parse_args(argv).folder)
    return 0


if __name__ == "__main__":
    sys.exit(main())
