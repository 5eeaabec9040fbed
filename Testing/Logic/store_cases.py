"""Small packages, their zip files and catalog entries, for the tests of the store."""

import hashlib
import json
import zipfile
from pathlib import Path
from types import SimpleNamespace

from MIMSegment.Logic.catalog import CatalogEntry, CatalogInput
from MIMSegment.Logic.errors import PackageError

ROOT = Path(__file__).resolve().parents[2]
METADATA = "configs/metadata.json"


def validate(folder):
    """Stands in for ``load_package``: metadata that parse and a network that is not empty."""
    metadata = json.loads((folder / METADATA).read_text())
    model = folder / "models" / "model.onnx"
    if not model.is_file() or not model.stat().st_size:
        raise PackageError(f"{model} is missing or empty.")
    return SimpleNamespace(id=metadata["mimsegment"]["id"], version=metadata["version"])


def write_package(folder, id="liver", version="1.0.0", network=b"network"):
    (folder / "configs").mkdir(parents=True)
    (folder / "models").mkdir()
    metadata = {"version": version, "mimsegment": {"id": id}}
    (folder / METADATA).write_text(json.dumps(metadata))
    (folder / "models" / "model.onnx").write_bytes(network)
    return folder


def zipped(folder, archive=None, top=""):
    archive = archive or folder.with_suffix(".zip")
    with zipfile.ZipFile(archive, "w") as content:
        for path in sorted(p for p in folder.rglob("*") if p.is_file()):
            content.write(path, (Path(top) / path.relative_to(folder)).as_posix())
    return archive


def entry_for(archive, *urls, id="liver", version="1.0.0", **fields):
    data = archive if isinstance(archive, bytes) else archive.read_bytes()
    fields = {"license_acknowledgment": False, **fields}
    return CatalogEntry(
        id=id, version=version, title="Liver", description="d", region="abdomen",
        inputs=(CatalogInput("CT", "CT"),), structures=("Liver",), license="Apache-2.0",
        license_url="https://www.apache.org/licenses/LICENSE-2.0", training_data="none",
        size_bytes=len(data), phantom=False, urls=urls,
        sha256=hashlib.sha256(data).hexdigest(), **fields,
    )  # fmt: skip


def contents(store):
    """All files of the store but the locks."""
    files = (p.relative_to(store.location()) for p in store.location().rglob("*") if p.is_file())
    return sorted(p.as_posix() for p in files if p.parts[0] != ".locks")


INSTALLED = [f"liver/1.0.0/{METADATA}", "liver/1.0.0/models/model.onnx"]
