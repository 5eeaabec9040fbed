"""What `prepare.py` lets one choose."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from MIMSegment.Logic.errors import InputError


@dataclass(frozen=True)
class PrepareOptions:
    """What `prepare.py` lets one choose; ``spacing`` is (z, y, x) in mm.

    ``test_list`` is a text file that names the held-back cases or subjects, beside those that the
    data set itself has for testing; where nobody says it, ``held_back`` is the share of labelled
    subjects. ``pretrain_on_test_images`` is about test images without labels, which are left out
    else. ``normalization`` are `planning.SCHEMES` for all inputs or for each; ``crop_nonzero`` cuts
    volumes to what is not 0. ``inputs`` are the suffixes of a BIDS tree that make up the channels.
    ``like`` is a checkpoint or a cache whose voxel size, crop and network are to be had here too.
    ``splits`` is nnU-Net's splits_final.json; then nobody is held back beside those for testing.
    Raises InputError for a number that cannot be.
    """

    modality: str | None = None
    spacing: tuple[float, float, float] | None = None
    patch_voxels: int = 100_000
    picture_size: int = 224
    stages: int = 4
    like: str | None = None
    held_back: float = 0.2
    test_list: str | None = None
    splits: str | None = None
    pretrain_on_test_images: bool = False
    exclude: tuple[str, ...] = ()
    inputs: tuple[str, ...] = ()
    normalization: tuple[str, ...] = ()
    crop_nonzero: bool = False
    regions: Literal["", "brats"] = ""
    classes_from_folders: bool = False
    seed: int = 0
    jobs: int = 0

    def __post_init__(self):
        if self.spacing and not all(0 < mm < float("inf") for mm in self.spacing):
            raise InputError(f"--spacing is three sizes in mm above 0, not {[*self.spacing]}.")
        if not 0 <= self.held_back < 1:
            raise InputError(
                f"--held-back is a share of the subjects, from 0 to below 1, not {self.held_back}."
            )
        for name in ("patch_voxels", "picture_size", "stages"):
            if getattr(self, name) < 1:
                raise InputError(
                    f"--{name.replace('_', '-')} must be at least 1, not {getattr(self, name)}."
                )
        if self.jobs < 0:
            raise InputError(f"--jobs is a number of processes, or 0 for all cores: {self.jobs}.")
