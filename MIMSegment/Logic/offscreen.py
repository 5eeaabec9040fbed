"""Drawing without a screen on Linux: VTK through EGL instead of X11."""

from __future__ import annotations

import ctypes
import os
import sys

from MIMSegment.Logic.errors import DeviceError

_CHOICE, _EGL, _LIBRARY = "VTK_DEFAULT_OPENGL_WINDOW", "vtkEGLRenderWindow", "libEGL.so.1"


def draw_without_screen() -> None:
    """Let VTK draw where there is no display server, unless the environment says otherwise.

    Call it before VTK opens a window. Raises DeviceError where Mesa's EGL is missing: VTK would
    end the whole process without a word.
    """
    if sys.platform != "linux" or os.environ.setdefault(_CHOICE, _EGL) != _EGL:
        return
    try:
        ctypes.CDLL(_LIBRARY)
    except OSError:
        raise DeviceError(
            f"Drawing needs {_LIBRARY}, which is not installed: apt-get install libegl1 "
            "libgl1-mesa-dri (on Fedora: dnf install mesa-libEGL mesa-dri-drivers)."
        ) from None
