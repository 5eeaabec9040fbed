"""A cache is replaced as a whole: neither an error nor a kill leaves half of one in its place."""

import os
import signal
import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path

import pytest

from mim.cache_folder import replacing_cache
from mim.caching import PrepareOptions, prepare_dataset
from mim.data import read_cache
from MIMSegment.Logic.errors import InputError
from small_sets import decathlon

OPTIONS = PrepareOptions(patch_voxels=4000, stages=3, jobs=1)
OTHER = PrepareOptions(patch_voxels=4000, stages=3, jobs=1, exclude=("case_0",))


@pytest.fixture
def data(tmp_path):
    decathlon(tmp_path / "data", count=3)
    return tmp_path / "data"


def files(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def kill_prepare(moment: str, number: int, data: Path, cache: Path) -> None:
    """Run prepare.py in a process of its own, which dies at the moment."""
    if os.name != "posix":
        pytest.skip("there is no SIGKILL here")
    job = [sys.executable, str(Path(__file__).with_name("killed_job.py")), moment, str(number)]
    options = ["--jobs", "1", "--patch-voxels", "4000", "--stages", "3", "--exclude", "case_0"]
    done = subprocess.run([*job, "prepare", str(data), str(cache), *options], capture_output=True)
    assert done.returncode == -signal.SIGKILL, done.stderr.decode()[-2000:]


def test_a_killed_run_leaves_no_cache_and_is_no_obstacle_to_the_next(data, tmp_path):
    cache = tmp_path / "cache"
    kill_prepare("describe", 2, data, cache)
    assert not cache.exists()
    prepare_dataset(data, cache, OPTIONS)
    assert len(read_cache(cache).cases) == 3
    assert sorted(os.listdir(tmp_path)) == ["cache", "data"]


def test_a_killed_run_leaves_the_former_cache_as_it_was(data, tmp_path):
    cache = tmp_path / "cache"
    prepare_dataset(data, cache, OPTIONS)
    before = files(cache)
    kill_prepare("describe", 2, data, cache)
    assert files(cache) == before
    prepare_dataset(data, cache, OTHER)
    assert len(read_cache(cache).cases) == 2
    assert not list(cache.glob("*/case_0.npy"))
    assert sorted(os.listdir(tmp_path)) == ["cache", "data"]


def test_a_cache_moved_away_by_a_killed_run_is_brought_back_even_if_the_next_one_fails(
    data, tmp_path
):
    cache = tmp_path / "cache"
    prepare_dataset(data, cache, OPTIONS)
    before = files(cache)
    kill_prepare("move", 2, data, cache)
    assert not cache.exists()
    with pytest.raises(ZeroDivisionError), replacing_cache(cache):
        raise ZeroDivisionError
    assert files(cache) == before
    assert sorted(os.listdir(tmp_path)) == ["cache", "data"]


def test_a_run_that_finds_nothing_usable_leaves_the_former_cache(data, tmp_path):
    cache = tmp_path / "cache"
    prepare_dataset(data, cache, OPTIONS)
    before = files(cache)
    for image in (data / "imagesTr").iterdir():
        image.write_bytes(b"no image")
    with pytest.raises(InputError, match="No usable volume"):
        prepare_dataset(data, cache, OPTIONS)
    assert files(cache) == before
    assert sorted(os.listdir(tmp_path)) == ["cache", "data"]


def test_two_processes_do_not_write_one_cache_at_once(tmp_path):
    cache = tmp_path / "cache"
    with replacing_cache(cache) as first:
        (first / "cases.json").write_text("first")
        with pytest.raises(InputError, match="Another process is writing"), ExitStack() as stack:
            stack.enter_context(replacing_cache(cache))
    assert (cache / "cases.json").read_text() == "first"


def test_a_link_to_a_cache_stays_a_link(tmp_path):
    (tmp_path / "disk").mkdir()
    (tmp_path / "disk/old").mkdir()
    link = tmp_path / "cache"
    link.symlink_to(tmp_path / "disk/old", target_is_directory=True)
    with replacing_cache(link) as folder:
        (folder / "cases.json").write_text("new")
    assert link.is_symlink() and (tmp_path / "disk/old/cases.json").read_text() == "new"
    assert os.listdir(tmp_path / "disk") == ["old"]


@pytest.mark.skipif(not os.path.ismount("/proc"), reason="needs a mount point")
def test_a_mount_point_is_refused_before_anything_is_written():
    with pytest.raises(InputError, match="/proc is a mount point"), ExitStack() as stack:
        stack.enter_context(replacing_cache(Path("/proc")))
