"""An HTTP server on 127.0.0.1 that misbehaves on demand, and a proxy in front of it."""

from __future__ import annotations

import base64
import contextlib
import re
import socket
import ssl
import threading
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


@dataclass(frozen=True)
class Answer:
    """How one request is answered; the defaults are those of a good server.

    cut_after, stall_after: bytes of the body after which the connection is closed, or nothing
    more is sent. body: other content than the server's. length: whether its size is announced.
    """

    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes | None = None
    etag: str | None = '"v1"'
    ranges: bool = True
    length: bool = True
    content_range: str | None = None
    cut_after: int | None = None
    stall_after: int | None = None


@dataclass
class Request:
    """What was asked for and how many bytes of a body the server set out to send."""

    path: str
    range: str | None
    if_range: str | None
    sent: int = 0


class LoopbackServer:
    """Serves ``content`` at every path; ``script`` gives the answers in turn, then good ones.

    A careless server takes no notice of If-Range.
    """

    def __init__(
        self, content: bytes, is_careless: bool = False, tls: ssl.SSLContext | None = None
    ) -> None:
        self.content = content
        self.scheme = "https" if tls else "http"
        self.is_careless = is_careless
        self.script: dict[str, list[Answer]] = {}
        self.requests: list[Request] = []
        self.released = threading.Event()
        self._lock = threading.Lock()
        server = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                server._answer(self)

            def log_message(self, *arguments: object) -> None:
                """Nothing goes to the terminal."""

        self._http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._http.daemon_threads = True
        if tls:
            self._http.socket = tls.wrap_socket(self._http.socket, server_side=True)

    def url(self, path: str = "/package.zip") -> str:
        return f"{self.scheme}://127.0.0.1:{self._http.server_port}{path}"

    @contextlib.contextmanager
    def running(self) -> Iterator[LoopbackServer]:
        thread = threading.Thread(target=self._http.serve_forever, args=(0.02,), daemon=True)
        thread.start()
        try:
            yield self
        finally:
            self.released.set()
            self._http.shutdown()
            self._http.server_close()

    def _answer(self, handler: BaseHTTPRequestHandler) -> None:
        path = handler.path.partition("?")[0]
        with self._lock:
            answers = self.script.get(path)
            answer = answers.pop(0) if answers else Answer()
            request = Request(path, handler.headers.get("Range"), handler.headers.get("If-Range"))
            self.requests.append(request)
        body = self.content if answer.body is None else answer.body
        status, start = self._range(answer, request, len(body))
        with contextlib.suppress(OSError):
            self._send(handler, answer, request, status, body, start)

    def _range(self, answer: Answer, request: Request, length: int) -> tuple[int, int]:
        match = re.fullmatch(r"bytes=(\d+)-", request.range or "")
        is_current = self.is_careless or request.if_range in (None, answer.etag)
        if answer.status != 200 or not match or not answer.ranges or not is_current:
            return answer.status, 0
        start = int(match[1])
        return (206, start) if start < length else (416, 0)

    def _send(
        self,
        handler: BaseHTTPRequestHandler,
        answer: Answer,
        request: Request,
        status: int,
        body: bytes,
        start: int,
    ) -> None:
        body_sent = body[start:] if status in (200, 206) else answer.body or b""
        handler.send_response(status)
        if answer.etag:
            handler.send_header("ETag", answer.etag)
        if answer.length:
            handler.send_header("Content-Length", str(len(body_sent)))
        if status == 206:
            whole = f"bytes {start}-{len(body) - 1}/{len(body)}"
            handler.send_header("Content-Range", answer.content_range or whole)
        for name, value in answer.headers.items():
            handler.send_header(name, value)
        handler.end_headers()
        ends = [n for n in (answer.cut_after, answer.stall_after) if n is not None]
        body_sent = body_sent[: min(ends, default=len(body_sent))]
        request.sent = len(body_sent)
        handler.wfile.write(body_sent)
        handler.wfile.flush()
        if answer.stall_after is not None:
            self.released.wait(10)


@contextlib.contextmanager
def running_proxy(credentials: str = "") -> Iterator[tuple[str, list[str]]]:
    """A proxy on 127.0.0.1: its address, and the list of addresses that it was asked for.

    With ``credentials`` ("name:password") it opens a tunnel to those only who bring them.
    """
    asked: list[str] = []
    direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    expected = f"Basic {base64.b64encode(credentials.encode()).decode()}" if credentials else None

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.path)
            with direct.open(self.path, timeout=5) as response:
                body = response.read()
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def do_CONNECT(self) -> None:
            asked.append(self.path)
            if self.headers["Proxy-Authorization"] != expected:
                self.send_error(407)
                return
            host, _, port = self.path.partition(":")
            with socket.create_connection((host, int(port)), timeout=5) as server:
                self.send_response(200)
                self.end_headers()
                back = threading.Thread(target=_pass_on, args=(server, self.connection))
                back.start()
                _pass_on(self.connection, server)
                back.join()

        def log_message(self, *arguments: object) -> None:
            """Nothing goes to the terminal."""

    http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=http.serve_forever, args=(0.02,), daemon=True).start()
    try:
        yield f"http://127.0.0.1:{http.server_port}", asked
    finally:
        http.shutdown()
        http.server_close()


def _pass_on(source: socket.socket, target: socket.socket) -> None:
    """Everything that arrives at ``source``, until one of the two closes."""
    with contextlib.suppress(OSError):
        while data := source.recv(1 << 16):
            target.sendall(data)
        target.shutdown(socket.SHUT_WR)
