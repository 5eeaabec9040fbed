"""Fixtures of the tests of jobs: images, queues, and interpreters for workers."""

import sys
from pathlib import Path

import numpy as np
import pytest

from job_cases import ROOT
from MIMSegment.Logic.jobs import JobQueue
from MIMSegment.Logic.volume import Geometry, Volume


@pytest.fixture
def folder(tmp_path):
    """Where jobs have their folders."""
    (tmp_path / "jobs").mkdir()
    return tmp_path / "jobs"


@pytest.fixture
def volume():
    rotation = np.linalg.qr(np.random.default_rng(3).normal(size=(3, 3)))[0]
    geometry = Geometry.from_parts((20, 30, 25), (3, 0.7, 0.8), (10.1, -20, 1 / 3), rotation)
    array = np.random.default_rng(0).integers(0, 900, (1, *geometry.shape)).astype(np.int16)
    return Volume(array, geometry, "DOE^JOHN/series 4")


@pytest.fixture
def big_volume():
    array = np.random.default_rng(0).random((1, 48, 48, 144), np.float32)
    return Volume(array, Geometry.from_parts(array.shape[1:], (1, 1, 1)))


@pytest.fixture
def queue(folder):
    with JobQueue(folder=folder) as queue:
        yield queue
    assert not list(folder.iterdir())


@pytest.fixture
def interpreter(tmp_path):
    """Makes an interpreter for workers that first runs the given Python or shell lines."""

    def make(lines: str = "", shell: str = 'exec "$PYTHON" "$SCRIPT" "$@"') -> Path:
        script, program = tmp_path / "script.py", tmp_path / "python.sh"
        script.write_text(
            f"import sys\nsys.path.insert(0, {str(ROOT)!r})\n"
            f"from MIMSegment.Logic import inference\n{lines}\n"
            "import runpy\nsys.argv = sys.argv[1:]\nrunpy.run_path(sys.argv[0], None, '__main__')\n"
        )
        program.write_text(f'#!/bin/sh\nPYTHON="{sys.executable}"\nSCRIPT="{script}"\n{shell}\n')
        program.chmod(0o755)
        return program

    return make
