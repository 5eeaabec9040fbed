"""The whole job as one object that both front-ends show: choose, check, run, review, export.

    workflow = Workflow(gateway, queue, Offers(PackageStore()))
    workflow.listeners.append(lambda: render(workflow.state))
    workflow.choose("phantom-prostate")
    workflow.open_study([folder])
    workflow.run()
    ... workflow.poll() every 50 to 100 ms, from a timer ...
    workflow.review.accept("Segment_1")
    workflow.export(Export.SCENE, path)

No Qt, no MRML, no thread of its own. A front-end draws `Workflow.state` and calls the methods; one
whose `Action` is disabled does nothing. Failures are in ``state.error`` and are never raised.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import Executor
from dataclasses import replace
from functools import partial
from pathlib import Path

from MIMSegment.Logic.audit import AuditLog
from MIMSegment.Logic.candidates import find_candidates
from MIMSegment.Logic.finding import Finding
from MIMSegment.Logic.image_source import ImageSource
from MIMSegment.Logic.jobs import Job, JobQueue, JobState
from MIMSegment.Logic.offers import Offers, require_installed
from MIMSegment.Logic.package import ModelPackage
from MIMSegment.Logic.review import Review
from MIMSegment.Logic.run_times import RunTimes
from MIMSegment.Logic.workflow_actions import actions_of, no_alert
from MIMSegment.Logic.workflow_attempts import Attempts
from MIMSegment.Logic.workflow_checks import Checked, Checks
from MIMSegment.Logic.workflow_exports import reviewed_case, write_export
from MIMSegment.Logic.workflow_inputs import StudyInputs
from MIMSegment.Logic.workflow_ports import OpenResult, SceneGateway
from MIMSegment.Logic.workflow_run import Run, place, submit
from MIMSegment.Logic.workflow_state import (
    Export,
    PackageCard,
    Problem,
    Progress,
    Step,
    WorkflowSettings,
    WorkflowState,
)
from MIMSegment.Logic.workflow_times import Estimates

__all__ = ["Export", "Step", "Workflow", "WorkflowSettings", "WorkflowState"]

_SCENE = "Volumes of the scene"


class Workflow(Attempts):
    """One user's way through one study after the other.

    ``reviewer`` is the name for the audit log, only if the user has set one for that purpose.
    ``executor`` runs what takes a while and touches no scene (reading files); without it that is
    done at once, which is right in 3D Slicer, whose volumes are in memory already. Call everything
    from one thread.
    """

    def __init__(
        self,
        gateway: SceneGateway,
        queue: JobQueue,
        offers: Offers,
        reviewer: str = "",
        executor: Executor | None = None,
        checks: Checks | None = None,
    ):
        super().__init__(executor)
        self.review: Review | None = None
        self.offers = offers
        self.settings = gateway.load_settings()
        self._gateway, self._queue, self._reviewer = gateway, queue, reviewer
        self._checks = checks or Checks()
        self._estimates = Estimates(RunTimes(offers.store.location() / ".run_times.json"))
        self._step = Step.CHOOSE
        self._card: PackageCard | None = None
        self._package: ModelPackage | None = None
        self._inputs = StudyInputs(gateway)
        self._checked: Checked | None = None  # the inputs, as the next run takes them
        self._findings: tuple[Finding, ...] = ()  # about inputs or result: what is shown
        self._run: Run | None = None
        self.result: OpenResult | None = None
        self.log: AuditLog | None = None
        queue.listeners.append(lambda job: self._tell() if job is self._job else None)

    @property
    def _job(self) -> Job | None:
        return self._run.job if self._run else None

    @property
    def state(self) -> WorkflowState:
        """Everything to be shown, at this moment."""
        volume = self._checked.volume if self._checked else None
        state = WorkflowState(
            step=self._step,
            package=self._card,
            study=self._inputs.title,
            inputs=self._inputs.rows(),
            findings=self._findings,
            device=self._estimates.line(self._card, self.settings.device, volume, self._job),
            progress=Progress.of(self._job) if self._job else None,
            busy=self._waiting[1] if self._waiting else "",
            error=self._error,
            message=self._message,
            review=self.review.state if self.review else None,
            result=self.result.id if self.result else "",
            catalog_warnings=self.offers.warnings,
        )
        actions = actions_of(state, self._inputs.problem, self._checked, self.result)
        return replace(state, actions=actions)

    @property
    def images(self) -> list[ImageSource]:
        """The images of the opened study."""
        return self._inputs.sources

    @property
    def input_images(self) -> list[tuple[str, ImageSource]]:
        """Name and image of each input of the model. Raises InputError."""
        specs = self._package.spec.inputs if self._package else ()
        return list(zip([spec.name for spec in specs], self._inputs.used(), strict=True))

    @property
    def results(self) -> list[tuple[str, str]]:
        """(ID, name) of the segmentations in the scene that can be reviewed (again)."""
        return self._gateway.results()

    def choose(self, name: str) -> None:
        """Choose a package by "id", "id@version" or path.

        It stays at this step while its license must be acknowledged or its files downloaded.
        """
        if self._may("choose"):
            self._try(self._choose, name)

    def restore(self) -> None:
        """Choose the package of the scene's settings again, if it is here; for a loaded scene."""
        known = {card.key for card in self.offers.search()}
        if self.settings.package in known and self._may("choose"):
            self._try(self._choose, self.settings.package)

    def acknowledge(self) -> None:
        """The user has read the license of the chosen package."""
        if self._may("acknowledge"):
            self._try(self.offers.store.licenses.acknowledge, self._card.entry)
            self._try(self._choose, self._card.key)

    def install(
        self,
        progress: Callable[[int, int], None] | None = None,
        cancel: Callable[[], bool] | None = None,
    ) -> None:
        """Download the chosen package; ``progress`` hears bytes done and in all, ``cancel`` is
        asked whether to stop."""
        if self._may("install"):
            card = self._card
            self._wait(
                f"Downloading {card.entry.title}",
                lambda: self.offers.store.install(card.entry, progress, cancel),
                lambda path: self._choose(card.key),
            )

    def remove(self) -> None:
        """Delete the chosen package from the disk, unless it came with the program."""
        if self._may("remove"):
            self._try(self._remove)

    def open_study(self, paths: Sequence[str | Path], title: str = "") -> None:
        """Look for images in these files and folders and match them to the inputs.

        ``title`` names the study for display; by default that is done by the paths' own names.
        """
        if self._may("open_study"):
            title = title or ", ".join(Path(path).name or str(path) for path in paths)
            self._wait(
                "Looking for images",
                lambda: find_candidates(paths),
                lambda sources: self._opened(sources, title),
            )

    def close_study(self) -> None:
        """Forget the opened images and end the review, whose segments stay in the scene."""
        if not self._may("open_study"):
            return
        if self.review is not None:
            self.review.close()
        self.review = self.log = self.result = None
        self._error, self._message = None, ""
        self._opened([], "")

    def use_scene(self) -> None:
        """Match the volumes that are in the scene, as it is now, to the inputs."""
        if self._may("open_study"):
            self._try(lambda: self._opened(self._gateway.volumes(), _SCENE))

    def follow_scene(self) -> None:
        """Match anew when volumes have come to the scene, left it or been renamed, as long as they
        are the images of the study; forget what was read of an input that has been changed. For a
        timer."""
        now, before = self._gateway.volumes(), self._inputs.sources
        same = [(v.key, v.name) for v in now] == [(v.key, v.name) for v in before]
        if self._inputs.title == _SCENE and not same:
            self.use_scene()
        elif self._checked and not self._inputs.unchanged and self._may("open_study"):
            self._checked = None
            self._findings = self._findings if self.review else ()
            self._tell()

    def assign(self, input_name: str, source_id: str) -> None:
        """Take this image for an input; "" leaves it to the matcher again."""
        if self._may("assign"):
            chosen = {n: i for n, i in self.settings.inputs.items() if n != input_name}
            if source_id:
                chosen[input_name] = source_id
            self._set(inputs=chosen)
            self._try(self._rematch)

    def change(self, **settings) -> None:
        """Set fields of `WorkflowSettings`: device, precision, mirror, structures, target."""
        if self._may("choose"):
            self._set(**settings)
            self._tell()

    def check(self) -> None:
        """Read the inputs and say in ``state.findings`` how they fit the model."""
        if self._may("check"):
            self._check(lambda: None)

    def run(self, anyway: bool = False) -> None:
        """Segment. Inputs are checked first; with alerts it goes on only if ``anyway``."""
        if not self._may("run_anyway" if anyway else "run"):
            return
        known = self._checked is not None and self._inputs.unchanged
        (self._try if known else self._check)(partial(self._submit, anyway))

    def cancel(self) -> None:
        """Stop the running segmentation."""
        if self._may("cancel"):
            self._queue.cancel(self._job)
            self._tell()

    def go(self, step: Step) -> None:
        """Show another step, back or forth, as far as there is something to show."""
        if self._may(f"go_{step}"):
            self._step = step
            self._tell()

    def open_result(self, id: str) -> None:
        """Review a segmentation of the scene again, by its ID."""
        if self._may("open_result"):
            self._try(lambda: self._begin_review(self._gateway.open_result(id)))

    def undo_result(self) -> None:
        """Take the last result back: the new segmentation is removed, or the one that it was
        added to is as it was before."""
        if self._may("undo_result"):
            self._try(self._undo_result)

    def export(self, kind: Export, path: str | Path, **options) -> None:
        """Write the reviewed result to ``path``; ``state.message`` says what was written.

        ``prior`` is the ID of a result in the scene to compare volumes with, ``psa`` in ng/mL.
        """
        if self._may(f"export_{kind}"):
            self._try(self._export, kind, Path(path), options)

    def poll(self) -> None:
        """Notice what has happened meanwhile; for a timer, every 50 to 100 ms."""
        self._go_on()
        if self._job is not None:
            self._queue.poll()
            self._follow_job()
        if self.review is not None:
            self.review.poll()

    def close(self) -> None:
        """End everything that runs."""
        self._queue.close()
        if self.review is not None:
            self.review.close()

    def _choose(self, name: str) -> None:
        self._card = card = self.offers.find(name)
        self._package = None
        self._rematch()
        self._step = Step.CHOOSE
        if card.needs_acknowledgment or card.path is None:
            return
        self._package = require_installed(card)
        names = {label.value: label.name for label in self._package.labels}
        self._card = replace(card, structures=names)
        if self.settings.package != card.key:
            self._set(package=card.key, structures=())
        self._step = Step.CHECK
        self._rematch()

    def _remove(self) -> None:
        entry = self._card.entry
        self.offers.store.remove(entry.id, entry.version)
        self._card = self._package = self._checked = None
        self._findings, self._step = (), Step.CHOOSE
        self._message = f"{entry.title} was removed from the disk."

    def _opened(self, sources, title: str) -> None:
        self._inputs.open(sources, title)
        self._rematch()
        if self._package is not None:
            self._step = Step.CHECK

    def _rematch(self) -> None:
        self._checked, self._findings = None, self.result.findings if self.result else ()
        if self._package is not None:
            self._inputs.require(self._package.spec.inputs, self.settings.inputs)

    def _check(self, then: Callable[[], None]) -> None:
        package, inputs = self._package, self._inputs

        def show(checked: Checked) -> None:
            self._checked, self._findings = checked, checked.findings
            names = [spec.name for spec in package.spec.inputs]
            self._gateway.show_inputs(names, inputs.used(), checked.images)
            self._step = Step.CHECK
            then()

        self._wait("Reading the images", lambda: self._checks.inputs(inputs.read(), package), show)

    def _submit(self, anyway: bool) -> None:
        fits = no_alert(self._checked)
        if not (anyway or fits):
            self._message = f"Nothing was segmented. {fits.reason}"
            return
        self._run = submit(
            self._queue, self._gateway, self._package, self.settings, self._inputs.used(),
            self._checked,
        )  # fmt: skip
        self._estimates.begin(self._card.key, self.settings.device, self._checked.volume)
        self._step = Step.RUN

    def _follow_job(self) -> None:
        if not self._job.finished:
            return
        run, self._run = self._run, None
        job = run.job
        self._estimates.end(job)
        self._step = Step.CHECK
        if job.state is JobState.DONE:
            self._try(self._show_result, run)
        elif job.state is JobState.CANCELLED:
            self._message = "The segmentation was cancelled; nothing was changed."
            self._tell()
        else:
            self._error = Problem(job.error, job.error_kind or "", job.log)
            self._tell()

    def _show_result(self, run: Run) -> None:
        shown, message = place(self._gateway, run.result(self._checks), run.target, self.review)
        notices = " ".join(run.job.notices)
        self._message = f"{message} {notices}".strip()
        self._begin_review(shown)
        said = {"notices": notices} if notices else {}
        self.log.record("segmented", device=run.job.device, **said)

    def _begin_review(self, result: OpenResult) -> None:
        if self.review is not None:
            self.review.close()
        self.result, self._findings = result, result.findings
        store = result.store
        self.log = AuditLog(result.provenance, None, [store.log], self._reviewer, store.logged())
        self.review = Review(
            store, result.confidence, result.doubtful, result.findings, self.log.record
        )
        self.review.listeners.append(self._tell)
        self._step = Step.REVIEW

    def _undo_result(self) -> None:
        self.review.close()
        self._gateway.undo_result()
        self.review = self.log = self.result = None
        self._findings = self._checked.findings if self._checked else ()
        self._step = Step.CHECK
        self._message = "The result was taken back."

    def _export(self, kind: Export, path: Path, options: dict) -> None:
        self.review.finish_edit()
        case = partial(reviewed_case, self.result, self.review.state, self._gateway, options)
        written = write_export(kind, path, case, self._gateway, self.result.store, self.log)
        self._step = Step.EXPORT
        self._message = f"Wrote {written}."

    def _set(self, **settings) -> None:
        self.settings = replace(self.settings, **settings)
        self._gateway.save_settings(self.settings)

    def _may(self, action: str) -> bool:
        return bool(self.state.actions[action])
