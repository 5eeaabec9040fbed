"""What an image must tell before it is read, wherever it is: a file, a series, a volume in a scene.

`candidates.Candidate` is the one for files, `scene_inputs.VolumeSource` the one for the scene.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from pathlib import Path
from typing import Protocol

from MIMSegment.Logic.volume import Volume


class ImageSource(Protocol):
    """An image that may be an input of a model."""

    name: str
    """For display; nothing about the patient."""
    header: Mapping
    """DICOM attributes by keyword, as far as known."""

    @property
    def id(self) -> str:
        """A name for selectors and settings that is the same the next time."""

    @property
    def key(self) -> Hashable:
        """What two sources share only if they are the same image."""

    @property
    def label(self) -> str:
        """The file's or node's name as evidence of its sequence, "" if it says nothing."""

    @property
    def folder(self) -> str:
        """The name of the folder around it, "" if it says nothing."""

    @property
    def plane(self) -> str:
        """ "axial", "coronal" or "sagittal"; "" where unknown."""

    @property
    def instances(self) -> Mapping[str, Path]:
        """The image's DICOM files by SOPInstanceUID, in slice order; empty when it does not come
        from DICOM or they are not known."""

    def read(self) -> Volume:
        """The voxels in world LPS, parent transforms applied. Raises InputError, GeometryError."""
