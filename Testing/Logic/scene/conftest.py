"""Fixtures of the tests with real MRML, which skip themselves where it is not installed."""

import pytest


@pytest.fixture
def scene():
    """An empty scene."""
    from MIMSegment.Logic import scene as mrml

    return mrml.new_scene()


@pytest.fixture
def reference(scene):
    """A gray image in it."""
    from MIMSegment.Logic import scene as mrml
    from scene_cases import gray_volume

    return mrml.add_volume(scene, gray_volume(), "T2w")


@pytest.fixture
def segmentation(scene, reference):
    """Structures on that image."""
    from scene_cases import zones

    return zones(scene, reference)
