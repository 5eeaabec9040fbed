"""The models as the Slicer panel lists and describes them. ``_`` translates."""

from __future__ import annotations

import html
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from MIMSegment.Logic.workflow_state import PackageCard

Translate = Callable[[str], str]


@dataclass(frozen=True)
class Line:
    """An entry of a list: ``key`` for the program, the rest for the user."""

    key: str
    text: str
    tooltip: str = ""


def card_lines(cards: Sequence[PackageCard], _: Translate = str) -> tuple[Line, ...]:
    """A line for each model: title, then what it needs."""
    return tuple(Line(card.key, _card_text(card, _), card.entry.description) for card in cards)


def details_html(card: PackageCard | None, _: Translate = str) -> str:
    """License, training data, structures and times of a model, as rich text."""
    if card is None:
        return _("Choose a model; its license and what it was trained on are shown here.")
    entry = card.entry
    lines = [html.escape(entry.description)] if entry.description else []
    if entry.phantom and "phantom" not in entry.description:
        lines.append(f"<b>{html.escape(_('Trained on digital phantoms: never for patients.'))}</b>")
    lines.append(_line(_("License of the model:"), _license(card)))
    lines.append(_line(_("Trained on:"), html.escape(entry.training_data)))
    lines.append(_line(_("Structures:"), html.escape(", ".join(entry.structures))))
    times = [(entry.cpu_seconds, entry.cpu_hardware), (entry.gpu_seconds, entry.gpu_hardware)]
    known = [f"{seconds:.0f} s ({hardware})" for seconds, hardware in times if seconds]
    if known:
        lines.append(_line(_("Time for a case:"), html.escape(", ".join(known))))
    if card.stored:
        lines.append(_line(_("Stored in:"), html.escape(str(card.path))))
    return "<br>".join(lines)


def _line(caption: str, text: str) -> str:
    return f"<b>{html.escape(caption)}</b> {text}"


def _license(card: PackageCard) -> str:
    name, address = html.escape(card.entry.license), html.escape(card.entry.license_url, quote=True)
    return f'<a href="{address}">{name}</a>' if address.startswith("http") else name


def _card_text(card: PackageCard, _: Translate) -> str:
    entry = card.entry
    names = ", ".join(image.name for image in entry.inputs)
    needs = names if names == entry.modality else f"{entry.modality}: {names}"
    where = _("ready") if card.path else _("download {size}").format(size=_size(entry.size_bytes))
    return f"{entry.title}\n{needs} · {where}"


def _size(size: float) -> str:
    return f"{size / 1e6:.0f} MB" if size >= 1e6 else f"{size / 1e3:.0f} kB"
