"""Who may talk to the server: who has the token, by the server's own name, from its own page.

The token stands in the address that is printed. The first request trades it for a cookie, so that
it stays out of the address bar, the history and the requests for scripts and pictures.
"""

from __future__ import annotations

import hmac
import secrets
from dataclasses import dataclass, field
from urllib.parse import urlencode, urlsplit

from aiohttp import web

from mimsegment_web.address import LOOPBACK, is_loopback

_FORBIDDEN = (
    "403: this page needs its token. Open the whole address that `mimsegment web` has printed, "
    "with everything behind the question mark."
)
_HEADERS = {
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-store",
    # Vue compiles the page's template in the browser, for which it needs eval; whatever is not
    # from this server is refused by the browser itself.
    "Content-Security-Policy": "default-src 'self'; script-src 'self' 'unsafe-inline' "
    "'unsafe-eval'; style-src 'self' 'unsafe-inline'; img-src 'self' data: blob:; "
    "media-src 'self' blob:; font-src 'self' data:; connect-src 'self' blob:; "
    "object-src 'none'; base-uri 'self'; form-action 'self'; frame-ancestors 'none'",
}


@dataclass
class Access:
    """The rule for every request. ``port`` is known once the server listens."""

    host: str = LOOPBACK
    token: str = field(default_factory=lambda: secrets.token_urlsafe(24), repr=False)
    port: int = 0

    @property
    def url(self) -> str:
        """The address to open, token included."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        host = LOOPBACK if host in ("0.0.0.0", "[::]") else host
        return f"http://{host}:{self.port}/?{urlencode({'token': self.token})}"

    def install(self, app: web.Application) -> None:
        """Let nothing through to ``app``, static files and websockets included, unchecked."""

        @web.middleware
        async def check(request: web.Request, handler) -> web.StreamResponse:
            return await self._check(request, handler)

        app.middlewares.append(check)

    async def _check(self, request: web.Request, handler) -> web.StreamResponse:
        if not self._is_own_page(request):
            raise web.HTTPForbidden(text="403: the request comes from another page.")
        if "token" in request.query:
            if not self._matches(request.query["token"]):
                raise web.HTTPForbidden(text=_FORBIDDEN)
            response = web.HTTPFound(request.path if request.path != "/" else "/index.html")
            response.set_cookie(
                self._cookie, self.token, httponly=True, samesite="Strict", path="/"
            )
            response.headers.update(_HEADERS)
            raise response
        if not self._matches(request.cookies.get(self._cookie, "")):
            raise web.HTTPForbidden(text=_FORBIDDEN)
        response = await handler(request)
        if not response.prepared:
            for name, value in _HEADERS.items():
                response.headers.setdefault(name, value)
        return response

    @property
    def _cookie(self) -> str:
        return f"mimsegment_{self.port}"  # cookies do not tell ports apart

    def _matches(self, given: str) -> bool:
        return hmac.compare_digest(given.encode(), self.token.encode())

    def _is_own_page(self, request: web.Request) -> bool:
        """Not from another site's page, and not by another name that leads here."""
        asked = urlsplit(f"//{request.host}").hostname or ""
        if is_loopback(self.host) and not is_loopback(asked):
            return False
        origin = request.headers.get("Origin")
        return origin is None or urlsplit(origin).netloc == request.host
