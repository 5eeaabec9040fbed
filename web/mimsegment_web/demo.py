"""The page on a phantom prostate study or a folder of images; with --headless without a browser.

    python -m mimsegment_web.demo [FOLDER] [--headless] [-o demo]

Headless, the actions behind the page's buttons are taken one after the other, and the review, a
report, a scene and pictures are written. What it decides there shows the way and judges nothing.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import sys
from pathlib import Path

from MIMSegment.Logic.errors import InputError, MIMSegmentError
from MIMSegment.Logic.samples import sample_study
from MIMSegment.Logic.workflow_state import Export
from mimsegment_web import command
from mimsegment_web.settings import Settings

SAMPLE = "phantom-prostate"
_EXPORTS = ("dicom_seg", "segmentation", "scene", "table", "report")
_COMMENT = "Accepted by the demo; nobody has looked at it."


def main(argv: list[str] | None = None) -> int:
    """Run the demo; 0, or 2 after one line about what went wrong."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("study", nargs="?", type=Path, help="images to open instead of a phantom's")
    parser.add_argument("--headless", action="store_true", help="no browser: write the results")
    parser.add_argument("-o", "--output", type=Path, default=Path("demo"), help="folder to write")
    arguments = parser.parse_args(argv)
    try:
        if arguments.headless:
            asyncio.run(_rehearse(_settings(arguments.study, arguments.output)))
        else:
            _open_page(arguments.study, arguments.output)
    except MIMSegmentError as error:
        print(f"demo: error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130
    return 0


def _settings(study: Path | None, output: Path) -> Settings:
    output.mkdir(parents=True, exist_ok=True)
    sample = sample_study(SAMPLE)
    model = "" if study else sample.package
    if study is not None and not study.exists():
        raise InputError(f"{study} does not exist.")
    return Settings(study=study or sample.folder, model=model, output=output, reviewer="demo")


def _open_page(study: Path | None, output: Path) -> None:
    settings = _settings(study, output)
    parser = argparse.ArgumentParser()
    command.add_options(parser)
    options = [str(settings.study), "--output", str(output)]
    command.run(parser.parse_args([*options, *(["-m", settings.model] if settings.model else [])]))


async def _rehearse(settings: Settings) -> None:
    from mimsegment_web.app import App

    app = App(settings)
    try:
        await app.start()
        await _take_all_steps(app)
    finally:
        app.close()


async def _take_all_steps(app) -> None:
    await app.settle(timeout=None)  # large studies take their time
    _raise_problem(app)
    if app.workflow.state.package is None:
        app.actions.choose(_fitting_package(app))
        await app.settle(timeout=None)
        _raise_problem(app)
    _tell_inputs(app)
    await _segment(app)
    _review(app)
    await app.settle()
    written = [*_export(app), *_pictures(app)]
    for path in written:
        print(f"Wrote {path}", flush=True)
    for report in (path for path in written if path.suffix == ".html"):
        print(f"Open {report} in a browser to read the result.", flush=True)


def _raise_problem(app) -> None:
    problem = app.workflow.state.error
    if problem is not None:
        raise InputError(problem.message)


def _fitting_package(app) -> str:
    """The key of the first installed package for which the study has all images."""
    for card in app.server.state.cards:
        if card["fits"] and card["installed"]:
            return card["key"]
    raise InputError(
        f"No installed model fits {app.workflow.state.study}; `mimsegment models` lists what each "
        "one needs."
    )


def _tell_inputs(app) -> None:
    state = app.workflow.state
    print(f"{state.package.entry.title} on {state.study}", flush=True)
    for row in state.inputs:
        print(f"  {row.name}: {row.problem or row.reason}", flush=True)
    _tell(state.findings)


def _tell(findings) -> None:
    for finding in findings:
        print(f"  {finding.severity}: {finding.message}", flush=True)


async def _segment(app) -> None:
    before = app.workflow.state.findings
    can = app.workflow.state.actions
    if not can["run"] and not can["run_anyway"]:
        raise InputError(f"{can['run'].reason}")
    (app.actions.run if can["run"] else app.actions.run_anyway)()
    told = ""
    while app.workflow.review is None:
        with contextlib.suppress(TimeoutError):
            await app.settle(timeout=0.5)
        _raise_problem(app)
        progress = app.workflow.state.progress
        if progress is not None and progress.message != told:
            told = progress.message
            print(f"  {told}", flush=True)
    found = app.workflow.state.findings
    _tell(f for f in found if f.label is None and f not in before)


def _review(app) -> None:
    """Go to each doubtful place, accept what no check finds fault with, correct the next one."""
    actions, review = app.actions, app.workflow.review
    for _ in review.state.places:
        actions.next_place()
    print(f"{len(review.state.places)} doubtful places looked at", flush=True)
    items = review.state.items
    for item in items:
        volume = f"{item.volume_ml:.2f} mL"
        print(f"  {item.name}: {volume}", flush=True)
        for finding in item.findings:
            print(f"    {finding.severity}: {finding.message}", flush=True)
    sound = next((item.id for item in items if not item.findings), "")
    if sound:
        actions.comment(sound, _COMMENT)
        actions.accept(sound)
    left = next((item.id for item in items if item.id != sound and item.volume_ml > 0), "")
    if left:
        actions.edit(left)
        actions.smooth()
        actions.finish_edit()


def _export(app) -> list[Path]:
    from mimsegment_web.workflow_view import EXPORTS

    written = []
    for kind in _EXPORTS:
        action = app.workflow.state.actions[f"export_{kind}"]
        if not action:
            print(f"No {EXPORTS[Export(kind)][0]}: {action.reason}", flush=True)
        else:
            app.actions.export(kind)
            _raise_problem(app)
            written.append(Path(app.server.state.written[0]["path"]))
    return written


def _pictures(app) -> list[Path]:
    """What the page's views show at the end: slices.png, surfaces.png."""
    import numpy as np

    from MIMSegment.Logic.scene import render_3d, render_slice, save_png
    from mimsegment_web.views import SLICES

    app.view.set_3d(True)
    scene, node, image = app.slicer.scene, app.view.segmentation, app.view.views.image
    paths = [app.study.folder / "slices.png", app.study.folder / "surfaces.png"]
    slices = [render_slice(scene, image, node, view, size=(460, 460)) for view in SLICES]
    save_png(np.concatenate(slices, axis=1), paths[0])
    save_png(render_3d(scene, node, size=(900, 560)), paths[1])
    return paths


if __name__ == "__main__":
    sys.exit(main())
