"""The package of a classifier: what it asks of an image, and the classes that it tells apart."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tqdm import tqdm

from mim.caching import picture_to_grid
from mim.cases import Case
from mim.data import center_crop
from mim.plans import plan_preprocessing
from MIMSegment.Logic.errors import PackageError
from MIMSegment.Logic.matching import InputSpec
from MIMSegment.Logic.package import METADATA, read_metadata, verify_checksum
from MIMSegment.Logic.preprocess import prepare
from MIMSegment.Logic.tables import build, known_fields
from MIMSegment.Logic.volume import Volume

KIND = "classification"


@dataclass(frozen=True)
class ClassifierSpec:
    """As `ModelSpec`; channel n of the output is the logit of ``classes[n]``.

    ``multi_label``: each class is there or not by itself (sigmoid); else one of them (softmax).
    """

    inputs: tuple[InputSpec, ...]
    preprocessing: Mapping[str, Any]
    patch: tuple[int, int, int]
    classes: tuple[str, ...]
    multi_label: bool
    dims: int = 3
    models: tuple[str, ...] = ("models/model.onnx",)
    provenance: Mapping[str, Any] = field(default_factory=dict)

    @property
    def shape(self) -> tuple[int, ...]:
        """([z,] y, x) of the network's input."""
        return self.patch[3 - self.dims :]

    def to_dict(self) -> dict:
        """Plain dictionaries, lists and numbers, ready for JSON."""
        return asdict(self)

    @staticmethod
    def from_dict(data: Mapping, source: str) -> ClassifierSpec:
        """Raises PackageError naming the field that is missing or unknown."""
        data = known_fields(ClassifierSpec, data, source)
        data["inputs"] = tuple(build(InputSpec, i, source) for i in data.get("inputs", ()))
        return build(ClassifierSpec, data, source)


@dataclass(frozen=True)
class ClassifierPackage:
    """A checked package on disk."""

    path: Path
    id: str
    version: str
    spec: ClassifierSpec
    metadata: Mapping = field(default_factory=dict)

    @property
    def model(self) -> Path:
        """The ONNX file."""
        return self.path / self.spec.models[0]


def load_classifier(path: str | Path) -> ClassifierPackage:
    """Read a classifier's package and check that it is whole; raises PackageError."""
    path = Path(path)
    metadata = read_metadata(path)
    ours = metadata["mimsegment"]
    if ours.get("kind") != KIND:
        raise PackageError(f"{path} is no classifier; `evaluate.py segment` measures it.")
    spec = ClassifierSpec.from_dict(ours.get("model", {}), str(path / METADATA))
    for name, checksum in ours["checksums"].items():
        verify_checksum(path / name, checksum)
    return ClassifierPackage(path, ours["id"], metadata["version"], spec, metadata)


def classify_cases(
    spec: ClassifierSpec,
    cases: Sequence[Case],
    session: Callable[[np.ndarray], np.ndarray],
    admits: Callable[[Case, Volume], bool] = lambda case, volume: True,
) -> dict[str, np.ndarray]:
    """Probabilities (classes,) by case, of the middle of its image, as fine-tuning measures them.

    ``session`` is the network: float32 (b, c, [z,] y, x) to logits (b, classes). ``admits`` is
    asked of each image, as it was read, whether to classify it.
    """
    found = {}
    for case in tqdm(cases, "classify", unit="case"):
        volume = case.read()
        if admits(case, volume):
            logits = torch.from_numpy(session(_input(spec, volume)))[0]
            probabilities = logits.sigmoid() if spec.multi_label else logits.softmax(0)
            found[case.id] = probabilities.numpy()
    return found


def _input(spec: ClassifierSpec, volume: Volume) -> np.ndarray:
    plan = {"patch": spec.patch, "preprocessing": dict(spec.preprocessing)}
    if spec.dims == 2:
        array = picture_to_grid(volume.array, plan)
    else:
        array, _ = prepare(volume, plan_preprocessing(plan))
    # float16 as in the cache, so that the network sees what it was measured on
    return center_crop(torch.from_numpy(array.astype(np.float16)), spec.shape).numpy()
