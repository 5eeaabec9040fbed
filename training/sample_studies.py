"""Draw the sample studies that come with the module, and list them with their checksums.

    python training/sample_studies.py [FOLDER]

They are phantoms with numbers that no bundled package was trained on (those begin at 100).
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from mim.phantom import TASKS, make_phantom
from MIMSegment.Logic.files import replacing
from MIMSegment.Logic.package import sha256
from MIMSegment.Logic.samples import SAMPLE_FOLDER
from MIMSegment.Logic.volume import write_volume

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
    with replacing(folder / "samples.json") as temporary:
        temporary.write_text(json.dumps({"studies": studies}, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    write_samples(*map(Path, sys.argv[1:2]))
