"""What a catalog file must look like: ``Resources/Models/catalog.schema.json``, checked by hand.

By hand because Slicer's Python has no JSON Schema library; a test holds the two together.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from typing import Any

from MIMSegment.Logic.errors import PackageError

SCHEMA_VERSION = 1
ID = re.compile(r"[a-z0-9]([a-z0-9._-]{0,78}[a-z0-9])?")
VERSION = re.compile(r"[0-9]([0-9A-Za-z.+-]{0,30}[0-9A-Za-z])?")
# DICOM modality (0008,0060) and what people call it.
MODALITIES = {
    "CT": "CT, computed tomography",
    "MR": "MRI, magnetic resonance imaging",
    "PT": "PET, positron emission tomography",
    "NM": "nuclear medicine, SPECT, scintigraphy",
    "US": "ultrasound",
    "CR": "X-ray, computed radiography",
    "DX": "X-ray, digital radiography",
    "MG": "mammography",
    "XA": "angiography",
    "OT": "other",
}
_URL = re.compile(r"https?://[^\s/@]+(/\S*)?")
_SHA256 = re.compile(r"[0-9a-f]{64}")


def check_catalog(data: Any, source: str) -> None:
    """Raise PackageError naming the entry and the field unless ``data`` follows the rules."""
    where = f"The catalog {source}"
    if not isinstance(data, dict) or set(data) != {"schema_version", "packages"}:
        raise PackageError(f'{where} must hold "schema_version" and "packages", nothing else.')
    version, packages = data["schema_version"], data["packages"]
    if isinstance(version, bool) or version != SCHEMA_VERSION:
        raise PackageError(
            f"{where} has schema_version {version!r:.80}, this program reads {SCHEMA_VERSION}; "
            "update the program or get a catalog made for it."
        )
    if not isinstance(packages, list):
        raise PackageError(f'{where}: "packages" must be a list.')
    seen = set()
    for number, package in enumerate(packages, start=1):
        _check_package(package, f"{where}, {_describe(package, number)}")
        key = (package["id"], package["version"])
        if key in seen:
            raise PackageError(f"{where} lists {' '.join(key)} more than once.")
        seen.add(key)


def _check_package(data: Any, where: str) -> None:
    if not isinstance(data, dict):
        raise PackageError(f"{where} must be a table of fields, not {data!r:.80}.")
    for name, value in data.items():
        rule = _REQUIRED.get(name) or _OPTIONAL.get(name)
        if rule is None:
            raise PackageError(f"{where} has the unknown field {name!r}.")
        is_right, wanted = rule
        if not is_right(value):
            raise PackageError(f"{where}: {name!r} must be {wanted}, not {value!r:.80}.")
    for name in _REQUIRED:
        if name not in data:
            raise PackageError(f"{where} lacks the field {name!r}.")
    if not data["urls"] and "folder" not in data:
        raise PackageError(f"{where} needs 'urls', or the 'folder' beside the catalog it lies in.")
    for kind in ("cpu", "gpu"):
        if data.get(f"{kind}_seconds") is not None and data.get(f"{kind}_hardware") is None:
            raise PackageError(f"{where}: '{kind}_hardware' must say what '{kind}_seconds' is for.")


def _describe(package: Any, number: int) -> str:
    package_id = package.get("id") if isinstance(package, dict) else None
    return f"package {number}" + (f" ({package_id:.80})" if isinstance(package_id, str) else "")


def _is_text(value: Any) -> bool:
    return isinstance(value, str) and bool(value.strip())


def _is_bool(value: Any) -> bool:
    return isinstance(value, bool)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _is_size(value: Any) -> bool:
    return _is_number(value) and value >= 1 and value == int(value)


def _is_seconds(value: Any) -> bool:
    return value is None or (_is_number(value) and value > 0)


def _is_hardware(value: Any) -> bool:
    return value is None or _is_text(value)


def _is_input(value: Any) -> bool:
    return (
        isinstance(value, dict)
        and set(value) == {"name", "modality"}
        and _is_text(value["name"])
        and isinstance(value["modality"], str)
        and value["modality"] in MODALITIES
    )


def _matches(pattern: re.Pattern) -> Callable[[Any], bool]:
    return lambda value: isinstance(value, str) and pattern.fullmatch(value) is not None


def _is_list_of(is_item: Callable[[Any], bool], least: int = 1) -> Callable[[Any], bool]:
    return lambda value: (
        isinstance(value, list) and len(value) >= least and all(map(is_item, value))
    )


def _is_set_of(is_item: Callable[[Any], bool], least: int = 1) -> Callable[[Any], bool]:
    is_list = _is_list_of(is_item, least)
    return lambda value: is_list(value) and len(set(value)) == len(value)


_Rule = tuple[Callable[[Any], bool], str]
_TEXT: _Rule = (_is_text, "a text")
_BOOL: _Rule = (_is_bool, "true or false")
_SECONDS: _Rule = (_is_seconds, "a number of seconds above 0, or null")
_HARDWARE: _Rule = (_is_hardware, "a text, or null")
_REQUIRED: dict[str, _Rule] = {
    "id": (_matches(ID), "1 to 80 lower-case letters, digits, dots, dashes or underscores"),
    "version": (_matches(VERSION), "a version such as 1.2.0"),
    "title": _TEXT,
    "description": _TEXT,
    "region": _TEXT,
    "inputs": (
        _is_list_of(_is_input),
        f'a list of {{"name", "modality"}} with one of the modalities {", ".join(MODALITIES)}',
    ),
    "structures": (_is_set_of(_is_text), "a list of different names"),
    "license": _TEXT,
    "license_url": (_matches(_URL), "an http(s) address"),
    "license_acknowledgment": _BOOL,
    "training_data": _TEXT,
    "size_bytes": (_is_size, "a whole number of bytes above 0"),
    "phantom": _BOOL,
    "urls": (_is_set_of(_matches(_URL), least=0), "a list of different http(s) addresses"),
    "sha256": (_matches(_SHA256), "64 lower-case hexadecimal digits"),
}
_OPTIONAL: dict[str, _Rule] = {
    "folder": (_matches(ID), "the name of a folder beside the catalog"),
    "cpu_seconds": _SECONDS,
    "cpu_hardware": _HARDWARE,
    "gpu_seconds": _SECONDS,
    "gpu_hardware": _HARDWARE,
    "deprecated": _BOOL,
}
