"""Files from the browser: streamed to a private folder, within a limit, under safe names.

POST upload/begin            {"files": n, "bytes": n}  →  {"id": "..."}
PUT  upload/ID?name=a/b.dcm  the file                  →  {}
POST upload/ID/done                                    →  {}
DELETE upload/ID
"""

from __future__ import annotations

import re
import secrets
import shutil
import tempfile
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from aiohttp import web

from MIMSegment.Logic.archive import portable_path
from MIMSegment.Logic.diskspace import check_free_space, human_size
from MIMSegment.Logic.errors import InputError, MIMSegmentError

MOST_FILES = 20_000
_RESERVE = 500_000_000  # bytes of the disk that stay free
_CHUNK = 1 << 20
_INSIDE = "images"  # a folder's name is evidence of what is in it; this one says nothing
_ODD = re.compile(r"[^\w .()+=,@-]")


@dataclass
class _Upload:
    folder: Path
    expected: int
    received: int = 0
    files: int = 0


class Uploads:
    """Takes uploads and gives each finished one's folder and title to ``opened``, a coroutine.

    ``opened`` raises MIMSegmentError when it cannot be opened; else what was opened before is
    removed. ``limit`` is in bytes for one study.
    """

    def __init__(self, limit: int, opened: Callable[[Path, str], Awaitable[None]]):
        self._limit, self._opened = limit, opened
        self._home = tempfile.TemporaryDirectory(prefix="mimsegment-upload-")
        self._uploads: dict[str, _Upload] = {}
        self._in_use: _Upload | None = None  # the study that is open

    def install(self, app: web.Application) -> None:
        """Add the routes."""
        app.router.add_post("/upload/begin", self._answer(self._begin))
        app.router.add_put("/upload/{id}", self._answer(self._file))
        app.router.add_post("/upload/{id}/done", self._answer(self._done))
        app.router.add_delete("/upload/{id}", self._answer(self._drop))

    def close(self) -> None:
        """Remove everything that was uploaded."""
        self._home.cleanup()

    def plain(self, text: str) -> str:
        """``text`` with the files that were sent under the names that the user knows."""
        return re.sub(rf"{re.escape(self._home.name)}/[^/]+/{_INSIDE}/", "", text)

    async def _begin(self, request: web.Request) -> dict:
        asked = await request.json()
        files, size = int(asked["files"]), int(asked["bytes"])
        if size > self._limit:
            raise InputError(
                f"The study has {human_size(size)}; at most {human_size(self._limit)} can be sent "
                "to this server. Start it with the folder's path instead, or with a larger "
                "--upload-limit."
            )
        if files > MOST_FILES:
            raise InputError(
                f"{files} files were chosen; at most {MOST_FILES} are taken at once. "
                "Choose the folder of one study."
            )
        check_free_space(Path(self._home.name), size + _RESERVE, "The study")
        identifier = secrets.token_hex(8)
        folder = Path(tempfile.mkdtemp(dir=self._home.name)) / _INSIDE
        folder.mkdir()
        self._uploads[identifier] = _Upload(folder, size)
        return {"id": identifier}

    async def _file(self, request: web.Request) -> dict:
        upload = self._find(request)
        path = upload.folder / safe_name(request.query.get("name", ""))
        upload.files += 1
        if upload.files > MOST_FILES:
            raise InputError("More files were sent than announced.")
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.exists():
            raise InputError(f"Two files were sent as {path.name}; choose the folder of one study.")
        with open(path, "xb") as file:
            async for chunk in request.content.iter_chunked(_CHUNK):
                upload.received += len(chunk)
                if upload.received > min(self._limit, upload.expected):
                    raise web.HTTPRequestEntityTooLarge(self._limit, upload.received)
                file.write(chunk)
        return {}

    async def _done(self, request: web.Request) -> dict:
        upload = self._find(request)
        await self._opened(*_study_of(upload.folder))
        del self._uploads[request.match_info["id"]]
        self._remove(self._in_use)
        self._in_use = upload
        return {}

    async def _drop(self, request: web.Request) -> dict:
        upload = self._find(request)
        del self._uploads[request.match_info["id"]]
        self._remove(upload)
        return {}

    def _remove(self, upload: _Upload | None) -> None:
        if upload is not None:
            shutil.rmtree(upload.folder.parent, ignore_errors=True)

    def _find(self, request: web.Request) -> _Upload:
        upload = self._uploads.get(request.match_info["id"])
        if upload is None:
            raise web.HTTPNotFound(text="404: no such upload.")
        return upload

    def _answer(self, handle):
        async def answer(request: web.Request) -> web.Response:
            try:
                return web.json_response(await handle(request))
            except MIMSegmentError as error:
                return web.json_response({"error": self.plain(str(error))}, status=422)
            except (KeyError, ValueError, TypeError):
                raise web.HTTPBadRequest(text="400: not understood.") from None

        return answer


def safe_name(name: str) -> PurePosixPath:
    """``name`` as a relative path that stays inside its folder, with odd characters replaced.

    Raises InputError for one that leads out.
    """
    parts = [_ODD.sub("_", part).rstrip(". ") or part for part in name.split("/")]
    try:
        return portable_path("/".join(parts))
    except ValueError as error:
        raise InputError(f"The file name {name!r} cannot be used: it {error}.") from None


def _study_of(folder: Path) -> tuple[Path, str]:
    """What was sent, and its title in names that the user knows."""
    inside = sorted(folder.iterdir())
    if not inside:
        raise InputError("No file was sent; choose a folder or files.")
    if len(inside) == 1:
        return inside[0], inside[0].name
    return folder, f"{inside[0].name} and {len(inside) - 1} more"
