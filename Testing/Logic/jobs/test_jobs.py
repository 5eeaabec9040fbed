"""Real child processes on a real package; what breaks them is put between queue and worker."""

import numpy as np
import pytest

from job_cases import (
    BLOCKED,
    BUSY,
    CPU,
    NO_STDIN,
    ONE_THREAD,
    POSIX,
    TIMEOUT,
    events,
    hanging,
    has_event,
    poll_until,
    run,
    worker_pid,
)
from MIMSegment.Logic.engine import segment
from MIMSegment.Logic.inference import InferenceOptions
from MIMSegment.Logic.jobs import JobQueue, JobState
from MIMSegment.Logic.processes import start_time
from MIMSegment.Logic.runtime import OnnxSession
from MIMSegment.Logic.volume import Geometry, Volume
from tiny_package import threshold_spec, write_threshold_package
from waiting import wait_until


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
    poll_until(lambda: job.done >= 3, queue)
    reported = [(e["done"], e["of"]) for e in events(folder) if e["event"] == "window"]
    assert reported == [(n, 5) for n in range(1, len(reported) + 1)]
    shown = [window for window in seen if window[1]]
    assert {window[:2] for window in shown} <= set(reported)
    assert shown[-1][2] > 0
    assert f"part {job.done} of 5" in job.message


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
    poll_until(lambda: job.done >= 1, queue)
    cancelled(queue, job, folder, worker_pid(folder))


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
        poll_until(lambda: job.message.startswith("Runs on"), queue)
        (job_folder,) = folder.iterdir()
        (job_folder / "cancel").touch()  # beside the queue, which would kill
        wait_until(has_event(folder, "cancelled"))


def test_cancelled_after_the_result_was_there(queue, folder, volume, package):
    job = queue.submit(volume, package.path, CPU)
    queue.poll()
    wait_until(has_event(folder, "result"))
    cancelled(queue, job, folder)


@POSIX
@pytest.mark.parametrize("hang", [BUSY, BLOCKED], ids=["busy", "blocked"])
def test_cancelled_while_nothing_listens(interpreter, folder, volume, package, hang):
    with JobQueue(python=interpreter(hanging(hang)), folder=folder) as queue:
        job = queue.submit(volume, package.path, CPU)
        poll_until(lambda: job.done == 1, queue)
        cancelled(queue, job, folder, worker_pid(folder))


@POSIX
def test_a_launcher_that_passes_no_stdin_on_does_not_disturb(interpreter, folder, big_volume,
                                                             volume, package,
                                                             slow_package):  # fmt: skip
    python = interpreter(shell=NO_STDIN)
    with JobQueue(python=python, folder=folder) as queue:
        assert run(queue, volume, package).state is JobState.DONE
        job = queue.submit(big_volume, slow_package.path, ONE_THREAD)
        poll_until(lambda: job.done >= 1, queue)
        cancelled(queue, job, folder, worker_pid(folder))


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


def test_non_ascii_and_very_long_paths_work(deep_folder, volume):
    package = write_threshold_package(deep_folder / "päckage")
    with JobQueue(folder=deep_folder) as queue:
        assert run(queue, volume, package).state is JobState.DONE
    assert not list(deep_folder.glob("mimsegment*"))


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


def test_a_private_runtime_is_seen_by_the_workers_of_its_device(folder, tmp_path, volume, package,
                                                                monkeypatch):  # fmt: skip
    monkeypatch.setenv("MIMSEGMENT_HOME", str(tmp_path / "home"))
    runtime = tmp_path / "home" / "runtimes" / "openvino"
    runtime.mkdir(parents=True)
    (runtime / "runtime.json").write_text('{"device": "openvino", "packages": {}}')
    (runtime / "openvino.py").write_text("raise ImportError('private')")
    with JobQueue(folder=folder) as queue:
        job = queue.submit(volume, package.path, InferenceOptions("openvino"))
        said = []
        queue.listeners.append(lambda job: said.append(job.message))
        queue.wait(job, TIMEOUT)
        assert job.state is JobState.DONE and "CPU" in job.device
        reason = "OpenVINO is installed but cannot be loaded (private)"
        assert any(reason in message for message in said)
        assert len(job.notices) == 1 and reason in job.notices[0]  # still there with the result
        assert run(queue, volume, package).state is JobState.DONE


@POSIX
def test_nobody_else_can_read_a_job(queue, folder, volume, package):
    queue.submit(volume, package.path, CPU)
    (jobs_folder,) = folder.iterdir()
    assert jobs_folder.stat().st_mode & 0o777 == 0o700
