"""What a package removes after the network: all but the largest part of its structures."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from mim.agreement import ExportError
from MIMSegment.Logic.labels import Label

Groups = tuple[tuple[int, ...], ...]
"""Label values that are one object together, as in `ModelSpec.keep_largest_component`."""

_NNUNET_STEP = "remove_all_but_largest_component_from_segmentation"


def named_groups(texts: Sequence[str], labels: Sequence[Label]) -> Groups:
    """The label values of ``--keep-largest-component``: names, with + between those of one object.

    Raises ExportError for a name that no structure has.
    """
    values = {label.name: label.value for label in labels}
    groups = []
    for text in texts:
        names = [text] if text in values else [name.strip() for name in text.split("+")]
        for name in names:
            if name not in values:
                raise ExportError(
                    f"--keep-largest-component {text}: there is no structure {name!r}, but "
                    f"{', '.join(values)}."
                )
        groups.append(tuple(values[name] for name in names))
    return tuple(groups)


def read_nnunet_postprocessing(path: str | Path, labels: Sequence[Label]) -> Groups:
    """The steps of nnU-Net's postprocessing.json, which find_best_configuration writes.

    Raises ExportError for another file, another step or a label that the model does not have.
    """
    path = Path(path)
    if path.suffix == ".pkl":
        raise ExportError(
            f"{path} is a pickle, which may hold code; name postprocessing.json beside it."
        )
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        steps, arguments = content["postprocessing_fns"], content["postprocessing_kwargs"]
        groups = tuple(_values(keywords["labels_or_regions"]) for keywords in arguments)
    except (OSError, ValueError, LookupError, TypeError) as error:
        raise ExportError(
            f"{path} is no postprocessing.json of nnU-Net ({type(error).__name__}: {error}); "
            "nnUNetv2_find_best_configuration writes it."
        ) from None
    for step in steps:
        if step != _NNUNET_STEP:
            raise ExportError(f"{path}: the step {step!r} cannot be converted.")
    unknown = {value for group in groups for value in group} - {label.value for label in labels}
    if unknown:
        raise ExportError(f"{path} is of another model: this one has no label {min(unknown)}.")
    return groups


def _values(labels_or_regions: int | list) -> tuple[int, ...]:
    """A label, a region (a list of labels) or a list of both as the labels of one object."""
    if not isinstance(labels_or_regions, list):
        return (int(labels_or_regions),)
    return tuple(value for item in labels_or_regions for value in _values(item))


def groups_in_words(groups: Groups, names: dict[int, str]) -> str:
    """What the model card says of them."""
    objects = [" and ".join(names[value] for value in group) for group in groups]
    return f"Post-processing: only the largest connected part is kept of {'; of '.join(objects)}"
