"""2D images without a place in the patient: PNG and JPEG files, arrays in MedMNIST archives."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

import numpy as np

from MIMSegment.Logic.errors import InputError
from MIMSegment.Logic.volume import Geometry, Volume

PICTURE_SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff")
_UNIT = (1.0, 1.0, 1.0)


def is_picture(path: Path) -> bool:
    """Whether the file's ending is one that `read_picture` reads."""
    return path.suffix.lower() in PICTURE_SUFFIXES


def read_picture(path: str | Path) -> Volume:
    """A picture as a volume of one slice: (c, 1, y, x) with c = 1 (gray) or 3, voxels of 1 mm.

    A color picture whose channels are equal is gray. Raises InputError naming the file.
    """
    from PIL import Image

    try:
        with Image.open(path) as image:
            if image.mode not in ("L", "I", "I;16", "F", "RGB"):
                image = image.convert("L" if image.mode in ("1", "LA") else "RGB")
            array = np.asarray(image)
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise InputError(f"{path} cannot be read as a picture ({error}).") from None
    return _as_volume(array, str(path))


def read_member(path: str | Path, name: str, index: int) -> Volume:
    """Image ``index`` of the array ``name`` in an .npz archive, as `read_picture` gives it.

    Arrays are (n, y, x), (n, y, x, 3) or (n, z, y, x).
    """
    array = _member(str(path), name)[index]
    if array.ndim == 3 and array.shape[-1] != 3:  # a MedMNIST volume
        return Volume(array[None].astype(np.float32), Geometry.from_parts(array.shape, _UNIT))
    return _as_volume(array, f"{path} {name}[{index}]")


def fit(picture: np.ndarray, size: int) -> np.ndarray:
    """Scale (c, 1, y, x) so that its longer side has ``size`` pixels; float32.

    Area-weighted, so that nothing is skipped when it shrinks.
    """
    from PIL import Image

    height, width = picture.shape[2:]
    scale = size / max(height, width)
    target = max(1, round(width * scale)), max(1, round(height * scale))
    if target == (width, height):
        return picture.astype(np.float32)
    channels = [
        Image.fromarray(channel[0].astype(np.float32)).resize(target, Image.Resampling.BILINEAR)
        for channel in picture
    ]
    return np.stack([np.asarray(channel)[None] for channel in channels])


@lru_cache(maxsize=4)
def _member(path: str, name: str) -> np.ndarray:
    try:
        with np.load(path) as archive:
            return archive[name]
    except (OSError, ValueError, KeyError) as error:
        raise InputError(f"{path} cannot be read ({error}).") from None


def _as_volume(array: np.ndarray, source: str) -> Volume:
    channels = array[None] if array.ndim == 2 else np.moveaxis(array, -1, 0)
    if len(channels) == 3 and (channels == channels[:1]).all():
        channels = channels[:1]
    pixels = channels[:, None].astype(np.float32)
    return Volume(pixels, Geometry.from_parts(pixels.shape[1:], _UNIT), source)
