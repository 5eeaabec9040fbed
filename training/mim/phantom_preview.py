"""A picture of a phantom: slices of every sequence, and the labels outlined on the first one."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from mim.phantom_scan import Phantom, PhantomTask
from MIMSegment.Logic.files import replacing
from MIMSegment.Logic.volume import Volume

_CT_WINDOW = (-160.0, 240.0)  # HU, the usual window for the abdomen
_COLUMNS = 6


def save_preview(phantom: Phantom, task: PhantomTask, path: str | Path) -> None:
    """Write a PNG: a row with the labels outlined, then a row for each sequence."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    names = list(phantom.images)
    rows = [(names[0], True), *((name, False) for name in names)]
    height, width = phantom.label.geometry.shape[1:]
    figure, axes = pyplot.subplots(
        len(rows),
        _COLUMNS,
        figsize=(2.4 * _COLUMNS, 2.4 * len(rows) * height / width + 0.5),
        facecolor="black",
        squeeze=False,
    )
    places = _interesting_places(phantom.label)
    for row, (name, outlined) in zip(axes, rows, strict=True):
        volume = phantom.images[name]
        window = _CT_WINDOW if task.modality == "CT" else (0, np.percentile(volume.array, 99.7))
        for axis, place in zip(row, places, strict=True):
            _show_slice(axis, volume, place, window)
            if outlined:
                _outline(axis, phantom.label, place, task)
        row[0].text(0.03, 0.97, name, color="white", va="top", transform=row[0].transAxes)
    _legend(figure, task)
    figure.subplots_adjust(0, 0, 1, 1 - 0.45 / figure.get_figheight(), 0.01, 0.01)
    with replacing(path) as temporary:
        figure.savefig(temporary, dpi=100, facecolor="black")
    pyplot.close(figure)


def _interesting_places(label: Volume) -> np.ndarray:
    """Where along z, 0..1, the labels lie and a little beyond."""
    inside = np.flatnonzero(label.array[0].any((1, 2)))
    last = label.geometry.shape[0] - 1
    first, end = (inside[0], inside[-1]) if len(inside) else (0, last)
    margin = 0.08 * (end - first)
    return np.linspace(max(first - margin, 0), min(end + margin, last), _COLUMNS) / last


def _show_slice(axis, volume: Volume, place: float, window) -> None:
    image = volume.array[0][round(place * (volume.geometry.shape[0] - 1))]
    _, y, x = volume.geometry.spacing
    axis.imshow(image, cmap="gray", vmin=window[0], vmax=window[1], aspect=y / x)
    axis.axis("off")


def _outline(axis, label: Volume, place: float, task: PhantomTask) -> None:
    values = label.array[0][round(place * (label.geometry.shape[0] - 1))]
    for structure in task.labels:
        if (values == structure.value).any():
            color = [[c / 255 for c in structure.color]]
            axis.contour(values == structure.value, [0.5], colors=color, linewidths=1.2)


def _legend(figure, task: PhantomTask) -> None:
    figure.text(0.005, 0.995, "Digital phantom", color="white", va="top", fontsize=11)
    for i, structure in enumerate(task.labels):
        figure.text(
            0.1 + 0.9 * i / max(len(task.labels), 4),
            0.995,
            structure.name,
            color=[c / 255 for c in structure.color],
            va="top",
            fontsize=8,
        )
