"""The list of packages to choose from, which is made anew at every key that a user presses."""

import pytest

from MIMSegment.Logic.catalog import Catalog
from MIMSegment.Logic.errors import PackageError
from MIMSegment.Logic.offers import Offers, require_installed
from MIMSegment.Logic.store import PackageStore
from tiny_package import write_threshold_package


@pytest.fixture
def store(tmp_path):
    return PackageStore(tmp_path / "store", bundled=tmp_path / "none")


def test_listing_reads_no_network_and_choosing_checks_it(store, tmp_path):
    network = store.import_file(write_threshold_package(tmp_path / "package").path)
    network = network / "models/model.onnx"
    content = network.read_bytes()
    network.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    (card,) = Offers(store, Catalog()).search("bright")
    assert card.entry.id == "bright-thing" and card.entry.size_bytes == len(content)
    with pytest.raises(PackageError, match=r"model\.onnx does not match its checksum"):
        require_installed(card)


def test_a_package_that_lost_a_file_is_not_listed(store, tmp_path):
    folder = store.import_file(write_threshold_package(tmp_path / "package").path)
    offers = Offers(store, Catalog())
    for name in ("models/model.onnx", "labels.csv"):
        assert len(offers.search()) == 1
        aside = (folder / name).rename(tmp_path / "aside")
        assert offers.search() == []
        aside.rename(folder / name)
