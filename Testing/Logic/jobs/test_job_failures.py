"""What kills, breaks or fills up around a worker: a failed job with a sentence, and no trace."""

import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from job_cases import (
    BLOCKED,
    BUSY,
    CPU,
    NO_STDIN,
    ONE_THREAD,
    POSIX,
    ROOT,
    TIMEOUT,
    hanging,
    poll_until,
    run,
    worker_pid,
)
from MIMSegment.Logic import job_files
from MIMSegment.Logic.errors import OutputError, PackageError
from MIMSegment.Logic.job_folder import create_folder
from MIMSegment.Logic.jobs import JobQueue, JobState
from MIMSegment.Logic.package import load_package
from MIMSegment.Logic.processes import start_time
from MIMSegment.Logic.volume import Geometry, Volume
from MIMSegment.Logic.worker_process import replaced
from tiny_package import write_threshold_package
from waiting import wait_until


@POSIX
def test_the_death_of_a_launcher_ends_the_interpreter_behind_it(interpreter, folder, volume,
                                                                package):  # fmt: skip
    shell = 'echo $$ > "$0.pid"\n"$PYTHON" "$SCRIPT" "$@" < /dev/null\nexit $?'
    python = interpreter(hanging(BLOCKED), shell)
    with JobQueue(python=python, folder=folder) as queue:
        job = queue.submit(volume, package.path, CPU)
        poll_until(lambda: job.done == 1, queue)
        pid = worker_pid(folder)
        os.kill(int(Path(f"{python}.pid").read_text()), signal.SIGKILL)
        queue.wait(job, TIMEOUT)
        assert job.state is JobState.FAILED
        assert not list(folder.iterdir())
        wait_until(lambda: start_time(pid) is None)


@POSIX
def test_a_killed_worker_is_a_failed_job(queue, folder, big_volume, slow_package, volume, package):
    job = queue.submit(big_volume, slow_package.path, ONE_THREAD)
    poll_until(lambda: job.done >= 1, queue)
    os.kill(worker_pid(folder), signal.SIGKILL)
    queue.wait(job, TIMEOUT)
    assert job.state is JobState.FAILED
    assert "was killed (SIGKILL)" in job.error
    assert f"part {job.done} of 5" in job.error
    assert "memory" in job.error
    assert not list(folder.iterdir())
    assert run(queue, volume, package).state is JobState.DONE


@POSIX
@pytest.mark.parametrize("begun", [True, False])
def test_a_job_whose_folder_was_removed_is_a_failed_job(interpreter, folder, volume, package,
                                                        begun):  # fmt: skip
    with JobQueue(python=interpreter(hanging(BUSY)), folder=folder) as queue:
        job = queue.submit(volume, package.path, CPU)
        if begun:
            poll_until(lambda: job.done == 1, queue)
        (own,) = folder.iterdir()
        shutil.rmtree(own)
        assert queue.wait(job, TIMEOUT)
    assert job.state is JobState.FAILED
    assert f"{own} was removed" in job.error


@POSIX
def test_a_native_crash_is_a_failed_job_with_a_trace(interpreter, folder, volume, package):
    python = interpreter("import ctypes\ninference.segment = lambda *_: ctypes.string_at(0)")
    with JobQueue(python=python, folder=folder) as queue:
        job = run(queue, volume, package)
    assert job.state is JobState.FAILED
    assert "SIGSEGV" in job.error
    assert "another device" in job.error
    assert "Segmentation fault" in job.log
    assert not list(folder.iterdir())


@POSIX
@pytest.mark.parametrize(
    ("failure", "kind", "message"),
    [
        ("raise MemoryError", "OutOfMemory", "memory for the image"),
        ("raise ValueError(f'bad {v.source} {v.array[0, 0, 0]}')", "ValueError", "(ValueError)"),
        ("raise InputError('image.nrrd\\n  is bad')", "InputError", "image.nrrd is bad"),
        ("sys.exit(7)", "DeviceError", "exit code 7"),
    ],
)
def test_any_failure_is_one_sentence(interpreter, folder, volume, package, failure, kind, message):
    python = interpreter(
        "from MIMSegment.Logic.errors import InputError\n"
        f"def fail(v, *_):\n    {failure}\ninference.segment = fail"
    )
    with JobQueue(python=python, folder=folder) as queue:
        job = run(queue, volume, package)
    assert (job.state, job.error_kind) == (JobState.FAILED, kind)
    assert message in job.error
    assert "\n" not in job.error
    assert not list(folder.iterdir())


@POSIX
def test_the_log_names_no_file_of_the_user(interpreter, folder, volume, package):
    python = interpreter(
        "def fail(v, *_):\n"
        f"    raise ValueError(f'{{v.source}} and {package.path}')\n"
        "inference.segment = fail"
    )
    with JobQueue(python=python, folder=folder) as queue:
        job = run(queue, volume, package)
    assert "ValueError: <input> and <package>" in job.log
    assert "DOE" not in job.log + job.error
    assert str(folder) not in job.log


def test_a_log_names_no_file_of_windows_either_where_python_quotes_it():
    path = r"C:\Users\Doe\scan.nii.gz"
    text = f"open({path!r}) failed: {path}"
    assert replaced(text, {path: "<input>", "": "x"}) == "open('<input>') failed: <input>"


@POSIX
def test_what_libraries_print_does_not_disturb(interpreter, folder, volume, package):
    python = interpreter(
        "real = inference.segment\n"
        "def noisy(*arguments):\n"
        "    import ctypes, os\n"
        "    c = ctypes.CDLL(None)\n"
        """    c.puts(b'{"event": "error", "kind": "X", "message": "native"}')\n"""
        "    c.fflush(None)\n"
        "    os.write(1, b'half a line')\n"
        "    print('Grüße 画像', flush=True)\n"
        "    return real(*arguments)\n"
        "inference.segment = noisy"
    )
    with JobQueue(python=python, folder=folder) as queue:
        job = run(queue, volume, package)
    assert job.state is JobState.DONE
    assert "native" in job.log and "Grüße 画像" in job.log


def test_an_interpreter_that_is_not_there_is_a_failed_job(folder, volume, package):
    with JobQueue(python=folder / "no-python", folder=folder) as queue:
        job = run(queue, volume, package)
    assert job.state is JobState.FAILED
    assert "no-python" in job.error
    assert not list(folder.iterdir())


def test_a_worker_that_cannot_start_says_why(folder, tmp_path, volume, package):
    (tmp_path / "numpy.py").write_text("raise ImportError('numpy is broken')")
    with JobQueue(env={"PYTHONPATH": str(tmp_path)}, folder=folder) as queue:
        job = run(queue, volume, package)
    assert job.state is JobState.FAILED
    assert "ImportError" in job.error
    assert "numpy is broken" in job.log


def test_a_damaged_package_gives_the_same_sentence_as_in_this_process(queue, tmp_path, volume):
    package = write_threshold_package(tmp_path / "package")
    package.model_paths[0].write_bytes(b"damaged")
    with pytest.raises(PackageError) as expected:
        load_package(package.path)
    job = run(queue, volume, package)
    assert (job.state, job.error_kind) == (JobState.FAILED, "PackageError")
    assert job.error == str(expected.value)


def test_a_failed_job_does_not_stop_the_next(queue, tmp_path, volume, package):
    failed = queue.submit(volume, tmp_path / "no package")
    assert run(queue, volume, package).state is JobState.DONE
    assert failed.state is JobState.FAILED


def test_a_failing_listener_does_not_stop_the_queue(queue, volume, package, caplog):
    seen = []

    def fail(job):
        raise RuntimeError("listener")

    queue.listeners += [fail, lambda job: seen.append(job.state)]
    assert run(queue, volume, package).state is JobState.DONE
    assert seen[-1] is JobState.DONE
    assert "listener" in caplog.text


OWNER = """
import sys, time
sys.path.insert(0, {root!r})
from pathlib import Path
import numpy as np
from MIMSegment.Logic.inference import InferenceOptions
from MIMSegment.Logic.jobs import JobQueue
from MIMSegment.Logic.volume import Geometry, Volume
array = np.random.default_rng(0).random((1, 48, 48, 144), np.float32)
volume = Volume(array, Geometry.from_parts(array.shape[1:], (1, 1, 1)))
queue = JobQueue(folder=Path({folder!r}), python={python!r})
running = queue.submit(volume, {package!r}, InferenceOptions("cpu", threads=1))
while running.done < 1:
    queue.poll()
    time.sleep(0.01)
{rest}
"""


@pytest.fixture
def owner(folder, slow_package):
    """Starts a process with a queue whose job is within its second window, then runs lines."""
    started = []

    def start(rest: str, python: str = sys.executable) -> subprocess.Popen:
        code = OWNER.format(
            root=str(ROOT), folder=str(folder),
            package=str(slow_package.path), python=str(python), rest=rest,
        )  # fmt: skip
        process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
        started.append(process)
        return process

    yield start
    for process in started:
        process.kill()
        process.communicate()


STDIN_ONLY = "from MIMSegment.Logic import processes\nprocesses.is_running = lambda *_: True"


@POSIX
@pytest.mark.parametrize(
    "how",
    [(), ("", NO_STDIN), (STDIN_ONLY,), (hanging(BUSY),)],
    ids=["plain", "launcher without stdin", "stdin alone", "busy"],
)
def test_the_worker_ends_and_cleans_up_when_its_parent_is_killed(owner, folder, interpreter, how):
    process = owner("print('ready', flush=True); time.sleep(600)", interpreter(*how))
    assert process.stdout.readline() == "ready\n"
    pid = worker_pid(folder)
    assert start_time(pid) is not None
    process.kill()
    wait_until(lambda: start_time(pid) is None)
    wait_until(lambda: not list(folder.iterdir()))


def test_an_owner_that_just_exits_leaves_nothing(owner, folder):
    process = owner("queue.submit(volume, 'another')\nprint(len(list(queue._tasks)))")
    assert process.communicate(timeout=TIMEOUT)[0] == "2\n"
    assert process.returncode == 0
    assert not list(folder.iterdir())


def test_what_a_killed_owner_left_is_removed_by_the_next_queue(owner, folder):
    process = owner("queue.cancel(running)\nqueue.wait(running)\nqueue.submit(volume, 'waits')\n"
                    "print('ready', flush=True); time.sleep(600)")  # fmt: skip
    assert process.stdout.readline() == "ready\n"
    mine = create_folder(folder)
    foreign = folder / "mimsegment-job-00000000-1-1-else"
    other = folder / "mimsegment-job-notes"
    foreign.mkdir()
    other.mkdir()
    (left,) = set(folder.iterdir()) - {mine, foreign, other}
    JobQueue(folder=folder).close()
    assert left.exists(), "its owner is alive"
    process.kill()
    process.wait()
    JobQueue(folder=folder).close()
    assert set(folder.iterdir()) == {mine, foreign, other}


@pytest.fixture
def small_disk(mounted):
    return mounted("size=2m")


def fill(disk: Path, leave: int) -> None:
    status = os.statvfs(disk)
    (disk / "filling").write_bytes(bytes(status.f_bavail * status.f_frsize - leave))


def test_no_room_for_the_input_is_said_with_sizes(small_disk, package, monkeypatch):
    array = np.ones((1, 40, 256, 256), np.int16)
    volume = Volume(array, Geometry.from_parts(array.shape[1:], (1, 1, 1)))
    with JobQueue(folder=small_disk) as queue:
        for check in (job_files.check_free_space, lambda *_: None):  # foreseen, and met on the way
            monkeypatch.setattr(job_files, "check_free_space", check)
            with pytest.raises(OutputError, match=r"10.5 MB.* 2.1 MB .*free"):
                queue.submit(volume, package.path, CPU)
            assert not list(small_disk.iterdir())
            assert not queue.jobs


@pytest.mark.parametrize("leave", [0, 16384], ids=["full", "room for messages only"])
def test_no_room_for_the_result_is_said(small_disk, volume, package, leave):
    with JobQueue(folder=small_disk) as queue:
        job = queue.submit(volume, package.path, CPU)
        fill(small_disk, leave)
        queue.wait(job, TIMEOUT)
        assert job.state is JobState.FAILED
        assert "free some space" in job.error
        assert leave == 0 or "15 kB" in job.error
        assert [path.name for path in small_disk.iterdir()] == ["filling"]


def test_a_read_only_folder_is_said(read_only_disk, volume, package):
    with (
        JobQueue(folder=read_only_disk) as queue,
        pytest.raises(OutputError, match=r"cannot be written to .*TMPDIR"),
    ):
        queue.submit(volume, package.path, CPU)
