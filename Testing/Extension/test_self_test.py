"""The self test, which is for a real Slicer, with stand-ins: it shows that its own steps hold."""

import unittest

import pytest

pytest.importorskip("PySide6", reason="needs PySide6 (the extra tests)")
pytest.importorskip("slicer", reason="needs slicer-core (the extra web)")

import slicer_standins
from MIMSegment.Logic.scene import new_scene


@pytest.fixture
def module(application, monkeypatch, tmp_path):
    monkeypatch.setenv("MIMSEGMENT_HOME", str(tmp_path / "home"))
    slicer_standins.install(monkeypatch, new_scene())
    return slicer_standins.load_module(monkeypatch)


def test_the_self_test_passes_as_ctest_runs_it(module):
    suite = unittest.TestLoader().loadTestsFromTestCase(module.MIMSegmentTest)
    assert suite.countTestCases() >= 3
    result = suite.run(unittest.TestResult())
    assert not result.skipped
    problems = [text for _, text in result.errors + result.failures]
    assert not problems, problems[0]


def test_the_self_test_passes_from_the_reload_and_test_button(module, monkeypatch):
    names = ["test_the_sample_studies_are_in_sample_data"]
    monkeypatch.setattr(unittest.TestLoader, "getTestCaseNames", lambda self, case: names)
    module.MIMSegmentTest().runTest()
