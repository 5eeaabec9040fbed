"""When each view is drawn: the one under the pointer at once, the others a little later.

All are drawn one after the other by the same processor that also answers the browser.
"""

from __future__ import annotations

import asyncio

from trame_slicer.rca_view import RemoteViewFactory
from trame_slicer.views import AbstractView, NoScheduleRendering, ScheduledRenderStrategy, ViewType

_FOCUSED, _SHARED, _BLURRED = 30.0, 12.0, 5.0  # pictures a second
_DELAY = 0.06  # seconds by which a view waits that is not looked at
_QUALITY = 70  # of the pictures while something moves


def view_factory(server, kind: type[AbstractView], view_type: ViewType) -> RemoteViewFactory:
    """Makes views that draw nothing until they are complete: each would be drawn sixty times."""
    return RemoteViewFactory(
        server,
        lambda **about: kind(scheduled_render_strategy=NoScheduleRendering(), **about),
        view_type,
        target_fps=_FOCUSED,
        blur_fps=_BLURRED,
        interactive_quality=_QUALITY,
    )


class Drawing(ScheduledRenderStrategy):
    """Draws one view for the browser, in place of the strategy that its factory gave it.

    ``first``: at once even while the pointer is elsewhere. While ``on`` is false nothing is drawn.
    """

    def __init__(self, view: AbstractView, first: bool):
        super().__init__()
        self.on = True
        self._first = first
        self._scheduler = view._scheduled_render._scheduler
        self._waiting: asyncio.TimerHandle | None = None
        view.set_scheduled_render(self)

    def schedule_render(self) -> None:
        if not self.on:
            return
        if self._first or self._scheduler.target_fps >= _FOCUSED:
            self._scheduler.schedule_render()
        elif self._waiting is None:
            self._waiting = asyncio.get_running_loop().call_later(_DELAY, self._draw)

    def share(self, shared: bool) -> None:
        """Draw this view more often while it follows what is done in another one."""
        if self._scheduler.target_fps < _FOCUSED:
            self._scheduler.target_fps = _SHARED if shared else _BLURRED

    def _draw(self) -> None:
        self._waiting = None
        self._scheduler.schedule_render()
