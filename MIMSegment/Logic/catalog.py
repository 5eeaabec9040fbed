"""The packages that one can get: reading the catalog, searching and filtering it. No network."""

from __future__ import annotations

import json
import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from MIMSegment.Logic.catalog_rules import MODALITIES, check_catalog
from MIMSegment.Logic.errors import PackageError

BUNDLED_CATALOG = Path(__file__).parents[1] / "Resources" / "Models" / "catalog.json"
FACETS = ("modality", "region", "license")


@dataclass(frozen=True)
class CatalogInput:
    """One image that the model needs: name of the sequence and DICOM modality (0008,0060)."""

    name: str
    modality: str


@dataclass(frozen=True)
class CatalogEntry:
    """One version of one package, as offered for download or, with a ``folder``, ready to use.

    ``license`` is an SPDX identifier, or the license's name where it has none.
    ``cpu_seconds`` and ``gpu_seconds`` are for a typical case on the named hardware, None where
    nobody has measured. ``size_bytes`` and ``sha256`` are those of the zip file, which is the same
    at each of ``urls``. ``phantom``: trained on digital phantoms, not for patients.
    """

    id: str
    version: str
    title: str
    description: str
    region: str
    inputs: tuple[CatalogInput, ...]
    structures: tuple[str, ...]
    license: str
    license_url: str
    license_acknowledgment: bool
    training_data: str
    size_bytes: int
    phantom: bool
    urls: tuple[str, ...]
    sha256: str
    cpu_seconds: float | None = None
    cpu_hardware: str | None = None
    gpu_seconds: float | None = None
    gpu_hardware: str | None = None
    deprecated: bool = False
    folder: Path | None = None

    @property
    def modalities(self) -> tuple[str, ...]:
        """The inputs' modalities, each once, in the order of the inputs."""
        return tuple(dict.fromkeys(i.modality for i in self.inputs))

    @property
    def modality(self) -> str:
        """The modalities for display: ``CT``, ``MR``, ``PT/CT``."""
        return "/".join(self.modalities)

    def facet(self, name: str) -> tuple[str, ...]:
        """The values under which the filter ``name`` (one of FACETS) finds this entry."""
        return self.modalities if name == "modality" else (getattr(self, name),)


@dataclass(frozen=True)
class Catalog:
    """Entries in the order of their files, and a sentence for each file that was left out."""

    entries: tuple[CatalogEntry, ...] = ()
    warnings: tuple[str, ...] = ()

    def search(
        self,
        text: str = "",
        modality: str | None = None,
        region: str | None = None,
        license: str | None = None,
        include_deprecated: bool = False,
    ) -> list[CatalogEntry]:
        """The entries that hold every word of ``text`` and pass the filters, best match first.

        Case, accents, plural s and British spelling do not matter. A word counts most in the
        title, then in the structures, then in id, region and inputs, then in the description.
        Equal matches go by title, newest version first, phantom packages last.
        """
        filters = {"modality": modality, "region": region, "license": license}
        found = []
        for entry in self.entries:
            if (entry.deprecated and not include_deprecated) or not _passes(entry, filters):
                continue
            score = _score(entry, text)
            if score is not None:
                found.append((score, entry))
        found.sort(key=lambda pair: version_key(pair[1].version), reverse=True)
        found.sort(key=lambda pair: (-pair[0], pair[1].phantom, _fold(pair[1].title), pair[1].id))
        return [entry for _, entry in found]

    def facets(self, include_deprecated: bool = False) -> dict[str, dict[str, int]]:
        """For each filter (FACETS) its values, sorted, with the number of entries that have it."""
        entries = [e for e in self.entries if include_deprecated or not e.deprecated]
        counts = {name: Counter(v for e in entries for v in e.facet(name)) for name in FACETS}
        return {
            name: dict(sorted(c.items(), key=lambda item: _fold(item[0])))
            for name, c in counts.items()
        }

    def get(self, id: str, version: str | None = None) -> CatalogEntry:
        """The entry with this id; the newest that is not deprecated unless a version is asked for.

        Raises PackageError when there is none.
        """
        entries = [e for e in self.entries if e.id == id and version in (None, e.version)]
        if not entries:
            wanted = id if version is None else f"{id} {version}"
            raise PackageError(f"The catalog has no package {wanted!r}; search it by a word.")
        return max(entries, key=lambda e: (not e.deprecated, version_key(e.version)))


def load_catalog(path: str | Path = BUNDLED_CATALOG) -> Catalog:
    """Read and check one catalog file.

    Raises PackageError naming the file, the entry and the field that is wrong.
    """
    try:
        data = json.loads(Path(path).read_text(encoding="utf-8"), parse_constant=_no_constant)
    except OSError as error:
        raise PackageError(f"The catalog {path} cannot be read: {error.strerror}.") from error
    except (ValueError, RecursionError) as error:
        raise PackageError(f"The catalog {path} is not valid JSON: {error}.") from error
    return parse_catalog(data, str(path))


def parse_catalog(data: Any, source: str) -> Catalog:
    """The catalog in parsed JSON ``data`` of the file ``source``. Raises PackageError."""
    check_catalog(data, source)
    return Catalog(tuple(_entry(package, Path(source).parent) for package in data["packages"]))


def merge_catalogs(catalogs: Iterable[Catalog]) -> Catalog:
    """One view of several catalogs.

    A later catalog may list a package again to add mirrors, which are then tried first (a
    hospital's own server); everything else stays as the first catalog has it. Raises PackageError
    when the two speak of different files (SHA-256).
    """
    catalogs = list(catalogs)
    merged: dict[tuple[str, str], CatalogEntry] = {}
    for entry in (e for catalog in catalogs for e in catalog.entries):
        key = (entry.id, entry.version)
        first = merged.setdefault(key, entry)
        if first.sha256 != entry.sha256:
            raise PackageError(
                f"Two catalogs list different files (SHA-256) for {entry.id} {entry.version}; "
                "remove the entry from one of them or change its version."
            )
        merged[key] = replace(first, urls=tuple(dict.fromkeys(entry.urls + first.urls)))
    warnings = (warning for catalog in catalogs for warning in catalog.warnings)
    return Catalog(tuple(merged.values()), tuple(warnings))


def available_packages(home: Path, bundled: Path = BUNDLED_CATALOG) -> Catalog:
    """The bundled catalog and the user's own, which are the files ``home/catalogs/*.json``.

    A file of these that cannot be read, or contradicts the others, is left out with a warning, so
    that it keeps nobody from the packages of the others.
    """
    merged, warnings = load_catalog(bundled), []
    for path in sorted((home / "catalogs").glob("*.json")):
        try:
            merged = merge_catalogs([merged, load_catalog(path)])
        except PackageError as error:
            warnings.append(f"{error} Until {path} is mended or removed, it is left out.")
    return replace(merged, warnings=tuple(warnings))


def version_key(version: str) -> tuple:
    """Sort key: numbers by value, 1.10 after 1.9, and a pre-release before its release."""
    parts = re.findall(r"\d+|[A-Za-z]+", version.partition("+")[0])
    return (*((1, int(p), "") if p.isdigit() else (-1, 0, p) for p in parts), (0, 0, ""))


def _passes(entry: CatalogEntry, filters: Mapping[str, str | None]) -> bool:
    return all(
        wanted is None or _fold(wanted) in map(_fold, entry.facet(name))
        for name, wanted in filters.items()
    )


def _score(entry: CatalogEntry, text: str) -> int | None:
    """How well the entry matches; None unless every word is found somewhere."""
    fields = (
        (8, _words(entry.title)),
        (4, _words(" ".join(entry.structures))),
        (2, _words(" ".join([entry.id, entry.region, *map(_input_text, entry.inputs)]))),
        (1, _words(f"{entry.description} {entry.training_data}")),
    )
    scores = [
        max(weight * _match(word, words) for weight, words in fields) for word in _words(text)
    ]
    return None if 0 in scores else sum(scores)


def _input_text(image: CatalogInput) -> str:
    return f"{image.name} {image.modality} {MODALITIES[image.modality]}"


def _match(word: str, words: list[str]) -> int:
    """3 for the whole word, 2 for its beginning, 1 for a part of it, 0 if it is not there."""
    if word in words:
        return 3
    if any(w.startswith(word) for w in words):
        return 2
    return int(any(word in w for w in words))


# British and American spelling (tumour, oedema, haematoma) and letters that do not decompose.
_SPELLINGS = {"our": "or", "oe": "e", "ae": "e", "ø": "o", "ł": "l", "œ": "e", "æ": "e"}


def _fold(text: str) -> str:
    """Lower case without accents, one spelling for British and American words."""
    text = unicodedata.normalize("NFKD", text.casefold())
    text = "".join(c for c in text if not unicodedata.combining(c))
    for variant, common in _SPELLINGS.items():
        text = text.replace(variant, common)
    return text


def _words(text: str) -> list[str]:
    words = re.findall(r"[^\W_]+", _fold(text))
    return [w[:-1] if len(w) > 3 and w.endswith("s") else w for w in words]


def _no_constant(name: str) -> None:
    raise ValueError(f"{name} is not a JSON number")


def _entry(data: dict[str, Any], beside: Path) -> CatalogEntry:
    read = {name: tuple(data[name]) for name in ("structures", "urls")}
    read["inputs"] = tuple(CatalogInput(**i) for i in data["inputs"])
    read["size_bytes"] = int(data["size_bytes"])
    if "folder" in data:
        read["folder"] = beside / data["folder"]
    return CatalogEntry(**{**data, **read})
