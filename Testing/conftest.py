"""Shared fixtures: where the real data lie, off-screen rendering, a sound end of the process."""

import atexit
import os
import sys
from pathlib import Path

import pytest

os.environ.setdefault("VTK_DEFAULT_OPENGL_WINDOW", "vtkEGLRenderWindow")
ROOT = Path(__file__).resolve().parents[1]
_STATUS = pytest.StashKey[int]()


@pytest.fixture(scope="session")
def data_dir() -> Path:
    """The folder of real data sets; the test is skipped where there is none."""
    path = Path(os.environ.get("MIMSEGMENT_DATA", ROOT.parent / "shared" / "data"))
    if not path.is_dir():
        pytest.skip(f"no real data at {path}; set MIMSEGMENT_DATA to the folder that holds it")
    return path


def pytest_sessionfinish(session, exitstatus):
    session.config.stash[_STATUS] = int(exitstatus)


@pytest.hookimpl(trylast=True)
def pytest_unconfigure(config):
    """Leave without unloading what no user loads into one process: PyTorch, VTK, Qt, OpenVINO.

    Their static destructors crashed now and then, after every test had passed. How our own
    programs end is tested in processes of their own.
    """
    if _STATUS not in config.stash or "vtkmodules" not in sys.modules:
        return
    atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(config.stash[_STATUS])
