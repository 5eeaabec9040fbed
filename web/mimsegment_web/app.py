"""The page's server: one process, one user, one scene.

    app = App(Settings(study=Path("study")))
    asyncio.run(app.serve())

The page shows `Workflow.state` and sends back what the user does; nothing is decided here. Without
a browser, the same runs by `await app.start()`, `app.actions` and `await app.settle()`.
"""

from __future__ import annotations

import asyncio
import itertools
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from pathlib import Path

os.environ["TRAME_ARGS"] = ""  # trame must not read our command line
os.environ.setdefault("WSLINK_READY_MSG", "")

from trame.app import get_server
from trame.ui.html import DivLayout
from trame_slicer import module as trame_slicer_module
from trame_slicer.core import SlicerApp
from vtkmodules.vtkCommonCore import vtkLogger, vtkObject

from MIMSegment.Logic.candidates import find_candidates
from MIMSegment.Logic.errors import InputError
from MIMSegment.Logic.jobs import JobQueue
from MIMSegment.Logic.offers import Offers
from MIMSegment.Logic.offscreen import draw_without_screen
from MIMSegment.Logic.scene_gateway import MrmlGateway
from MIMSegment.Logic.store import PackageStore
from MIMSegment.Logic.workflow import Workflow
from MIMSegment.Logic.workflow_failure import explain
from mimsegment_web import page
from mimsegment_web.access import Access
from mimsegment_web.actions import Actions
from mimsegment_web.autosave import Autosave
from mimsegment_web.downloads import Downloads
from mimsegment_web.settings import Settings
from mimsegment_web.study import Study
from mimsegment_web.uploads import Uploads
from mimsegment_web.view_state import ViewState
from mimsegment_web.workflow_view import WorkflowView

_INTERVAL, _RUNNING = 0.06, 0.03  # seconds between two looks at what has changed
_numbers = itertools.count(1)


class App:
    """Scene, workflow, views and page, put together."""

    def __init__(self, settings: Settings):
        draw_without_screen()
        _quiet_vtk()
        self.settings = settings
        self.server = get_server(f"mimsegment{next(_numbers)}", client_type="vue3")
        self.server.enable_module(trame_slicer_module)
        self.server.enable_module(page.MODULE)
        self._readers = ThreadPoolExecutor(1, "reading")
        self._writers = ThreadPoolExecutor(1, "saving")
        self.slicer = SlicerApp()
        self.gateway = MrmlGateway(self.slicer.scene)
        self.queue = JobQueue()
        self.workflow = Workflow(
            self.gateway,
            self.queue,
            Offers(PackageStore(settings.packages)),
            settings.reviewer,
            self._readers,
        )
        state = self.server.state
        state.trame__title = "MIM Segment"
        state.trame__template_error = page.without_server()
        self.view = ViewState(state, self.server, self.slicer)
        self.study = Study(self.workflow, self.gateway, settings.output, Autosave(self._writers))
        self.downloads = Downloads()
        self.uploads = Uploads(settings.upload_limit, self._uploaded)
        self.workflow_view = WorkflowView(state, self.workflow, self.study, self.uploads.plain)
        self.access = Access(settings.host)
        self.actions = Actions(self)
        self.actions.register(self.server)
        self.study.began = self.actions.begin_review
        with DivLayout(self.server) as layout:
            layout.root.add_child(page.markup())
        self.server.controller.on_server_bind.add(self._bind)
        self.server.controller.on_server_ready.add(self._ready)
        self._ready_callback: Callable[[str], None] = lambda url: None
        self._ticking: asyncio.Task | None = None

    async def serve(self, ready: Callable[[str], None] = lambda url: None) -> None:
        """Serve the page until `stop` or a signal; ``ready`` hears the address."""
        self._ready_callback = ready
        await self.start()
        await self.server.start(
            port=self.settings.port,
            host=self.settings.host,
            timeout=0,
            open_browser=False,
            show_connection_info=False,
            thread=True,  # leaves the signals to our command
            exec_mode="coroutine",
        )

    async def start(self) -> None:
        """Begin to follow the workflow, and open what was asked for on the command line."""
        self._ticking = asyncio.create_task(self._tick())
        if self.settings.model:
            self.actions.choose(self.settings.model)
        if self.settings.study is not None:
            self.actions.open_paths([self.settings.study])
        self.refresh()

    async def settle(
        self, until: Callable[[], bool] | None = None, timeout: float | None = 60
    ) -> None:
        """Return when nothing is being waited for (or ``until`` holds). Raises TimeoutError."""

        def idle() -> bool:
            state = self.workflow.state
            return not state.busy and state.progress is None and not self.study.saving

        async with asyncio.timeout(timeout):
            while True:
                while not (until or idle)():
                    await asyncio.sleep(_INTERVAL / 2)
                self.refresh()  # may begin to read images
                if (until or idle)():
                    return

    def refresh(self) -> None:
        """Bring the page up to date with the workflow, the scene and the views."""
        with self.server.state:
            self.study.follow()
            self.workflow_view.update()
            self.view.update(self.workflow)

    def close(self) -> None:
        """End all that runs: the segmentation, the writing, and the uploads' folder."""
        if self._ticking is not None:
            self._ticking.cancel()
        self.study.save_now()
        self.workflow.close()
        self.uploads.close()
        for pool in (self._readers, self._writers):
            pool.shutdown(wait=True, cancel_futures=False)

    def show_problem(self, error: Exception) -> None:
        """Say on the page what went wrong; for the unforeseen there is a report to copy."""
        with self.server.state as state:
            state.problem = asdict(explain(error))

    async def _tick(self) -> None:
        while True:
            if not self.actions.painting:  # counting voxels would make the brush stutter
                try:
                    self.workflow.poll()
                    self.refresh()
                except Exception as error:  # or the page would stand still without a word
                    self.show_problem(error)
            await asyncio.sleep(_RUNNING if self.queue.jobs else _INTERVAL)

    def _bind(self, server) -> None:
        self.access.install(server.app)
        self.uploads.install(server.app)
        self.downloads.install(server.app)

    def _ready(self, **_) -> None:
        self.access.port = self.server.port
        self._ready_callback(self.access.url)

    async def _uploaded(self, folder: Path, title: str) -> None:
        if self.workflow.review is not None:  # which a wrong file must not end
            await asyncio.to_thread(find_candidates, [folder])
        action = self.workflow.state.actions["open_study"]
        if not action:
            raise InputError(action.reason)
        self.actions.open_paths([folder], title)


def _quiet_vtk() -> None:
    """VTK reports to the terminal what only a developer of VTK can use."""
    vtkLogger.SetStderrVerbosity(vtkLogger.VERBOSITY_ERROR)
    vtkObject.GlobalWarningDisplayOff()
