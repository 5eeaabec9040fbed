"""What every package has as a MONAI bundle, whatever its network is for."""

from __future__ import annotations

import contextlib
import io
import logging
import math
import re
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import Path

import numpy as np
import torch

from mim.figures_file import read_figures
from mim.runs import LAST
from MIMSegment.Logic.matching import InputSpec
from MIMSegment.Logic.package import METADATA

# The address that MONAI's bundles name; verification uses our copy of its rules, without a network.
SCHEMA_URL = "https://project-monai.github.io/schema/meta_schema_20240725.json"
SCHEMA = Path(__file__).with_name("bundle_schema.json")

NETWORKS = {
    "resenc_unet": "residual encoder U-Net",
    "unetr": "UNETR, a vision transformer and a CNN decoder",
    "swin_unetr": "SwinUNETR, a Swin transformer and a CNN decoder",
    "resenc_classifier": "residual encoder and linear classifier",
    "vit_classifier": "vision transformer and linear classifier",
}


@dataclass(frozen=True)
class ExportOptions:
    """What `export.py` lets one choose."""

    id: str | None = None
    title: str | None = None
    version: str = "1.0.0"
    authors: str = "unknown"
    license: str = "unknown"
    labels: str | None = None
    phantom: bool = False
    half_weights: bool = False
    torchscript: bool = False
    reconstruction: str | None = None
    mirror: bool = False
    keep_largest_component: Sequence[str] = ()
    postprocessing: str | None = None

    def identifier(self, folder: Path) -> str:
        """The package's lower-case name, by default made of the folder's."""
        return self.id or re.sub(r"[^a-z0-9._-]+", "-", folder.name.lower()).strip("-.")


def bundle_metadata(
    title: str,
    options: ExportOptions,
    task: str,
    network: str,
    inputs: Sequence[InputSpec],
    shape: Sequence[int],
    prediction: Mapping,
    eval_metrics: Mapping,
) -> dict:
    """The fields that MONAI's schema for bundles asks for.

    ``network`` in words; ``shape`` ([z,] y, x) of what it takes; ``prediction`` describes its
    output ("type", "format", "spatial_shape", "channel_def" ...).
    """
    import monai

    image = {
        "type": "image",
        "format": "magnitude",
        "modality": "/".join(dict.fromkeys(i.modality for i in inputs)),
        "num_channels": len(inputs),
        "spatial_shape": list(shape),
        "dtype": "float32",
        "value_range": [],
        "is_patch_data": True,
        "channel_def": {str(n): i.name for n, i in enumerate(inputs)},
    }
    return {
        "schema": SCHEMA_URL,
        "version": options.version,
        "changelog": {options.version: "exported"},
        "monai_version": monai.__version__,
        "pytorch_version": torch.__version__.split("+")[0],
        "numpy_version": np.__version__,
        "required_packages_version": {},
        "optional_packages_version": {"onnxruntime": "1.23.0"},
        "task": task,
        "description": f"{title}: {network}.",
        "authors": options.authors,
        "copyright": f"Copyright (c) {options.authors}",
        "intended_use": "Research only. Not a medical device.",
        "eval_metrics": {name: v for name, v in eval_metrics.items() if math.isfinite(v)},
        "network_data_format": {
            "inputs": {"image": image},
            "outputs": {"pred": {"dtype": "float32", "value_range": [], **prediction}},
        },
    }


def model_card(
    title: str,
    inputs: Sequence[InputSpec],
    facts: Sequence[str],
    measured: str,
    options: ExportOptions,
) -> str:
    """Plain words on what the model is, what it was trained on and how good it was.

    ``facts`` are further lines of the list, ``measured`` a sentence or nothing.
    """
    lines = [
        f"# {title}",
        "",
        "Research use only. Not a medical device.",
        "",
        f"- Inputs: {', '.join(f'{i.name} ({i.modality})' for i in inputs)}",
        *(f"- {fact}" for fact in facts),
        f"- License of the weights: {options.license}",
        f"- Exported: {date.today().isoformat()}",
        "",
    ]
    if options.phantom:
        lines += ["**Trained on digital phantoms. It must not be used on people.**", ""]
    if measured:
        lines += [measured, ""]
    lines.append("Not validated on scanners, protocols or patients other than the above.")
    return "\n".join(lines) + "\n"


def provenance(metadata: Mapping) -> dict:
    """Where a network comes from, of the metadata of its checkpoint."""
    return {
        "data": metadata["plan"]["name"],
        "recipe_hash": metadata["recipe_hash"],
        "steps": metadata["step"],
        "pretrained": bool(metadata["recipe"].get("pretrained")),
    }


def results_of(checkpoint: Path) -> dict:
    """results.json beside the last checkpoint of a run, which it is of; empty for any other."""
    path = checkpoint.with_name("results.json")
    return read_figures(path) if checkpoint.name == LAST and path.is_file() else {}


def verify_metadata(folder: str | Path) -> None:
    """MONAI's own check of the metadata in a bundle's ``folder``, against a copy of its rules."""
    from monai.bundle import verify_metadata as check

    quiet = contextlib.redirect_stdout(io.StringIO())
    with quiet, warnings.catch_warnings(), _silenced("monai.apps", "monai.bundle.scripts"):
        warnings.simplefilter("ignore")
        check(meta_file=str(Path(folder) / METADATA), filepath=str(SCHEMA))


@contextlib.contextmanager
def _silenced(*loggers: str):
    """MONAI's loggers print every argument."""
    before = [(logging.getLogger(name), logging.getLogger(name).disabled) for name in loggers]
    try:
        for logger, _ in before:
            logger.disabled = True
        yield
    finally:
        for logger, disabled in before:
            logger.disabled = disabled
