"""Shared fixtures: where the real data lie, off-screen rendering, a sound end of the process."""

import atexit
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

os.environ.setdefault("VTK_DEFAULT_OPENGL_WINDOW", "vtkEGLRenderWindow")
# A shell starts its background jobs deaf to Ctrl-C, and what the tests start would be so too.
signal.signal(signal.SIGINT, signal.default_int_handler)
ROOT = Path(__file__).resolve().parents[1]
_STATUS = pytest.StashKey[int]()


@pytest.fixture(scope="session")
def data_dir() -> Path:
    """The folder of real data sets; the test is skipped where there is none."""
    path = Path(os.environ.get("MIMSEGMENT_DATA", ROOT.parent / "shared" / "data"))
    if not path.is_dir():
        pytest.skip(f"no real data at {path}; set MIMSEGMENT_DATA to the folder that holds it")
    return path


@pytest.fixture
def mounted(tmp_path):
    """A function that mounts a small disk with these options ("size=1m") and gives its folder."""
    disk = tmp_path / "disk"
    disk.mkdir()

    def mount(options: str) -> Path:
        what = "remount," if disk.is_mount() else ""
        command = ["mount", "-t", "tmpfs", "-o", what + options, "tmpfs", str(disk)]
        try:
            subprocess.run(command, check=True, capture_output=True)
        except (OSError, subprocess.CalledProcessError):
            pytest.skip("a small disk can be mounted by root on Linux only")
        return disk

    yield mount
    if disk.is_mount():
        subprocess.run(["umount", str(disk)], check=True)


@pytest.fixture
def full_disk(mounted):
    """A disk on which 4 kB are free."""
    disk = mounted("size=1m")
    status = os.statvfs(disk)
    (disk / "filling").write_bytes(bytes(status.f_bavail * status.f_frsize - 4096))
    return disk


@pytest.fixture
def read_only_disk(mounted):
    """A disk that cannot be written to."""
    mounted("size=1m")
    return mounted("ro")


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
