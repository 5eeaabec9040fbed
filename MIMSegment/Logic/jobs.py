"""A queue of segmentations that run in child processes; the caller never waits and never crashes.

    queue = JobQueue()
    job = queue.submit(volume, package_path)
    ... queue.poll() every 50 to 100 ms, from a timer or a loop, until job.finished ...
    queue.close()

Nothing happens outside these calls: no thread, so it works in 3D Slicer, where Python threads get
no time while the event loop waits. Call a queue from one thread only.
"""

from __future__ import annotations

import atexit
import itertools
import logging
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path

from MIMSegment.Logic import gpu_runtime
from MIMSegment.Logic.engine import Segmentation
from MIMSegment.Logic.inference import InferenceOptions
from MIMSegment.Logic.job_files import (
    StudyFacts,
    StudyFiles,
    read_result,
    read_study_facts,
    write_job,
)
from MIMSegment.Logic.job_folder import create_folder, remove_folder, remove_stale_folders
from MIMSegment.Logic.volume import Geometry, Volume
from MIMSegment.Logic.worker_process import WorkerProcess, folder_is_gone

_logger = logging.getLogger(__name__)


class JobState(StrEnum):
    """Where a job stands; the last three are final."""

    QUEUED = "queued"
    RUNNING = "running"
    CANCELLING = "cancelling"
    DONE = "done"
    FAILED = "failed"
    CANCELLED = "cancelled"


@dataclass(eq=False)
class Job:
    """One segmentation, as `JobQueue.poll` last saw it.

    ``done`` of ``total`` windows (0 while unknown); ``eta`` the seconds left, None while unknown.
    ``device`` says what really calculates (library, device, threads, precision), once it is known,
    ``notices`` why it is not what was asked for: devices and sizes that failed.
    A failed job has ``error``, a sentence for the user, and ``error_kind``, its class in `errors`
    (or another name for what nobody foresaw). ``log`` is the end of what the worker printed, with
    the names of the user's files taken out. A done job has ``result`` on the grid of its input, and
    ``study`` what was found in files that the worker read.
    """

    id: int
    state: JobState = JobState.QUEUED
    done: int = 0
    total: int = 0
    message: str = "Waiting"
    eta: float | None = None
    device: str = ""
    error: str | None = None
    error_kind: str | None = None
    log: str = ""
    notices: list[str] = field(default_factory=list)
    result: Segmentation | None = field(default=None, repr=False)
    study: StudyFacts | None = field(default=None, repr=False)

    @property
    def finished(self) -> bool:
        """Whether nothing more will happen."""
        return self.state in (JobState.DONE, JobState.FAILED, JobState.CANCELLED)


Listener = Callable[[Job], None]


@dataclass(eq=False)
class _Task:
    job: Job
    folder: Path
    geometry: Geometry | None  # None until the worker has read the study
    reads: str  # what the worker reads, for messages
    names: dict[str, str]  # what a log must not show, and what it shows instead
    env: Mapping[str, str]
    worker: WorkerProcess | None = None
    has_result: bool = False
    first_window: tuple[int, float] | None = None  # windows done, when

    def apply(self, event: dict) -> None:
        """Bring the job up to date with one event of the worker."""
        job = self.job
        match event["event"]:
            case "error":
                job.error, job.error_kind = event["message"], event["kind"]
            case "device":
                job.device = event["description"]
            case "result":
                self.has_result = True
            case "notice":
                job.notices.append(event["message"])
                job.message = event["message"]
            case "stage" if job.state is JobState.RUNNING:
                job.message = event["message"]
            case "window" if job.state is JobState.RUNNING:
                self._progress(event["done"], event["of"], event["time"])

    def _progress(self, done: int, total: int, now: float) -> None:
        self.first_window = self.first_window or (done, now)
        since, began = self.first_window
        self.job.done, self.job.total = done, total
        self.job.message = f"Segmenting, part {done} of {total}"
        if done > since:
            self.job.eta = (now - began) / (done - since) * (total - done)


class JobQueue:
    """Runs jobs in the order of submission, at most ``max_running`` at a time.

    ``python`` is the interpreter of the workers (in 3D Slicer: PythonSlicer). Each sees the private
    runtimes (`gpu_runtime`) of its job's device, and ``env`` in its environment. ``folder`` is
    where the jobs' folders lie (default: the system's temporary folder). Listeners are called with
    a job each time it has changed. A ``with`` statement closes the queue.
    """

    def __init__(
        self,
        max_running: int = 1,
        python: str | Path = sys.executable,
        env: Mapping[str, str] | None = None,
        folder: Path | None = None,
    ):
        self.listeners: list[Listener] = []
        self._max_running = max_running
        self._python, self._env, self._folder = str(python), dict(env or {}), folder
        self._tasks: list[_Task] = []
        self._undeleted: list[Path] = []
        self._ids = itertools.count(1)
        self._changed: dict[Job, None] = {}
        remove_stale_folders(folder)
        atexit.register(self.close)

    def __enter__(self) -> JobQueue:
        return self

    def __exit__(self, *exception) -> None:
        self.close()

    @property
    def jobs(self) -> list[Job]:
        """The jobs that are not finished, in order."""
        return [task.job for task in self._tasks]

    def submit(
        self,
        study: Volume | StudyFiles,
        package_path: str | Path,
        options: InferenceOptions | None = None,
    ) -> Job:
        """Queue the segmentation of a volume (c, z, y, x; channels in the model's order), or of
        files that the worker reads and checks first.

        A volume's voxels are copied to the disk now, so the caller may change or drop them. Raises
        OutputError, and leaves nothing, when there is no room for them.
        """
        options = options or InferenceOptions()
        runtimes = gpu_runtime.runtimes_for(options.device)
        env = {**gpu_runtime.worker_environment(*runtimes), **self._env}
        folder = create_folder(self._folder)
        try:
            write_job(folder, study, Path(package_path), options)
        except BaseException:
            remove_folder(folder)
            raise
        files = study.paths if isinstance(study, StudyFiles) else (study.source,)
        names = dict.fromkeys(files, "<input>")
        names[str(Path(package_path).absolute())] = "<package>"
        geometry = None if isinstance(study, StudyFiles) else study.geometry
        job = Job(next(self._ids))
        self._tasks.append(_Task(job, folder, geometry, ", ".join(files), names, env))
        return job

    def cancel(self, job: Job) -> bool:
        """Stop ``job`` wherever it stands; false when it had finished already.

        A queued job is gone at once. A running one is ``cancelling`` and within half a second of
        polling ``cancelled``, even if its result came in between.
        """
        task = next((task for task in self._tasks if task.job is job), None)
        if task is None:
            return False
        if task.worker is None:
            self._finish(task, JobState.CANCELLED, "Cancelled")
        elif job.state is JobState.RUNNING:
            job.state, job.message, job.eta = JobState.CANCELLING, "Stopping", None
            task.worker.request_stop()
        self._changed[job] = None
        self._tell_changes()
        return True

    def poll(self) -> None:
        """Read what the workers reported, finish what has ended, start what can start."""
        self._undeleted = [f for f in self._undeleted if not remove_folder(f)]
        for task in [task for task in self._tasks if task.worker is not None]:
            self._update(task)
        self._start_waiting()
        self._tell_changes()

    def wait(self, job: Job, timeout: float | None = None) -> bool:
        """Poll until ``job`` has finished; false when ``timeout`` seconds were not enough."""
        deadline = None if timeout is None else time.monotonic() + timeout
        while True:
            self.poll()
            if job.finished:
                return True
            if deadline is not None and time.monotonic() >= deadline:
                return False
            time.sleep(0.01)

    def close(self) -> None:
        """Cancel everything and return when no worker and no folder is left."""
        atexit.unregister(self.close)
        for job in reversed(self.jobs):
            self.cancel(job)
        for job in self.jobs:
            self.wait(job)
        for _ in range(20):
            self._undeleted = [f for f in self._undeleted if not remove_folder(f)]
            if not self._undeleted:
                break
            time.sleep(0.05)

    def _start_waiting(self) -> None:
        running = sum(task.worker is not None for task in self._tasks)
        for task in [task for task in self._tasks if task.worker is None]:
            if running >= self._max_running:
                break
            try:
                task.worker = WorkerProcess(task.folder, self._python, task.env)
            except OSError as error:
                why = (
                    f"The segmentation could not be started with {self._python} "
                    f"({error.strerror or error}); check the installation."
                )
                gone = not task.folder.exists()
                self._fail(task, "DeviceError", folder_is_gone(task.folder) if gone else why)
            else:
                task.job.state, task.job.message = JobState.RUNNING, "Starting"
                running += 1
            self._changed[task.job] = None

    def _update(self, task: _Task) -> None:
        ended = task.worker.ended()  # asked first, so that no event comes after the last reading
        events = task.worker.read_events()
        for event in events:
            task.apply(event)
        if ended:
            self._conclude(task)
        else:
            task.worker.enforce_stop()
        if events or ended:
            self._changed[task.job] = None

    def _conclude(self, task: _Task) -> None:
        job, worker = task.job, task.worker
        worker.release()
        job.log = worker.read_log(task.names)
        if job.state is JobState.CANCELLING:
            job.error = job.error_kind = None
            self._finish(task, JobState.CANCELLED, "Cancelled")
        elif not task.has_result:
            kind = job.error_kind or "DeviceError"
            self._fail(task, kind, job.error or worker.failure(job.message, job.log, task.reads))
        else:
            try:
                if task.geometry is None:
                    job.study = read_study_facts(task.folder)
                    task.geometry = job.study.geometry
                job.result = read_result(task.folder, task.geometry)
            except (OSError, ValueError, MemoryError) as error:
                self._fail(task, "OutputError", f"The result could not be read ({error}).")
            else:
                self._finish(task, JobState.DONE, "Done")

    def _fail(self, task: _Task, kind: str, sentence: str) -> None:
        task.job.error_kind, task.job.error = kind, sentence
        self._finish(task, JobState.FAILED, "Failed")

    def _finish(self, task: _Task, state: JobState, message: str) -> None:
        self._tasks.remove(task)
        if not remove_folder(task.folder):
            self._undeleted.append(task.folder)
        task.job.state, task.job.message, task.job.eta = state, message, None

    def _tell_changes(self) -> None:
        """A listener may call the queue again, which then tells the rest in its stead."""
        while self._changed:
            job = next(iter(self._changed))
            del self._changed[job]
            for listener in list(self.listeners):
                try:
                    listener(job)
                except Exception:
                    _logger.exception("A listener failed on job %s", job.id)
