"""Real child processes on a real package; what breaks them is put between queue and worker."""

import json
import os
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from MIMSegment.Logic import job_files
from MIMSegment.Logic.engine import segment
from MIMSegment.Logic.errors import Cancelled, OutputError, PackageError
from MIMSegment.Logic.inference import InferenceOptions
from MIMSegment.Logic.job_folder import create_folder
from MIMSegment.Logic.jobs import JobQueue, JobState
from MIMSegment.Logic.package import load_package
from MIMSegment.Logic.processes import start_time
from MIMSegment.Logic.runtime import OnnxSession
from MIMSegment.Logic.volume import Geometry, Volume
from tiny_package import threshold_spec, write_threshold_package

ROOT = Path(__file__).resolve().parents[2]
TIMEOUT = 30
BUSY = "import time; time.sleep(600)"
BLOCKED = "import ctypes; ctypes.PyDLL(None).sleep(600)"  # holds the interpreter's lock
NO_STDIN = '"$PYTHON" "$@" < /dev/null\nexit $?'
POSIX = pytest.mark.skipif(sys.platform == "win32", reason="shell scripts and signals")
CPU = InferenceOptions(device="cpu")
ONE_THREAD = InferenceOptions(device="cpu", threads=1)


@pytest.fixture(scope="session")
def package(tmp_path_factory):
    return write_threshold_package(tmp_path_factory.mktemp("fast") / "package")


@pytest.fixture(scope="session")
def slow_package(tmp_path_factory):
    """Each of its windows takes most of a second on one thread."""
    spec = threshold_spec(patch=(48, 48, 48))
    return write_threshold_package(tmp_path_factory.mktemp("slow") / "package", spec, delay=400)


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


def until(condition, queue=None):
    deadline = time.monotonic() + TIMEOUT
    while not condition():
        assert time.monotonic() < deadline, "it never happened"
        if queue is not None:
            queue.poll()
        time.sleep(0.005)


def events(folder: Path) -> list[dict]:
    """What the only job's worker has written, read beside the queue."""
    (path,) = folder.glob("*/events.jsonl")
    return [json.loads(line) for line in path.read_text().splitlines()]


def has_event(folder: Path, kind: str):
    def written() -> bool:
        found = any(folder.glob("*/events.jsonl"))
        return found and any(event["event"] == kind for event in events(folder))

    return written


def worker_pid(folder: Path) -> int:
    return events(folder)[0]["pid"]


def hanging(how: str) -> str:
    """Lines for `interpreter`: the engine does one window and then hangs."""
    return f"def hang(*args):\n    args[3](1, 5)\n    {how}\ninference.segment = hang"


def run(queue, volume, package):
    job = queue.submit(volume, package.path, CPU)
    assert queue.wait(job, TIMEOUT)
    return job


def test_result_and_progress_are_those_of_the_engine_in_this_process(queue, volume, package):
    windows, seen = [], []
    session = OnnxSession(package.model_paths[0])
    expected = segment(volume, package.spec, session, lambda *window: windows.append(window))
    queue.listeners.append(lambda job: seen.append((job.done, job.total, job.state)))
    job = run(queue, volume, package)
    assert job.state is JobState.DONE and job.error is None
    assert job.result.labels.dtype == expected.labels.dtype
    assert np.array_equal(job.result.labels, expected.labels)
    assert job.result.geometry.is_close(volume.geometry, 1e-12)
    done = [d for d, _, _ in seen]
    assert done == sorted(done)
    assert seen[-1] == (*windows[-1], JobState.DONE)
    assert job.device == session.description


def test_every_window_is_reported_with_the_time_left(queue, folder, big_volume, slow_package):
    seen = []
    queue.listeners.append(lambda job: seen.append((job.done, job.total, job.eta)))
    job = queue.submit(big_volume, slow_package.path, ONE_THREAD)
    until(lambda: job.done >= 3, queue)
    reported = [(e["done"], e["of"]) for e in events(folder) if e["event"] == "window"]
    assert reported == [(n, 5) for n in range(1, len(reported) + 1)]
    shown = [window for window in seen if window[1]]
    assert {window[:2] for window in shown} <= set(reported)
    assert shown[-1][2] > 0
    assert f"window {job.done} of 5" in job.message


def test_a_view_with_several_channels_in_any_order_arrives_as_it_is(queue, tmp_path):
    package = write_threshold_package(tmp_path / "package", threshold_spec(inputs=2))
    array = np.random.default_rng(0).random((30, 20, 10, 2)).astype(">f4").T[:, :, ::-1]
    volume = Volume(array, Geometry.from_parts(array.shape[1:], (3, 1, 1)))
    expected = segment(volume, package.spec, OnnxSession(package.model_paths[0]))
    assert np.array_equal(run(queue, volume, package).result.labels, expected.labels)


def test_the_caller_may_change_the_voxels_after_submitting(queue, volume, package):
    expected = segment(volume, package.spec, OnnxSession(package.model_paths[0]))
    job = queue.submit(volume, package.path, CPU)
    volume.array[...] = 0
    queue.wait(job, TIMEOUT)
    assert np.array_equal(job.result.labels, expected.labels)


def test_jobs_run_in_order_one_at_a_time(queue, volume, package):
    log = []
    queue.listeners.append(lambda job: log.append((job.id, job.state)))
    first, second = (queue.submit(volume, package.path, CPU) for _ in range(2))
    queue.wait(second, TIMEOUT)
    order = list(dict.fromkeys(log))
    assert order == [
        (first.id, JobState.RUNNING),
        (first.id, JobState.DONE),
        (second.id, JobState.RUNNING),
        (second.id, JobState.DONE),
    ]


def test_two_jobs_run_at_a_time_where_that_is_asked_for(folder, big_volume, slow_package):
    with JobQueue(max_running=2, folder=folder) as queue:
        jobs = [queue.submit(big_volume, slow_package.path, ONE_THREAD) for _ in range(3)]
        queue.poll()
        assert [job.state for job in jobs] == ["running", "running", "queued"]
    assert [job.state for job in jobs] == ["cancelled"] * 3
    assert not list(folder.iterdir())


def test_a_queued_job_is_cancelled_at_once(queue, volume, package):
    first, second = (queue.submit(volume, package.path, CPU) for _ in range(2))
    assert queue.cancel(second)
    assert second.state is JobState.CANCELLED
    assert queue.jobs == [first]
    queue.wait(first, TIMEOUT)
    assert first.state is JobState.DONE
    assert not queue.cancel(first)
    assert first.state is JobState.DONE


def cancelled(queue, job, folder, pid=None):
    assert queue.cancel(job)
    assert job.state is JobState.CANCELLING
    assert queue.wait(job, TIMEOUT)
    assert job.state is JobState.CANCELLED
    assert (job.result, job.error, job.eta) == (None, None, None)
    assert not list(folder.iterdir())
    assert pid is None or start_time(pid) is None


def test_cancelled_while_the_worker_starts(queue, folder, volume, package):
    job = queue.submit(volume, package.path, CPU)
    queue.poll()
    cancelled(queue, job, folder)


def test_cancelled_within_a_window(queue, folder, big_volume, slow_package):
    job = queue.submit(big_volume, slow_package.path, ONE_THREAD)
    until(lambda: job.done >= 1, queue)
    cancelled(queue, job, folder, worker_pid(folder))


def test_a_running_network_can_be_stopped(big_volume, slow_package):
    session = OnnxSession(slow_package.model_paths[0], threads=1)
    with ThreadPoolExecutor() as pool:
        window = pool.submit(session, big_volume.array[None])
        time.sleep(0.1)
        assert not window.done()
        session.terminate()
        with pytest.raises(Cancelled):
            window.result(TIMEOUT)
    with pytest.raises(Cancelled):
        session(big_volume.array[None])


@POSIX
def test_a_cancel_reaches_the_running_network(interpreter, folder, volume, package):
    python = interpreter(
        "from MIMSegment.Logic.errors import Cancelled\n"
        "def run(volume, spec, predict, *_):\n"
        "    import threading\n"
        "    stopped = threading.Event()\n"
        "    predict[0].terminate = stopped.set\n"
        "    stopped.wait()\n"
        "    raise Cancelled\n"
        "inference.segment = run"
    )
    with JobQueue(python=python, folder=folder) as queue:
        job = queue.submit(volume, package.path, CPU)
        until(lambda: job.message.startswith("Runs on"), queue)
        (job_folder,) = folder.iterdir()
        (job_folder / "cancel").touch()  # beside the queue, which would kill
        until(has_event(folder, "cancelled"))


def test_cancelled_after_the_result_was_there(queue, folder, volume, package):
    job = queue.submit(volume, package.path, CPU)
    queue.poll()
    until(has_event(folder, "result"))
    cancelled(queue, job, folder)


@POSIX
@pytest.mark.parametrize("hang", [BUSY, BLOCKED], ids=["busy", "blocked"])
def test_cancelled_while_nothing_listens(interpreter, folder, volume, package, hang):
    with JobQueue(python=interpreter(hanging(hang)), folder=folder) as queue:
        job = queue.submit(volume, package.path, CPU)
        until(lambda: job.done == 1, queue)
        cancelled(queue, job, folder, worker_pid(folder))


@POSIX
def test_a_launcher_that_passes_no_stdin_on_does_not_disturb(interpreter, folder, big_volume,
                                                             volume, package,
                                                             slow_package):  # fmt: skip
    python = interpreter(shell=NO_STDIN)
    with JobQueue(python=python, folder=folder) as queue:
        assert run(queue, volume, package).state is JobState.DONE
        job = queue.submit(big_volume, slow_package.path, ONE_THREAD)
        until(lambda: job.done >= 1, queue)
        cancelled(queue, job, folder, worker_pid(folder))


@POSIX
def test_the_death_of_a_launcher_ends_the_interpreter_behind_it(interpreter, folder, volume,
                                                                package):  # fmt: skip
    shell = 'echo $$ > "$0.pid"\n"$PYTHON" "$SCRIPT" "$@" < /dev/null\nexit $?'
    python = interpreter(hanging(BLOCKED), shell)
    with JobQueue(python=python, folder=folder) as queue:
        job = queue.submit(volume, package.path, CPU)
        until(lambda: job.done == 1, queue)
        pid = worker_pid(folder)
        os.kill(int(Path(f"{python}.pid").read_text()), signal.SIGKILL)
        queue.wait(job, TIMEOUT)
        assert job.state is JobState.FAILED
        assert not list(folder.iterdir())
        until(lambda: start_time(pid) is None)


@POSIX
def test_a_killed_worker_is_a_failed_job(queue, folder, big_volume, slow_package, volume, package):
    job = queue.submit(big_volume, slow_package.path, ONE_THREAD)
    until(lambda: job.done >= 1, queue)
    os.kill(worker_pid(folder), signal.SIGKILL)
    queue.wait(job, TIMEOUT)
    assert job.state is JobState.FAILED
    assert "was killed (SIGKILL)" in job.error
    assert f"window {job.done} of 5" in job.error
    assert "memory" in job.error
    assert not list(folder.iterdir())
    assert run(queue, volume, package).state is JobState.DONE


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
        ("raise MemoryError", "MemoryError", "out of memory"),
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


def test_a_listener_may_use_the_queue(queue, volume, package):
    ends = []

    def listen(job):
        if job.finished:
            ends.append(job.id)
        elif job is last:
            queue.cancel(job)
        queue.poll()

    queue.listeners.append(listen)
    first, last = (queue.submit(volume, package.path, CPU) for _ in range(2))
    queue.wait(last, TIMEOUT)
    assert (first.state, last.state) == (JobState.DONE, JobState.CANCELLED)
    assert ends == [first.id, last.id]


def test_non_ascii_and_very_long_paths_work(tmp_path, volume):
    deep = tmp_path / "Ünïcode 画像 'quoted' & spaced"
    for index in range(4):
        deep = deep / f"{index}".ljust(120, "x")
    try:
        deep.mkdir(parents=True)
    except OSError:
        pytest.skip("this system has no paths that long")
    package = write_threshold_package(deep / "päckage")
    with JobQueue(folder=deep) as queue:
        assert run(queue, volume, package).state is JobState.DONE
    assert not list(deep.glob("mimsegment*"))


def test_the_module_for_slicer_is_not_executed_in_the_worker(folder, tmp_path, volume, package):
    (tmp_path / "MIMSegment.py").write_text("raise SystemExit('executed')")
    with JobQueue(env={"PYTHONPATH": str(tmp_path)}, folder=folder) as queue:
        assert run(queue, volume, package).state is JobState.DONE


def test_libraries_in_a_private_folder_are_seen_by_the_worker_alone(folder, tmp_path, volume,
                                                                    package):  # fmt: skip
    (tmp_path / "onnxruntime.py").write_text("raise ImportError('private')")
    with JobQueue(env={"PYTHONPATH": str(tmp_path)}, folder=folder) as queue:
        job = run(queue, volume, package)
    assert (job.state, job.error_kind) == (JobState.FAILED, "DeviceError")
    assert "ONNX Runtime" in job.error


@POSIX
def test_nobody_else_can_read_a_job(queue, folder, volume, package):
    queue.submit(volume, package.path, CPU)
    (jobs_folder,) = folder.iterdir()
    assert jobs_folder.stat().st_mode & 0o777 == 0o700


OWNER = """
import sys, time
sys.path[:0] = [{root!r}, {tests!r}]
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
            root=str(ROOT), tests=str(Path(__file__).parent), folder=str(folder),
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
    until(lambda: start_time(pid) is None)
    until(lambda: not list(folder.iterdir()))


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
