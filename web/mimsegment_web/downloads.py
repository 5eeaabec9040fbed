"""Written results on their way to the browser: only those, each by a number and not by a path."""

from __future__ import annotations

import itertools
from pathlib import Path
from urllib.parse import quote

from aiohttp import web


class Downloads:
    """Offers files under addresses that hold nothing of their place on the disk."""

    def __init__(self):
        self._numbers = itertools.count(1)
        self._paths: dict[str, Path] = {}

    def install(self, app: web.Application) -> None:
        """Add the route."""
        app.router.add_get("/download/{number}/{name}", self._send)

    def offer(self, path: Path) -> str:
        """The address of a file, relative to the page."""
        number = str(next(self._numbers))
        self._paths[number] = path
        return f"download/{number}/{quote(path.name)}"

    async def _send(self, request: web.Request) -> web.StreamResponse:
        path = self._paths.get(request.match_info["number"])
        if path is None or not path.is_file():
            raise web.HTTPNotFound(text="404: no such result.")
        name = quote(path.name)
        headers = {"Content-Disposition": f"attachment; filename*=UTF-8''{name}"}
        return web.FileResponse(path, headers=headers)
