"""Real studies from DICOM to saved results, with the bundled packages in the real worker."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("slicer", reason="the slicer-core wheel is not installed")

from editor_case import Editor
from flow_cases import rows, run, start
from MIMSegment.Logic.audit import log_path, read_log
from MIMSegment.Logic.finding import Severity
from MIMSegment.Logic.package import load_package
from MIMSegment.Logic.scene import labels_from_segmentation, new_scene
from MIMSegment.Logic.scene_gateway import MrmlGateway
from MIMSegment.Logic.workflow import Export, Step
from reopen_case import contents

pytestmark = pytest.mark.real_data
HERE = Path(__file__).parent
ACCEPTED, EDITED, OPEN = "transition zone", "peripheral zone", "lesion 1"
SERIES = {"T2w": "t2w", "ADC": "adc", "DWI": "hbv"}
REVIEWER = 'Jo "JM" Müller'


def reopened(path: Path) -> dict:
    """What a new process finds in a saved scene."""
    paths = os.pathsep.join([str(HERE.parents[1]), str(HERE)])
    done = subprocess.run(
        [sys.executable, HERE / "reopen_case.py", path], capture_output=True, text=True,
        env={**os.environ, "PYTHONPATH": paths},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def review(workflow, scene) -> None:
    """Accept one structure with a comment, edit one with strokes, reject all lesions but one."""
    found, steps = rows(workflow), workflow.review
    node, image = workflow.result.store.node, scene.GetFirstNodeByName("T2w")
    steps.accept(found[ACCEPTED].id)
    steps.comment(found[ACCEPTED].id, 'base "cut", see ADC')
    before = labels_from_segmentation(node)[0]
    steps.edit(found[EDITED].id)
    editor = Editor(scene, node, image)
    editor.paint(found[EDITED].id, (slice(9, 11), slice(180, 190), slice(180, 200)))
    editor.erase(found[EDITED].id, (slice(9, 10), slice(150, 180), slice(150, 240)))
    workflow.poll()
    steps.finish_edit()
    after = labels_from_segmentation(node)[0]
    np.testing.assert_array_equal(after == 2, before == 2, "accepted is locked")
    assert (after != before).sum() > 100
    for name in set(found) - {ACCEPTED, EDITED, OPEN}:
        steps.reject(found[name].id)


def test_prostate_mri_is_segmented_reviewed_saved_and_found_again(data_dir, tmp_path):
    study = data_dir / "prostate_mpmri_prostatex/dicom/ProstateX-0000"
    scene = new_scene()
    workflow = start(MrmlGateway(scene), tmp_path, REVIEWER)
    workflow.choose("phantom-prostate")
    workflow.open_study([study])
    inputs = {name: Path(s.path).name for name, s in workflow.input_images}
    assert inputs == SERIES and all(row.reason for row in workflow.state.inputs)
    run(workflow)
    assert workflow.state.step is Step.REVIEW, workflow.state.error
    review(workflow, scene)
    for kind, name in ((Export.DICOM_SEG, "seg.dcm"), (Export.SCENE, "case.mrb")):
        workflow.export(kind, tmp_path / name)
        assert workflow.state.error is None
    expected = json.loads(json.dumps(contents(workflow, workflow.result.store.node)))
    workflow.close()

    found = reopened(tmp_path / "case.mrb")
    assert found == expected
    check_tags(found)
    lines = read_log(log_path(tmp_path / "case.mrb"))
    assert lines == found["log"]
    check_log(lines, study)
    check_seg(tmp_path / "seg.dcm", study, found)


def check_tags(found: dict) -> None:
    """Origin, algorithm, Slicer's own status, comment."""
    tags = found["tags"]
    algorithm = "phantom-prostate 1.0.0"
    assert tags.pop(ACCEPTED)[:4] == ["AUTOMATIC", algorithm, "completed", 'base "cut", see ADC']
    assert tags.pop(EDITED)[:4] == ["SEMIAUTOMATIC", algorithm, "inprogress", ""]
    assert tags.pop(OPEN)[:2] == ["AUTOMATIC", algorithm]
    assert tags and all(t[:3] == ["AUTOMATIC", algorithm, "flagged"] for t in tags.values())
    hidden = {name for name, *_, visible, _volume, _confidence, _findings in found["rows"]
              if not visible}  # fmt: skip
    assert hidden == set(tags)


def check_log(lines: list[dict], study: Path) -> None:
    """Who, when, with what, on what, and what was decided."""
    from pydicom import dcmread

    package = load_package(HERE.parents[1] / "MIMSegment/Resources/Models/phantom-prostate")
    uids = [dcmread(next((study / f).iterdir())).SeriesInstanceUID for f in SERIES.values()]
    for line in lines:
        assert line["package"] == package.id and line["version"] == package.version
        assert line["weights"] == {n: package.checksums[n] for n in package.spec.models}
        assert line["software"].startswith("MIM Segment ") and line["series"] == uids
        assert line["time"].endswith("Z") and "Müller" in line["reviewer"]
    events = [line["event"] for line in lines]
    assert events[:4] == ["segmented", "accept", "comment", "edit"]
    assert events[-2:] == ["export", "export"] and set(events[4:-2]) == {"reject"}
    edit = lines[3]
    assert edit["structure"] == EDITED and edit["voxels_changed"] > 100
    assert edit["volume_before_ml"] != edit["volume_after_ml"]


def check_seg(path: Path, study: Path, found: dict) -> None:
    """The kept structures with their origin, on the slices of the T2w, voxel by voxel."""
    import highdicom
    from pydicom import dcmread

    seg = highdicom.seg.segread(str(path))
    kept = [seg.get_segment_description(n) for n in seg.segment_numbers]
    assert {s.segment_label: s.algorithm_type.value for s in kept} == {
        ACCEPTED: "AUTOMATIC", EDITED: "SEMIAUTOMATIC", OPEN: "AUTOMATIC",
    }  # fmt: skip
    assert all(s.algorithm_identification.name == "phantom-prostate" for s in kept)
    images = [dcmread(p, stop_before_pixels=True) for p in (study / "t2w").iterdir()]
    (series,) = seg.ReferencedSeriesSequence
    assert series.SeriesInstanceUID == images[0].SeriesInstanceUID
    assert seg.PatientID == images[0].PatientID
    uids = [image.SOPInstanceUID for image in images]
    masks = seg.get_pixels_by_source_instance(uids, ignore_spatial_locations=True)
    counts = dict(zip([s.segment_label for s in kept], masks.sum(axis=(0, 1, 2)), strict=True))
    _, *voxels = found["voxels"]
    assert counts == dict(zip((EDITED, ACCEPTED, OPEN), voxels[:3], strict=True))


def test_a_phantom_model_on_a_real_ct_says_honestly_that_it_does_not_fit(data_dir, tmp_path):
    workflow = start(MrmlGateway(new_scene()), tmp_path)
    workflow.choose("phantom-abdomen")
    workflow.open_study([data_dir / "liver_ct_chaos_dicom/dicom"])
    (row,) = workflow.state.inputs
    assert "78 slices of 512×512" in dict(row.choices)[row.source]
    workflow.run()
    assert workflow.state.progress is None, "not without the user's insisting"
    assert "trained on digital phantoms" in workflow.state.actions["run"].reason
    run(workflow, anyway=True)
    assert workflow.state.step is Step.REVIEW, workflow.state.error
    findings = {finding.code: finding for finding in workflow.state.findings}
    assert findings["phantom-model"].severity is Severity.ALERT
    assert "do not rely on anything" in findings["phantom-model"].message
    unlike = findings["reconstruction"]  # the flag apart: seen in the image itself
    assert unlike.severity is Severity.ALERT and "differs greatly from" in unlike.message
    assert "field-of-view-cut" in findings and "structure-fragmented" in findings
    labels, geometry = labels_from_segmentation(workflow.result.store.node)
    assert labels.shape == (78, 512, 512) and geometry.spacing[0] == pytest.approx(2.0, abs=1e-3)
    assert {item.name for item in workflow.review.state.items} >= {"liver", "spleen"}
    workflow.export(Export.SEGMENTATION, tmp_path / "organs.seg.nrrd")
    assert workflow.state.error is None
    workflow.close()
