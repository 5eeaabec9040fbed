"""Written results on their way to the browser: only those, each by a number and not by a path."""

from __future__ import annotations

import itertools
from pathlib import Path
from urllib.parse import quote

from aiohttp import web

# A report that is looked at in the browser runs nothing and loads nothing.
_POLICY = "sandbox; default-src 'none'; style-src 'unsafe-inline'; img-src data:"


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
        shown = "show" in request.query and path.suffix == ".html"
        place = "inline" if shown else "attachment"
        name = quote(path.name)
        headers = {
            "Content-Disposition": f"{place}; filename*=UTF-8''{name}",
            "Content-Security-Policy": _POLICY,
        }
        return web.FileResponse(path, headers=headers)
