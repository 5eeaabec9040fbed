"""What the left mouse button does in a slice: crosshair, window, paint or erase.

The other buttons and the wheel stay with Slicer's own interaction: wheel scrolls, right button
zooms, middle button pans.
"""

from __future__ import annotations

from typing import Protocol

import numpy as np

from MIMSegment.Logic.scene_core import LPS_TO_RAS
from mimsegment_web.views import Views

_FIRST = 100.0  # priority of our observers, before Slicer's


class Tool(Protocol):
    """One use of the left button. Points are LPS in mm, ``normal`` is that of the slice."""

    def press(self, view: str, point: np.ndarray, normal: np.ndarray, xy: tuple) -> None: ...

    def drag(self, view: str, point: np.ndarray, normal: np.ndarray, xy: tuple) -> None: ...

    def release(self, view: str) -> None: ...


class Pointer:
    """Leads the left button's events of all slices to the current `tool`."""

    def __init__(self, views: Views, tool: Tool):
        self.tool = tool
        self._views = views
        self._pressed = ""
        for name, view in views.slices.items():
            for event, act in (
                ("LeftButtonPressEvent", self._press),
                ("MouseMoveEvent", self._move),
                ("LeftButtonReleaseEvent", self._release),
            ):
                self._observe(view.interactor(), event, act, name)

    def _observe(self, interactor, event: str, act, name: str) -> None:
        def call(*_) -> None:
            if act(name):
                interactor.GetCommand(tag).SetAbortFlag(1)  # Slicer must not act on it as well

        tag = interactor.AddObserver(event, call, _FIRST)

    def _press(self, name: str) -> bool:
        if self._views.image is None:
            return False
        self._pressed = name
        self.tool.press(name, *self._where(name))
        return True

    def _move(self, name: str) -> bool:
        if self._pressed != name:
            return False
        self.tool.drag(name, *self._where(name))
        return True

    def _release(self, name: str) -> bool:
        if self._pressed != name:
            return False
        self._pressed = ""
        self.tool.release(name)
        return True

    def _where(self, name: str) -> tuple[np.ndarray, np.ndarray, tuple]:
        view = self._views.slices[name]
        xy = view.interactor().GetEventPosition()
        node = view.get_view_node()
        ras = node.GetXYToRAS().MultiplyPoint([*xy[:2], 0.0, 1.0])[:3]
        matrix = node.GetSliceToRAS()
        normal = [matrix.GetElement(i, 2) for i in range(3)]
        turn = LPS_TO_RAS[:3, :3]
        return turn @ np.array(ras), turn @ np.array(normal), xy


class CrosshairTool:
    """Goes where one points."""

    def __init__(self, views: Views):
        self._views = views

    def press(self, view, point, normal, xy) -> None:
        self._views.share_frames(True)
        self._views.go_to(point)

    def drag(self, view, point, normal, xy) -> None:
        self._views.go_to(point)

    def release(self, view) -> None:
        self._views.share_frames(False)


class WindowTool:
    """Dragging right widens the gray window, dragging up raises its level."""

    def __init__(self, window):
        self._window = window
        self._from = None

    def press(self, view, point, normal, xy) -> None:
        self._from = (xy, self._window.width, self._window.level)

    def drag(self, view, point, normal, xy) -> None:
        (x, y), width, level = self._from
        scale = max(width, 1e-6) / 200  # pixels for a change by the width itself
        self._window.set(max(width + (xy[0] - x) * scale, width / 100), level + (xy[1] - y) * scale)

    def release(self, view) -> None:
        pass
