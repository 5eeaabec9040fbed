"""``mimsegment models``: what packages there are, getting, importing and removing them."""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import asdict
from pathlib import Path

from MIMSegment.Logic.diskspace import human_size
from MIMSegment.Logic.errors import PackageError
from MIMSegment.Logic.phrases import counted
from MIMSegment.Logic.progress_line import ProgressLine


def add_arguments(commands) -> None:
    """Add ``models list|search|download|import|location|remove`` to an argparse parser."""
    parser = commands.add_parser(
        "models",
        help="find, download, import and remove model packages",
        description="Model packages: those that came with the program, those of the catalogs and "
        "those that are installed. Catalogs are the program's own, the files *.json in the folder "
        "`catalogs` of MIM Segment's data folder, and those named by --catalog.",
    )
    actions = parser.add_subparsers(required=True, metavar="ACTION")
    _add_list(actions)
    action = actions.add_parser("download", help="download and install a package of a catalog")
    action.add_argument("name", metavar="ID[@VERSION]", help="as shown by list")
    action.add_argument(
        "--accept-license",
        action="store_true",
        help="I have read and accept the license of this package",
    )
    _add_catalogs(action)
    action.set_defaults(run=_download)
    action = actions.add_parser("import", help="install a package from a zip file or folder")
    action.add_argument("source", metavar="ZIP_OR_FOLDER")
    action.add_argument(
        "--replace",
        action="store_true",
        help="replace another package that is installed under the same id and version",
    )
    action.set_defaults(run=_import)
    action = actions.add_parser("location", help="print the folder of all packages, or of one")
    action.add_argument("name", nargs="?", metavar="ID[@VERSION]")
    action.set_defaults(run=_location)
    action = actions.add_parser("remove", help="remove an installed package")
    action.add_argument("name", metavar="ID[@VERSION]", help="without a version: all versions")
    action.set_defaults(run=_remove)


def _add_list(actions) -> None:
    action = actions.add_parser(
        "list",
        aliases=["search"],
        help="list packages, or those that match words and filters",
        description="Best match first. Words are looked for in title, structures, inputs, region "
        "and description.",
    )
    action.add_argument("words", nargs="*", metavar="WORD", help="what to look for: liver tumor")
    action.add_argument("--modality", help="CT, MR, PT ...")
    action.add_argument("--region", help="abdomen, brain, prostate ...")
    action.add_argument("--license", help="Apache-2.0, CC-BY-4.0 ...")
    action.add_argument("--ready", action="store_true", help="only what needs no download")
    action.add_argument("--json", action="store_true", help="one JSON list instead of a table")
    _add_catalogs(action)
    action.set_defaults(run=_list)


def _add_catalogs(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--catalog",
        action="append",
        default=[],
        metavar="FILE",
        type=Path,
        help="another catalog to look into; can be given several times",
    )


def find_package(name: str) -> Path:
    """`PackageStore.find`, with the way to a package that a catalog lists."""
    from MIMSegment.Logic.store import PackageStore

    try:
        return PackageStore().find(name)
    except PackageError as error:
        identifier = name.partition("@")[0]
        listed = {entry.id: entry for entry in _own_catalog().entries}
        if identifier not in listed:
            raise
        raise PackageError(
            f"{listed[identifier].title} is not installed; get it with "
            f"`mimsegment models download {name}`."
        ) from error


def _offers(catalogs: list[Path]):
    from MIMSegment.Logic.catalog import load_catalog, merge_catalogs
    from MIMSegment.Logic.offers import Offers
    from MIMSegment.Logic.store import PackageStore

    named = [load_catalog(path) for path in catalogs]
    return Offers(PackageStore(), merge_catalogs([_own_catalog(), *named]))


def _own_catalog():
    """`catalog.available_packages`, with a warning for each catalog that was left out."""
    from MIMSegment.Logic.catalog import available_packages
    from MIMSegment.Logic.store import data_home

    catalog = available_packages(data_home())
    for warning in catalog.warnings:
        print(f"warning: {warning}", file=sys.stderr)
    return catalog


def _list(arguments: argparse.Namespace) -> None:
    offers = _offers(arguments.catalog)
    filters = {name: getattr(arguments, name) for name in ("modality", "region", "license")}
    cards = offers.search(" ".join(arguments.words), **filters)
    if arguments.ready:
        cards = [card for card in cards if card.path is not None]
    if arguments.json:
        print(json.dumps([_plain(card) for card in cards], indent=2))
    elif cards:
        _print_table([_row(card) for card in cards])
    else:
        print("No package matches. There are:")
        for name, values in offers.facets().items():
            print(f"  {name:9}{', '.join(f'{v} ({count})' for v, count in values.items())}")


def _plain(card) -> dict:
    data = asdict(card.entry) | {"path": None if card.path is None else str(card.path)}
    del data["folder"]
    return data


def _row(card) -> tuple[str, ...]:
    entry = card.entry
    state = "ready" if card.path is not None else f"download {human_size(entry.size_bytes)}"
    if card.path is None and card.needs_acknowledgment:
        state += ", license"
    seconds = "" if entry.cpu_seconds is None else f"{entry.cpu_seconds:.0f} s on CPU"
    structures = counted(len(entry.structures), "structure")
    return card.key, entry.modality, entry.region, structures, seconds, state, entry.title


def _print_table(rows: list[tuple[str, ...]]) -> None:
    *widths, _ = (max(map(len, column)) for column in zip(*rows, strict=True))
    for *cells, last in rows:
        aligned = [f"{c:{w}}" for c, w in zip(cells, widths, strict=True) if w]
        print("  ".join([*aligned, last]))


def _download(arguments: argparse.Namespace) -> None:
    offers = _offers(arguments.catalog)
    card = offers.find(arguments.name)
    if card.needs_acknowledgment:
        if not arguments.accept_license:
            raise PackageError(
                f"{card.entry.title} has the license {card.entry.license}: read it at "
                f"{card.entry.license_url} and say with --accept-license that you have read and "
                "accept it."
            )
        offers.store.licenses.acknowledge(card.entry)
    line = ProgressLine()

    def show(done: int, total: int | None) -> None:
        share = done / total if total else 0.0
        of = f" of {human_size(total)}, {share:.0%}" if total else ""
        line.show(share, f"{card.key}: {human_size(done)}{of}")

    try:
        path = offers.store.install(card.entry, show)
    finally:
        line.end()
    print(f"{card.key} is ready in {path}")


def _import(arguments: argparse.Namespace) -> None:
    from MIMSegment.Logic.package import load_package
    from MIMSegment.Logic.store import PackageStore

    path = PackageStore().import_file(arguments.source, arguments.replace)
    package = load_package(path)
    print(f"{package.id}@{package.version} is ready in {path}")


def _location(arguments: argparse.Namespace) -> None:
    from MIMSegment.Logic.store import PackageStore

    print(find_package(arguments.name) if arguments.name else PackageStore().location())


def _remove(arguments: argparse.Namespace) -> None:
    from MIMSegment.Logic.store import PackageStore

    store = PackageStore()
    identifier, _, version = arguments.name.partition("@")
    if any(package.id == identifier for package in store.bundled()) and not any(
        package.id == identifier for package in store.installed()
    ):
        raise PackageError(f"{identifier} came with the program and cannot be removed.")
    store.remove(identifier, version or None)
    print(f"Removed {arguments.name}.")
