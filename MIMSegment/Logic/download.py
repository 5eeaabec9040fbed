"""Download of one file whose SHA-256 is known: resumed after a cut, tried on several mirrors."""

from __future__ import annotations

import re
import time
import urllib.request
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from http.client import HTTPResponse
from pathlib import Path
from urllib.parse import urlsplit

from MIMSegment.Logic.diskspace import check_free_space, human_size
from MIMSegment.Logic.errors import Cancelled, PackageError
from MIMSegment.Logic.http_stream import (
    CANCELLED,
    HttpStream,
    RequestFailed,
    default_opener,
    is_allowed,
    shown,
)
from MIMSegment.Logic.partial_file import PartialFile, sha256_of

Progress = Callable[[int, int | None], None]
Cancel = Callable[[], bool]
# A try that brought this much is not counted against a mirror: a line that is cut every few
# minutes still delivers.
_WORTHWHILE_BYTES = 1 << 20
_CONTENT_RANGE = re.compile(r"bytes (?P<start>\d+)-\d+/(?P<total>\d+|\*)")


def download(
    urls: Sequence[str],
    target: Path,
    sha256: str,
    size: int | None = None,
    progress: Progress | None = None,
    cancel: Cancel | None = None,
    timeout: float = 30.0,
    opener: urllib.request.OpenerDirector | None = None,
    attempts: int = 4,
    backoff: float = 1.0,
    allow_http: bool = False,
) -> Path:
    """Download to ``target`` the file with this ``sha256`` and, if known, ``size`` in bytes.

    ``urls`` are mirrors of the same file in order of preference. A cut download leaves
    ``target.part`` and goes on from there, in this call or the next, also from another mirror.
    ``target`` appears complete and checked, or not at all; where it is already there and right,
    nothing is fetched. Only one download of a target may run at a time.

    progress: called with the bytes that are there and the total (None if unknown).
    cancel: asked about 20 times a second; when it answers True, Cancelled is raised at once and
        the part stays.
    timeout: seconds without any data after which a try is given up.
    opener: default is one that honors the system's and the environment's proxies.
    attempts: failed tries for each mirror, with pauses of ``backoff`` × 1, 2, 4... seconds.
    allow_http: accept unencrypted http beyond this computer (the SHA-256 is checked anyway).

    Raises PackageError with each mirror's reason when none delivers, OutputError when the disk is
    full or the folder not writable (the part is then removed), and Cancelled.
    """
    if not urls:
        raise PackageError(f"{target.name} has no address to be downloaded from.")
    for url in urls:
        if not is_allowed(url, allow_http):
            raise PackageError(
                f"{shown(url)} is not a safe address for a download, only https addresses are; "
                f"get {target.name} yourself and import it from the file."
            )
    cancel = cancel or (lambda: False)
    if target.is_file() and sha256_of(target, cancel) == sha256:
        return target
    part = PartialFile(target, sha256, size)
    if size is not None:
        check_free_space(target.parent, size - part.size(), f"The download of {target.name}")
    job = _Job(
        part=part,
        sha256=sha256,
        size=size,
        progress=progress or (lambda done, total: None),
        cancel=cancel,
        timeout=timeout,
        opener=opener or default_opener(allow_http),
        attempts=attempts,
        backoff=backoff,
    )
    reasons = []
    for url in urls:
        try:
            job.fetch_from(url)
            return part.finish()
        except RequestFailed as failure:
            reasons.append(f"{shown(url)}: {failure}")
    raise PackageError(_all_failed(target.name, urls, reasons, part.size()))


@dataclass(frozen=True)
class _Job:
    """The fixed settings of one download."""

    part: PartialFile
    sha256: str
    size: int | None
    progress: Progress
    cancel: Cancel
    timeout: float
    opener: urllib.request.OpenerDirector
    attempts: int
    backoff: float

    def fetch_from(self, url: str) -> None:
        """Complete the part and check it. Raises RequestFailed when ``url`` is given up."""
        failures = 0
        while True:
            before = self.part.size()
            try:
                in_one_piece = self._fetch_rest(url)
                return self._check(in_one_piece)
            except RequestFailed as failure:
                worthwhile = self.part.size() - before >= _WORTHWHILE_BYTES
                failures = 1 if worthwhile else failures + 1
                if not failure.retry or failures >= self.attempts:
                    raise
                self._pause(max(failure.wait, self.backoff * 2 ** (failures - 1)))

    def _fetch_rest(self, url: str) -> bool:
        """Append what is missing; True if the whole file came in this one response."""
        start = self.part.size()
        if start == self.size:
            return False
        headers = {"User-Agent": "MIMSegment", "Accept-Encoding": "identity"}
        if start:
            headers["Range"] = f"bytes={start}-"
            if validator := self.part.validator(url):
                headers["If-Range"] = validator
        request = urllib.request.Request(url, headers=headers)
        with HttpStream(self.opener, request, self.timeout, self.cancel) as stream:
            try:
                response = stream.response()
            except RequestFailed as failure:
                if failure.status == 416:
                    raise self._start_over("it has no such part of the file") from failure
                raise
            if start and response.status == 206:
                end = self._accept_rest(url, response, start)
            else:
                end = self._accept_whole(url, response)
                start = 0
            self._receive(stream, start, end)
        return start == 0

    def _accept_rest(self, url: str, response: HTTPResponse, start: int) -> int | None:
        """Check the head of a partial response; the size of the whole file, if known."""
        match = _CONTENT_RANGE.fullmatch(response.headers.get("Content-Range", ""))
        if match is None or int(match["start"]) != start:
            raise self._start_over("it sent another part of the file than was asked for")
        known, now = self.part.validator(url), _validator(response)
        if known and now and known != now:
            raise self._start_over("the file has changed on the server")
        total = None if match["total"] == "*" else int(match["total"])
        return self._agreed_size(total)

    def _accept_whole(self, url: str, response: HTTPResponse) -> int | None:
        """Check the head of a whole response and begin the part; the file's size, if known."""
        if response.headers.get_content_type() == "text/html":
            raise RequestFailed("it sent a web page, not the file (a sign-in page?)", retry=False)
        length = response.headers.get("Content-Length", "")
        size = self._agreed_size(int(length) if length.isdecimal() else None)
        self.part.begin(url, _validator(response))
        return size

    def _agreed_size(self, offered: int | None) -> int | None:
        if None not in (offered, self.size) and offered != self.size:
            raise RequestFailed(
                f"its file has {offered} bytes, the right one has {self.size}", retry=False
            )
        return offered if self.size is None else self.size

    def _receive(self, stream: HttpStream, done: int, end: int | None) -> None:
        """Append the body to the part, which has ``done`` bytes and shall have ``end``."""
        self.progress(done, end)
        too_long = False
        with self.part.appending() as append:
            for chunk in stream.chunks():
                too_long = end is not None and done + len(chunk) > end
                if too_long:
                    break
                append(chunk)
                done += len(chunk)
                self.progress(done, end)
                if done == end:
                    break
        if too_long:
            self.part.discard()
            raise RequestFailed(f"it sent more than the file's {end} bytes", retry=False)
        if end is not None and done < end:
            raise RequestFailed(f"the connection was cut at {human_size(done)}", retry=True)

    def _check(self, in_one_piece: bool) -> None:
        if sha256_of(self.part.path, self.cancel) != self.sha256:
            self.part.discard()
            # Pieces may come from different files; one piece from zero shows what is sent here.
            raise RequestFailed(
                "the file it sent is damaged (SHA-256 differs)", retry=not in_one_piece
            )

    def _start_over(self, reason: str) -> RequestFailed:
        self.part.discard()
        return RequestFailed(reason, retry=True)

    def _pause(self, seconds: float) -> None:
        end = time.monotonic() + seconds
        while (left := end - time.monotonic()) > 0:
            if self.cancel():
                raise Cancelled(CANCELLED)
            time.sleep(min(left, 0.05))


def _validator(response: HTTPResponse) -> str | None:
    """What identifies this state of the file: a strong ETag, else the date (RFC 9110, 13.1.5)."""
    etag = response.headers.get("ETag", "")
    return etag if etag.startswith('"') else response.headers.get("Last-Modified")


def _all_failed(name: str, urls: Sequence[str], reasons: list[str], kept: int) -> str:
    hosts = ", ".join(dict.fromkeys(urlsplit(url).hostname or "" for url in urls))
    return (
        f"{name} could not be downloaded. {'; '.join(reasons)}. "
        + (f"The {human_size(kept)} that arrived are kept for the next try. " if kept else "")
        + "Behind a proxy or a hospital's firewall, set HTTPS_PROXY or ask for access to "
        f"{hosts}; or get the file on another computer and import it from the file."
    )
