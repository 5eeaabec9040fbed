"""Steps of `MIMSegmentTest`, which runs in a real Slicer. ``test`` is the running test case."""

import time

import slicer


def segment_sample(test, workflow, study):
    """Load a `SampleStudy` and segment it with the package that it is for."""
    from MIMSegment.Logic.workflow import Step
    from MIMSegment.Widgets.application import install_runtime, load_sample

    install_runtime()
    load_sample(study)
    workflow.choose(study.package)
    workflow.use_scene()
    test.assertTrue(workflow.state.actions["run_anyway"], workflow.state.actions["run"].reason)
    workflow.run(anyway=True)
    wait_until(test, lambda: workflow.poll() or workflow.state.step is not Step.RUN)
    test.assertIsNone(workflow.state.error)


def verdicts(segmentation, segment_ids):
    """Slicer's own status of these segments of a segmentation node."""
    logic, segments = slicer.vtkSlicerSegmentationsModuleLogic, segmentation.GetSegmentation()
    return [logic.GetSegmentStatus(segments.GetSegment(i)) for i in segment_ids]


def end_panel(panel):
    """Do what Slicer does when it unloads a module."""
    panel.cleanup()
    slicer.app.moduleManager().disconnect(
        "moduleAboutToBeUnloaded(QString)", panel._onModuleAboutToBeUnloaded
    )
    panel.parent.deleteLater()


def wait_until(test, done, seconds=300):
    """Let Slicer go on until ``done()``; the test fails when that takes too long."""
    deadline = time.monotonic() + seconds
    while not done():
        test.assertLess(time.monotonic(), deadline, "It takes too long.")
        slicer.app.processEvents()
        time.sleep(0.02)
