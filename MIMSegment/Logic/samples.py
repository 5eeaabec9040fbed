"""Sample studies that come with the program: digital phantoms, for a first try without a network.

``Resources/SampleData/samples.json`` lists them. They are drawn from a seed and show no patient.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from MIMSegment.Logic.errors import InputError
from MIMSegment.Logic.package import sha256

SAMPLE_FOLDER = Path(__file__).parents[1] / "Resources" / "SampleData"


@dataclass(frozen=True)
class SampleStudy:
    """One study. ``files`` maps a model's input name to an image, ``package`` is the id of the
    bundled model that it is for, ``checksums`` has the SHA-256 of each input's file."""

    id: str
    title: str
    description: str
    package: str
    files: Mapping[str, Path]
    checksums: Mapping[str, str]

    @property
    def folder(self) -> Path:
        """The folder that holds the files of this study and nothing else."""
        return next(iter(self.files.values())).parent

    def check(self) -> None:
        """Raise InputError when a file is missing or damaged."""
        for name, path in self.files.items():
            if not path.is_file() or sha256(path) != self.checksums[name]:
                raise InputError(
                    f"{path} of the sample study is missing or damaged; install MIM Segment again."
                )


def sample_studies(folder: Path = SAMPLE_FOLDER) -> tuple[SampleStudy, ...]:
    """All sample studies, in the order in which they are shown."""
    listed = json.loads((folder / "samples.json").read_text(encoding="utf-8"))
    return tuple(
        SampleStudy(
            item["id"],
            item["title"],
            item["description"],
            item["package"],
            {name: folder / file["path"] for name, file in item["files"].items()},
            {name: file["sha256"] for name, file in item["files"].items()},
        )
        for item in listed["studies"]
    )


def sample_study(id: str, folder: Path = SAMPLE_FOLDER) -> SampleStudy:
    """The study with this id; InputError names those that there are."""
    studies = {study.id: study for study in sample_studies(folder)}
    if id not in studies:
        raise InputError(f"There is no sample study {id!r}; there are {', '.join(studies)}.")
    return studies[id]
