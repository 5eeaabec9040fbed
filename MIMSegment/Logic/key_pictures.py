"""Slices of a result as PNG images: one through the middle of each of the largest structures."""

from __future__ import annotations

import io

import numpy as np

from MIMSegment.Logic.errors import OutputError
from MIMSegment.Logic.gray_values import describe
from MIMSegment.Logic.labels import Label
from MIMSegment.Logic.reviewed_case import ReviewedCase
from MIMSegment.Logic.volume import Volume, axes_to, permute, permuted

_SIDE = 480  # pixels of the longer side
_MARGIN = 15.0  # mm around what was segmented
_IN_SIGHT = (0.2, 99.8)  # percentiles of the voxels' places
_FILL = 0.22  # opacity; the outline is opaque


def key_pictures(case: ReviewedCase, most: int = 3) -> list[tuple[str, bytes]]:
    """(caption, PNG) of up to ``most`` slices in which a structure is largest, without doubles.

    Lesions first, then by volume. Shown as radiologists look at it: the patient's right on the
    left, front up, cropped to what was segmented. Empty when the first input is not loaded.
    """
    image = case.inputs[0].volume if case.inputs else None
    if image is None or not image.geometry.is_close(case.labels.geometry):
        return []
    gray, labels, spacing = _radiological(image, case.labels)
    areas = _areas(labels, case.table)
    box = _box(labels, spacing)
    if box is None:
        return []
    known = describe(image.array[0])
    pictures: dict[int, tuple[str, bytes]] = {}
    for label in sorted(case.table, key=lambda s: _importance(s, areas[:, s.value].sum())):
        z = int(areas[:, label.value].argmax())
        if areas[z, label.value] and z not in pictures and len(pictures) < most:
            shown = _shades(gray[z][box], known.low, known.high), labels[z][box]
            caption = f"{label.name}, slice {z + 1} of {len(labels)}"
            pictures[z] = (caption, _png(*shown, case.table, spacing[1:]))
    return list(pictures.values())


def _importance(label: Label, voxels: int) -> tuple[bool, int]:
    from MIMSegment.Logic.anatomy import is_lesion

    return not is_lesion(label), -int(voxels)


def _radiological(image: Volume, labels: Volume):
    """Both arrays (z, y, x) with axial slices from the feet up, and their spacing in mm."""
    order, flips = axes_to(image.geometry, "LPS")
    spacing = permuted(image.geometry, order, flips).spacing
    return permute(image.array[0], order, flips), permute(labels.array[0], order, flips), spacing


def _areas(labels: np.ndarray, table) -> np.ndarray:
    """Voxels of each label value in each slice, (z, values)."""
    size = max(label.value for label in table) + 1
    return np.stack([np.bincount(plane.ravel(), minlength=size)[:size] for plane in labels])


def _box(labels: np.ndarray, spacing) -> tuple[slice, slice] | None:
    """The rows and columns that hold the structures, with a margin; None without any.

    Specks far away stay outside, or the structures would be small in the picture.
    """
    found = np.nonzero(labels)[1:]
    if not len(found[0]):
        return None
    sides = []
    for index, step in zip(found, spacing[1:], strict=True):
        low, high = np.percentile(index, _IN_SIGHT)
        margin = round(_MARGIN / step)
        sides.append(slice(max(0, int(low) - margin), int(np.ceil(high)) + margin + 1))
    return tuple(sides)


def _shades(gray: np.ndarray, low: float, high: float) -> np.ndarray:
    return np.clip((gray.astype(np.float32) - low) / max(high - low, 1e-6) * 255, 0, 255)


def _png(shades: np.ndarray, labels: np.ndarray, table, spacing) -> bytes:
    try:
        from PIL import Image
    except ImportError:
        raise OutputError(
            "The pictures of the report need Pillow: pip install 'mimsegment[report]' (3D Slicer "
            "brings it)."
        ) from None
    height, width = np.multiply(shades.shape, spacing)  # mm
    scale = _SIDE / max(height, width)
    size = max(1, round(width * scale)), max(1, round(height * scale))
    big = Image.fromarray(shades.astype(np.uint8)).resize(size, Image.Resampling.BICUBIC)
    areas = Image.fromarray(labels.astype(np.int32)).resize(size, Image.Resampling.NEAREST)
    data = io.BytesIO()
    picture = Image.fromarray(_outlined(np.asarray(big), np.asarray(areas), table))
    _mark_right(picture)
    picture.save(data, "PNG", optimize=True)
    return data.getvalue()


def _mark_right(picture) -> None:
    """An R at the left edge, where the patient's right is, as radiologists expect to read it."""
    from PIL import ImageDraw, ImageFont

    place = (_SIDE // 60, picture.height // 2)
    style = {"fill": (255, 255, 255), "stroke_width": 2, "stroke_fill": (0, 0, 0)}
    ImageDraw.Draw(picture).text(place, "R", font=ImageFont.load_default(36), **style)


def _outlined(gray: np.ndarray, labels: np.ndarray, table) -> np.ndarray:
    """RGB (y, x, 3): each structure lightly filled, with an opaque line at its edge."""
    from scipy.ndimage import grey_dilation, grey_erosion

    edge = grey_dilation(labels, (3, 3)) != grey_erosion(labels, (3, 3))
    picture = np.repeat(gray[..., None].astype(np.float32), 3, axis=2)
    for label in table:
        inside = labels == label.value
        opacity = np.where(edge[inside], 1.0, _FILL)[:, None]
        picture[inside] += opacity * (np.asarray(label.color) - picture[inside])
    return picture.astype(np.uint8)
