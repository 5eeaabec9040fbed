"""The opened images, which of them the model's inputs are, and their voxels once read."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from MIMSegment.Logic.candidates import distinct_names
from MIMSegment.Logic.errors import InputError
from MIMSegment.Logic.image_source import ImageSource
from MIMSegment.Logic.matching import Answer, InputSpec, Matching, match_inputs
from MIMSegment.Logic.volume import Volume
from MIMSegment.Logic.workflow_ports import SceneGateway
from MIMSegment.Logic.workflow_state import InputRow

_NOTHING = Matching((), (), ())


@dataclass(frozen=True)
class _Reading:
    """An image as it was read, and `SceneGateway.version` of it then."""

    version: Hashable
    volume: Volume


class StudyInputs:
    """The images of one study, matched to the inputs of one model.

    ``title`` names the study for display.
    """

    def __init__(self, gateway: SceneGateway):
        self._gateway = gateway
        self.title = ""
        self.sources: list[ImageSource] = []
        self.matching = _NOTHING
        self._specs: tuple[InputSpec, ...] = ()
        self._chosen: dict[str, str] = {}
        self._files: dict[Hashable, Volume] = {}  # as they are on the disk
        self._readings: dict[Hashable, _Reading] = {}

    def open(self, sources: Sequence[ImageSource], title: str) -> None:
        """Take these images for the study; what was read of others is dropped."""
        self.sources, self.title = list(sources), title
        self._files.clear()
        self._readings.clear()
        self._match()

    def require(self, specs: Sequence[InputSpec], chosen: Mapping[str, str]) -> None:
        """Match the inputs ``specs``; ``chosen`` maps an input's name to the source ID that the
        user chose."""
        self._specs, self._chosen = tuple(specs), dict(chosen)
        self._match()

    @property
    def problem(self) -> str:
        """Why the inputs cannot be used as they are; "" when they can."""
        if not self.sources:
            return "No image is loaded; load one, or open a folder."
        return " ".join((*self.matching.problems, *self._used_twice()))

    def rows(self) -> tuple[InputRow, ...]:
        """A row for each input of the model."""
        ids = [source.id for source in self.sources]
        choices = tuple(zip(ids, distinct_names(self.sources), strict=True))
        matches = {match.input.name: match for match in self.matching.matches}
        rows = []
        for spec in self._specs:
            about = (spec.name, spec.modality, spec.description)
            match = matches.get(spec.name)
            if match is None:
                problem = self.matching.missing.get(spec.name, "No image is open yet.")
                rows.append(InputRow(*about, problem=problem, choices=choices))
                continue
            source = match.candidate
            rows.append(InputRow(*about, source.id, match.reason, match.explicit, choices=choices))
        return tuple(rows)

    def used(self) -> list[ImageSource]:
        """The images of the inputs, in the order of the inputs. Raises InputError."""
        if self.problem:
            raise InputError(self.problem)
        return [match.candidate for match in self.matching.matches]

    def read(self) -> list[Volume]:
        """The voxels of `used`, each image read once as long as it stays as it is.

        Raises InputError, GeometryError.
        """
        volumes = []
        for source in self.used():
            version, reading = self._gateway.version(source), self._readings.get(source.key)
            if reading is None or reading.version != version:
                reading = _Reading(version, self._gateway.read(source, self._from_files))
                _require_gray(reading.volume)
                self._readings[source.key] = reading
            volumes.append(reading.volume)
        return volumes

    @property
    def unchanged(self) -> bool:
        """Whether the images of the inputs still are as `read` last found them."""
        if self.problem:
            return False
        pairs = ((source, self._readings.get(source.key)) for source in self.used())
        return all(r is not None and r.version == self._gateway.version(s) for s, r in pairs)

    def _from_files(self, source: ImageSource) -> Volume:
        if source.key not in self._files:
            self._files[source.key] = source.read()
        return self._files[source.key]

    def _match(self) -> None:
        by_id = {source.id: source for source in self.sources}
        chosen = {name: by_id[i] for name, i in self._chosen.items() if i in by_id}
        known = {spec.name for spec in self._specs}
        chosen = {name: source for name, source in chosen.items() if name in known}
        if self._specs and self.sources:
            self.matching = match_inputs(self._specs, self.sources, chosen, Answer.LIST)
        else:
            self.matching = _NOTHING

    def _used_twice(self) -> list[str]:
        users: dict[Hashable, list[str]] = {}
        for match in self.matching.matches:
            users.setdefault(match.candidate.key, []).append(match.input.name)
        names = {match.candidate.key: match.candidate.name for match in self.matching.matches}
        return [
            f"{names[key]} is chosen for {' and '.join(inputs)}; choose another image for one."
            for key, inputs in users.items()
            if len(inputs) > 1
        ]


def _require_gray(volume: Volume) -> None:
    """An input is one image: neither colors nor a series of images in one file."""
    count = len(volume.array)
    if count == 1:
        return
    if count in (3, 4) and volume.array.dtype == np.uint8:
        raise InputError(
            f"{volume.source} is in color and the model needs gray values; open the original "
            "images instead."
        )
    raise InputError(
        f"{volume.source} holds {count} images (a time series, or several sequences); save the one "
        "that is meant as a 3D image, and open that."
    )
