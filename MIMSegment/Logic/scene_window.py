"""Off-screen windows and the pictures they give."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import slicer
import vtkmodules.vtkRenderingFreeType
import vtkmodules.vtkRenderingOpenGL2  # noqa: F401  (both hold the classes behind abstract ones)
from vtkmodules.util.numpy_support import numpy_to_vtk, vtk_to_numpy
from vtkmodules.vtkCommonDataModel import vtkImageData
from vtkmodules.vtkCommonMisc import vtkErrorCode
from vtkmodules.vtkIOImage import vtkPNGWriter
from vtkmodules.vtkRenderingCore import (
    vtkRenderer,
    vtkRenderWindow,
    vtkTextActor,
    vtkWindowToImageFilter,
)

from MIMSegment.Logic.files import replacing
from MIMSegment.Logic.offscreen import draw_without_screen
from MIMSegment.Logic.scene_core import vtk_messages

_SIDES = (("R", "L"), ("A", "P"), ("S", "I"))  # RAS: the first letter is where + points


def offscreen_window(renderer: vtkRenderer, size: tuple[int, int]) -> vtkRenderWindow:
    """A window of (width, height) pixels that never appears on a screen."""
    if not hasattr(slicer, "app"):  # Slicer's own windows need the display server
        draw_without_screen()
    window = vtkRenderWindow()
    window.SetOffScreenRendering(True)
    window.SetMultiSamples(0)
    window.SetSize(*size)
    window.AddRenderer(renderer)
    return window


def add_side_letters(
    renderer: vtkRenderer,
    right: np.ndarray,
    up: np.ndarray,
    size: tuple[int, int],
    color: tuple[float, float, float],
) -> None:
    """Write the patient's side on the left and on the upper edge of a (width, height) picture.

    ``right`` and ``up`` are the directions of the picture's axes in RAS.
    """
    width, height = size
    font = min(size) // 24
    for direction, x, y in ((-right, font, height // 2), (up, width // 2, height - font)):
        axis = int(np.abs(direction).argmax())
        letter = vtkTextActor()
        letter.SetInput(_SIDES[axis][int(direction[axis] < 0)])
        letter.SetPosition(x, y)
        style = letter.GetTextProperty()
        style.SetFontSize(font)
        style.SetColor(color)
        style.SetJustificationToCentered()
        style.SetVerticalJustificationToCentered()
        style.ShadowOn()  # also over bright bone
        renderer.AddViewProp(letter)


def take_picture(window: vtkRenderWindow) -> np.ndarray:
    """Render and read back RGB uint8 (height, width, 3), first row on top."""
    window.Render()
    reader = vtkWindowToImageFilter()
    reader.SetInput(window)
    reader.SetInputBufferTypeToRGB()
    reader.ReadFrontBufferOff()
    reader.Update()
    image = reader.GetOutput()
    width, height, _ = image.GetDimensions()
    pixels = vtk_to_numpy(image.GetPointData().GetScalars()).reshape(height, width, 3)
    return pixels[::-1].copy()


def save_png(picture: np.ndarray, path: str | Path) -> None:
    """Write an RGB uint8 picture (height, width, 3) to a PNG file. Raises OutputError."""
    height, width, channels = picture.shape
    image = vtkImageData()
    image.SetDimensions(width, height, 1)
    pixels = np.ascontiguousarray(picture[::-1]).reshape(-1, channels)
    image.GetPointData().SetScalars(numpy_to_vtk(pixels, deep=True))
    writer = vtkPNGWriter()
    writer.SetInputData(image)
    with replacing(path) as temporary, vtk_messages():
        writer.SetFileName(str(temporary))
        writer.Write()
        if writer.GetErrorCode():
            raise OSError(vtkErrorCode.GetStringFromErrorCode(writer.GetErrorCode()))
