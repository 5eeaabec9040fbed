"""A model package on disk: a MONAI Bundle folder with what the module needs beside it.

configs/metadata.json   MONAI's bundle metadata; our part under the key "mimsegment"
models/model.onnx       the network (opset <= 20, no external data)
models/...              further networks: of an ensemble, for masked reconstruction
labels.csv              structures with SNOMED codes and colors
docs/README.md          model card
LICENSE                 license of the weights
"""

from __future__ import annotations

import hashlib
import json
import shutil
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

from MIMSegment.Logic.catalog_rules import ID, VERSION
from MIMSegment.Logic.errors import OutputError, PackageError
from MIMSegment.Logic.expectations import Expectations
from MIMSegment.Logic.files import not_written
from MIMSegment.Logic.labels import Label, labels_from_csv, labels_to_csv
from MIMSegment.Logic.spec import ModelSpec

T = TypeVar("T")

FORMAT_VERSION = 1
METADATA = "configs/metadata.json"
LABELS = "labels.csv"


@dataclass(frozen=True)
class ModelPackage:
    """A checked package. ``id`` and ``version`` name it; ``phantom`` says that it was trained on
    digital phantoms and must not be trusted on people; ``expectations`` are the ranges of its
    training data, empty where it carries none."""

    path: Path
    id: str
    version: str
    title: str
    spec: ModelSpec
    labels: tuple[Label, ...]
    phantom: bool = False
    checksums: Mapping[str, str] = field(default_factory=dict)
    metadata: Mapping = field(default_factory=dict)
    expectations: Expectations = Expectations()

    @property
    def model_paths(self) -> list[Path]:
        """The network files; several are an ensemble."""
        return [self.path / name for name in self.spec.models]

    def label(self, value: int) -> Label:
        """The structure with this label value."""
        return next(label for label in self.labels if label.value == value)


def load_package(path: str | Path) -> ModelPackage:
    """Read a package folder and check that it is whole.

    Raises PackageError naming the file and the reason: a folder that is no package, missing or
    unreadable metadata, a file that is missing or whose SHA-256 differs, labels that do not fit.
    """
    package = read_package(path)
    verify_networks(package)
    return package


def read_package(path: str | Path) -> ModelPackage:
    """As `load_package`, but `verify_networks` is left to the caller, who has something to do
    meanwhile: networks are large."""
    path = Path(path)
    if not path.is_dir():
        what = "is not a folder" if path.exists() else "does not exist"
        raise PackageError(f"Model package {path} {what}.")
    metadata = read_metadata(path)
    ours = metadata["mimsegment"]
    if ours.get("kind", "segmentation") != "segmentation":
        raise PackageError(
            f"{path} is a model for {ours['kind']}, which names classes of whole images and "
            "segments nothing; `python training/evaluate.py classify` runs it."
        )
    spec = ModelSpec.from_dict(ours.get("model", {}), str(path / METADATA))
    checksums = ours.get("checksums", {})
    if not isinstance(checksums, dict):
        raise PackageError(f"{path / METADATA}: 'checksums' is not a table; get the package again.")
    expectations = Expectations.from_dict(ours.get("plausibility", {}), str(path / METADATA))
    verify_checksum(path / LABELS, checksums.get(LABELS))
    labels = labels_from_csv(_read_text(path / LABELS), str(path / LABELS))
    _check_labels(spec, labels, path)
    identifier, version = ours.get("id"), metadata.get("version")
    if not (isinstance(identifier, str) and ID.fullmatch(identifier)):
        raise PackageError(f"{path / METADATA}: id {identifier!r} is not a lower-case name.")
    if not (isinstance(version, str) and VERSION.fullmatch(version)):
        raise PackageError(f"{path / METADATA}: version {version!r} is not like 1.0.0.")
    return ModelPackage(
        path,
        identifier,
        version,
        ours.get("title") or identifier,
        spec,
        tuple(labels),
        bool(ours.get("phantom")),
        checksums,
        metadata,
        expectations,
    )


def verify_networks(package: ModelPackage) -> None:
    """Raise PackageError unless the network files are there, with their checksums."""
    for name in (*package.spec.models, *_further_models(package.expectations)):
        verify_checksum(package.path / name, package.checksums.get(name))


def write_package(
    path: str | Path,
    identifier: str,
    title: str,
    spec: ModelSpec,
    labels: list[Label],
    models: Mapping[str, Path],
    card: str,
    license_text: str,
    monai: Mapping,
    phantom: bool = False,
    expectations: Expectations | None = None,
    training_images: Sequence[str] = (),
) -> ModelPackage:
    """Write a package folder, whole or not at all; an existing package at ``path`` is replaced.

    ``models`` maps the names of ``spec.models``, and of the reconstruction network if there is one,
    to files to copy; ``monai`` holds the fields that MONAI's schema asks for (version, task,
    description, authors, network_data_format ...); ``training_images`` are digests of the images
    that the network learnt from. Raises OutputError.
    """
    texts = {LABELS: labels_to_csv(labels), "docs/README.md": card, "LICENSE": license_text}
    ours = {"id": identifier, "title": title, "phantom": phantom, "model": spec.to_dict()}
    if expectations is not None:
        ours["plausibility"] = expectations.to_dict()
    if training_images:
        ours["training_images"] = list(training_images)
    return write_bundle(path, models, texts, ours, monai, load_package)


def write_bundle(
    path: str | Path,
    models: Mapping[str, Path],
    texts: Mapping[str, str],
    ours: Mapping,
    monai: Mapping,
    check: Callable[[Path], T],
) -> T:
    """Write a bundle's folder, whole or not at all, and return what ``check`` makes of it.

    ``models`` maps names in the folder to files to copy, ``texts`` to what to write. ``ours``, with
    checksums of networks and labels, is the part of the metadata under "mimsegment"; ``monai`` the
    rest. Raises OutputError when ``path`` cannot be written or holds something else, and whatever
    ``check`` raises.
    """
    path = Path(path).resolve()
    if path.exists() and not (path / METADATA).is_file():
        raise OutputError(f"{path} exists and is not a model package; choose another name.")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".package-", dir=path.parent) as scratch:
            folder = Path(scratch) / path.name
            _fill(folder, models, texts, monai, {"format_version": FORMAT_VERSION, **ours})
            check(folder)
            if path.exists():
                path.rename(Path(scratch) / "replaced")
            folder.rename(path)
    except OSError as error:
        raise not_written(path, error) from error
    return check(path)


def read_metadata(path: str | Path) -> dict:
    """The metadata of a package's folder, with a part of ours that this program can read.

    Raises PackageError.
    """
    path = Path(path) / METADATA
    if not path.is_file():
        raise PackageError(f"{path} is missing: the folder is not a model package.")
    try:
        metadata = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, OSError) as error:
        raise PackageError(f"{path} cannot be read as JSON ({error}); get it again.") from None
    if not isinstance(metadata, dict):
        raise PackageError(f"{path} holds no metadata table; get the package again.")
    ours = metadata.get("mimsegment")
    if not isinstance(ours, dict):
        raise PackageError(
            f"{path} has no 'mimsegment' part: a MONAI bundle, but not one that this "
            "program can run; write one with training/export.py."
        )
    if ours.get("format_version") != FORMAT_VERSION:
        raise PackageError(
            f"{path} has format version {ours.get('format_version')!r}, this program "
            f"reads {FORMAT_VERSION}; update MIM Segment or the package."
        )
    return metadata


def _fill(folder: Path, models: Mapping[str, Path], texts: Mapping[str, str], monai, ours) -> None:
    for name in (*models, *texts, METADATA):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
    for name, source in models.items():
        shutil.copyfile(source, folder / name)
    for name, text in texts.items():
        (folder / name).write_text(text, encoding="utf-8")
    sealed = [*models, LABELS] if LABELS in texts else list(models)
    checksums = {name: sha256(folder / name) for name in sealed}
    metadata = {**monai, "mimsegment": {**ours, "checksums": checksums}}
    text = json.dumps(metadata, indent=2, ensure_ascii=False)
    (folder / METADATA).write_text(text + "\n", encoding="utf-8")


def sha256(path: Path) -> str:
    """Hex digest of a file."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def verify_checksum(path: Path, expected: str | None) -> None:
    """Raise PackageError when ``path`` is missing or its SHA-256 is not ``expected``."""
    if not path.is_file():
        raise PackageError(f"{path} is missing; the package is incomplete, get it again.")
    if expected is None:
        raise PackageError(f"{path} has no checksum in the metadata; the package is incomplete.")
    if sha256(path) != expected:
        raise PackageError(
            f"{path} does not match its checksum: it is damaged or was changed; get the package "
            "again."
        )


def _further_models(expectations: Expectations) -> tuple[str, ...]:
    network = expectations.reconstruction
    return () if network is None else (network.model,)


def _read_text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, ValueError) as error:
        raise PackageError(f"{path} cannot be read as text ({error}); get it again.") from None


def _check_labels(spec: ModelSpec, labels: list[Label], path: Path) -> None:
    named = {label.value for label in labels}
    nameless = sorted(set(spec.channel_labels) - named - {0})
    if nameless:
        raise PackageError(
            f"{path / LABELS} has no name for label {nameless[0]}, which the network returns."
        )
