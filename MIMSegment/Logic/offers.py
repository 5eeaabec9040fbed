"""The packages to choose from: those of the catalogs and those that are installed, in one list."""

from __future__ import annotations

from MIMSegment.Logic.catalog import Catalog, CatalogEntry, CatalogInput, available_packages
from MIMSegment.Logic.errors import MIMSegmentError, PackageError
from MIMSegment.Logic.package import ModelPackage, load_package, read_package
from MIMSegment.Logic.store import PackageStore, data_home
from MIMSegment.Logic.workflow_state import PackageCard

_UNKNOWN = "not stated"


class Offers:
    """Cards of all packages, by search; installed ones without a catalog entry included.

    ``catalog`` is by default the bundled one and the user's own.
    """

    def __init__(self, store: PackageStore, catalog: Catalog | None = None):
        self.store = store
        self._catalog = available_packages(data_home()) if catalog is None else catalog

    @property
    def warnings(self) -> tuple[str, ...]:
        """Which catalogs were left out, and why."""
        return self._catalog.warnings

    def search(
        self,
        text: str = "",
        modality: str | None = None,
        region: str | None = None,
        license: str | None = None,
    ) -> list[PackageCard]:
        """As `Catalog.search`; installed packages that cannot be read are left out. Networks are
        not looked into, which takes seconds for large ones: that is for whoever uses a package."""
        return [self._card(e) for e in self._all().search(text, modality, region, license)]

    def facets(self) -> dict[str, dict[str, int]]:
        """The values of each filter and how many packages have them."""
        return self._all().facets()

    def find(self, name: str) -> PackageCard:
        """The card of "id", "id@version" or the path of a package. Raises PackageError."""
        identifier, _, version = name.partition("@")
        entries = [e for e in self._all().entries if e.id == identifier]
        entries = [e for e in entries if version in ("", e.version)]
        if entries:
            return self._card(Catalog(tuple(entries)).get(identifier, version or None))
        return self._card(_entry_of(load_package(self.store.find(name))))

    def path_of(self, entry: CatalogEntry) -> object:
        """The folder of an installed or bundled package; None when it must be downloaded."""
        if entry.folder is not None:
            return entry.folder
        same = [p for p in self.store.installed() if (p.id, p.version) == (entry.id, entry.version)]
        return same[0].path if same else None

    def _card(self, entry: CatalogEntry) -> PackageCard:
        missing, path = self.store.licenses.is_missing(entry), self.path_of(entry)
        stored = path is not None and self.store.location() in path.parents
        return PackageCard(entry, path, missing, stored=stored)

    def _all(self) -> Catalog:
        known = {(entry.id, entry.version) for entry in self._catalog.entries}
        own = []
        for installed in (*self.store.installed(), *self.store.bundled()):
            if (installed.id, installed.version) in known:
                continue
            try:
                own.append(_entry_of(read_package(installed.path)))
            except (MIMSegmentError, OSError):  # a network that is not there
                continue
            known.add((installed.id, installed.version))
        return Catalog((*self._catalog.entries, *own))


def _entry_of(package: ModelPackage) -> CatalogEntry:
    """What a package says about itself, for one that no catalog lists."""
    text = package.path / "LICENSE"
    lines = (
        text.read_text(encoding="utf-8", errors="replace").splitlines() if text.is_file() else []
    )
    name = next((line.strip() for line in lines if line.strip()), _UNKNOWN)
    metadata = package.metadata
    return CatalogEntry(
        id=package.id,
        version=package.version,
        title=package.title,
        description=str(metadata.get("description", "")),
        region="other",
        inputs=tuple(CatalogInput(i.name, i.modality) for i in package.spec.inputs),
        structures=tuple(label.name for label in package.labels),
        license=name[:80],
        license_url=text.as_uri() if lines else "",
        license_acknowledgment=False,
        training_data=str(metadata.get("data_source", _UNKNOWN)),
        size_bytes=sum(path.stat().st_size for path in package.model_paths),
        phantom=package.phantom,
        urls=(),
        sha256="",
        folder=package.path,
    )


def require_installed(card: PackageCard) -> ModelPackage:
    """The card's package, checked. Raises PackageError when it must be downloaded first."""
    if card.path is None:
        raise PackageError(f"{card.entry.title} is not installed yet; download it first.")
    return load_package(card.path)
