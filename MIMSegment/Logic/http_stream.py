"""One HTTP GET that can be given up at any time, and its failures in plain words."""

from __future__ import annotations

import http.client
import ipaddress
import queue
import socket
import ssl
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from urllib.parse import urlsplit

from MIMSegment.Logic.errors import Cancelled

CANCELLED = "The download was canceled; the next one goes on from there."
_CHUNK = 1 << 17
_POLL_SECONDS = 0.05
_LONGEST_WAIT_ASKED = 30.0
_WORTH_ANOTHER_TRY = {408, 425, 429, 500, 502, 503, 504}


class RequestFailed(Exception):
    """The reason in plain words; ``retry``: the same address may work on another try.

    ``status`` is the HTTP status if there was one, ``wait`` the pause in seconds it asked for.
    """

    def __init__(
        self, reason: str, retry: bool, status: int | None = None, wait: float = 0.0
    ) -> None:
        super().__init__(reason)
        self.retry, self.status, self.wait = retry, status, wait


def is_allowed(url: str, allow_http: bool = False) -> bool:
    """Whether ``url`` is https, or http to this computer (or ``allow_http``), without password."""
    try:
        parts = urlsplit(url)
        host, _ = parts.hostname, parts.port
    except ValueError:
        return False
    if not host or "@" in parts.netloc:
        return False
    return parts.scheme == "https" or (
        parts.scheme == "http" and (allow_http or _is_loopback(host))
    )


def shown(url: str) -> str:
    """``url`` for messages: without user name, password and query, which may hold a secret."""
    scheme, _, rest = url.partition("://")
    host, slash, path = rest.partition("/")
    return f"{scheme}://{host.rpartition('@')[2]}{slash}{path.partition('?')[0]}"


def default_opener(allow_http: bool = False) -> urllib.request.OpenerDirector:
    """An opener that uses the proxies of the environment or system and follows safe redirects."""
    return urllib.request.build_opener(_SafeRedirects(allow_http))


class HttpStream:
    """A response read by a thread, so that no wait (name, connection, data) delays a cancel.

    An abandoned thread ends at its next data or at the socket's ``timeout``. Use as a context
    manager. Raises Cancelled, and RequestFailed, also after ``timeout`` seconds without data.
    """

    def __init__(
        self,
        opener: urllib.request.OpenerDirector,
        request: urllib.request.Request,
        timeout: float,
        cancel: Callable[[], bool],
    ) -> None:
        self._opener, self._request, self._timeout = opener, request, timeout
        self._cancel = cancel
        self._items: queue.Queue = queue.Queue(maxsize=8)
        self._closed = threading.Event()
        threading.Thread(target=self._read, name="download", daemon=True).start()

    def __enter__(self) -> HttpStream:
        return self

    def __exit__(self, *exc: object) -> None:
        self._closed.set()

    def response(self) -> http.client.HTTPResponse:
        """Status and headers; call once, first."""
        return self._next()

    def chunks(self) -> Iterator[bytes]:
        """The body as it arrives, until the server ends it, in full or not."""
        while chunk := self._next():
            yield chunk

    def _next(self):
        # Any data restarts the clock, however little: virus-scanning proxies trickle while they
        # scan, so a minimum rate would fail exactly there.
        deadline = time.monotonic() + self._timeout
        while True:
            if self._cancel():
                raise Cancelled(CANCELLED)
            try:
                item = self._items.get(timeout=_POLL_SECONDS)
            except queue.Empty:
                if time.monotonic() > deadline:
                    raise self._failure(TimeoutError()) from None
                continue
            if isinstance(item, Exception):
                raise self._failure(item) from item
            return item

    def _read(self) -> None:
        try:
            with self._opener.open(self._request, timeout=self._timeout) as response:
                self._hand_over(response)
                while not self._closed.is_set() and (chunk := response.read1(_CHUNK)):
                    self._hand_over(chunk)
            self._hand_over(b"")
        except urllib.error.HTTPError as error:
            error.close()
            self._hand_over(error)
        except Exception as error:  # raised again in the caller's thread
            self._hand_over(error)

    def _failure(self, error: Exception) -> RequestFailed:
        if isinstance(error, urllib.error.URLError) and isinstance(error.reason, Exception):
            error = error.reason
        if isinstance(error, TimeoutError):
            return RequestFailed(f"nothing arrived for {self._timeout:g} s", retry=True)
        return _failure(error)

    def _hand_over(self, item: object) -> None:
        while not self._closed.is_set():
            try:
                return self._items.put(item, timeout=_POLL_SECONDS)
            except queue.Full:
                continue


class _SafeRedirects(urllib.request.HTTPRedirectHandler):
    """Redirects stay within the addresses that are allowed, and never fall from https to http."""

    def __init__(self, allow_http: bool) -> None:
        self._allow_http = allow_http

    def redirect_request(self, req, fp, code, msg, headers, newurl):
        is_downgrade = req.type == "https" and not newurl.startswith("https:")
        if is_downgrade or not is_allowed(newurl, self._allow_http):
            fp.close()
            raise RequestFailed(f"it redirects to {shown(newurl)}, which is not safe", retry=False)
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def _failure(error: Exception) -> RequestFailed:
    if isinstance(error, RequestFailed):
        return error
    if isinstance(error, urllib.error.HTTPError):
        return _status_failure(error)
    if isinstance(error, ssl.SSLCertVerificationError):
        return RequestFailed(
            f"its certificate was not accepted ({error.verify_message}); a network that inspects "
            "traffic has its own certificate, which this computer must be told to trust",
            retry=False,
        )
    if isinstance(error, socket.gaierror):
        return RequestFailed("the server's name is not known here (no network?)", retry=False)
    if isinstance(error, ConnectionRefusedError):
        return RequestFailed("the connection was refused", retry=True)
    if isinstance(error, ConnectionError | http.client.IncompleteRead):
        return RequestFailed("the connection was cut", retry=True)
    # http.client reports a proxy that refuses the CONNECT in a plain OSError.
    is_refusal = "Tunnel connection failed" in str(error)
    if is_refusal and " 407 " in str(error):
        return _proxy_login()
    is_retried = isinstance(error, OSError | http.client.HTTPException) and not is_refusal
    return RequestFailed(str(error) or type(error).__name__, retry=is_retried)


def _status_failure(error: urllib.error.HTTPError) -> RequestFailed:
    if error.code == 407:
        return _proxy_login()
    asked = error.headers.get("Retry-After", "") if error.headers else ""
    wait = min(float(asked), _LONGEST_WAIT_ASKED) if asked.isdecimal() else 0.0
    reason = f"HTTP {error.code} {error.reason}".strip()
    return RequestFailed(reason, error.code in _WORTH_ANOTHER_TRY, error.code, wait)


def _proxy_login() -> RequestFailed:
    return RequestFailed(
        "the proxy wants a user name and password (HTTP 407), as in "
        "HTTPS_PROXY=http://NAME:PASSWORD@PROXY:PORT",
        False,
        407,
    )


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
