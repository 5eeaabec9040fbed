"""Fixtures of many tests of the logic: a package, and the longest of folders."""

import pytest

from tiny_package import threshold_spec, write_threshold_package


@pytest.fixture
def package(tmp_path_factory):
    """A package that finds what is bright; the test may spoil it."""
    return write_threshold_package(tmp_path_factory.mktemp("package") / "package")


@pytest.fixture(scope="session")
def slow_package(tmp_path_factory):
    """Each of its windows takes most of a second on one thread."""
    spec = threshold_spec(patch=(48, 48, 48))
    return write_threshold_package(tmp_path_factory.mktemp("slow") / "package", spec, delay=400)


@pytest.fixture
def deep_folder(tmp_path):
    """A folder whose path is long and has every kind of character."""
    deep = tmp_path / "Ünïcode 画像 'quoted' & spaced"
    for index in range(4):
        deep = deep / f"{index} 長い".ljust(110, "x")
    try:
        deep.mkdir(parents=True)
    except OSError:
        pytest.skip("this system has no paths that long")
    return deep
