"""The page: its markup as fragments of a Vue template, its style and its script."""

from __future__ import annotations

from pathlib import Path

import trame_vuetify.module.v3

_HERE = Path(__file__).parent
_FRAGMENTS = ("top", "left", "center", "right", "help")
_ICONS = trame_vuetify.module.v3.serve_path  # Material Design Icons, served from here

MODULE = {
    "serve": {"mim_page": str(_HERE / "static"), "mim_icons": _ICONS},
    "scripts": ["mim_page/page.js"],
    "styles": ["mim_icons/css/mdi.css", "mim_page/page.css"],
}
"""What trame serves and loads beside its own client."""


def markup() -> str:
    """The whole page as a Vue template on the state of `mimsegment_web.app`."""
    parts = [(_HERE / f"{name}.html").read_text(encoding="utf-8") for name in _FRAGMENTS]
    return f'<div class="page" data-test="page">{"".join(parts)}</div>'


def without_server() -> str:
    """What trame's client shows instead as soon as the connection is lost."""
    return (_HERE / "gone.html").read_text(encoding="utf-8")
