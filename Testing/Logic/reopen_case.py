"""What is in a saved scene, as JSON on stdout: run by tests in a process of its own.

python reopen_case.py SCENE
"""

import json
import sys
from dataclasses import asdict
from pathlib import Path

import numpy as np

from flow_cases import start
from MIMSegment.Logic.scene import labels_from_segmentation, load_scene
from MIMSegment.Logic.scene_gateway import MrmlGateway
from MIMSegment.Logic.scene_log import read_rows
from scene_cases import tag

TAGS = (
    "DICOM.SegmentAlgorithmType", "DICOM.SegmentAlgorithmName", "Segmentation.Status",
    "MIMSegment.Comment", "TerminologyEntry",
)  # fmt: skip


def row(item) -> list:
    """All of a review's row that must survive."""
    return [
        item.name, str(item.verdict), item.comment, item.edited, item.visible,
        round(item.volume_ml, 9), item.confidence, [str(f) for f in item.findings],
    ]  # fmt: skip


def contents(workflow, node) -> dict:
    """Everything that a review of ``node`` shows or writes."""
    state, segmentation = workflow.review.state, node.GetSegmentation()
    labels = labels_from_segmentation(node)[0]
    return {
        "rows": [row(item) for item in state.items],
        "places": [[*np.round(p.position, 6), p.segment_id, p.reason] for p in state.places],
        "findings": [str(finding) for finding in workflow.state.findings],
        "series": [[n, s.header["SeriesInstanceUID"]] for n, s in workflow.result.inputs],
        "images": [asdict(image) for image in workflow.result.provenance.images],
        "tags": {
            i.name: [tag(segmentation.GetSegment(i.id), key) for key in TAGS] for i in state.items
        },
        "log": read_rows(node),
        "settings": json.loads(json.dumps(asdict(workflow.settings))),
        "voxels": np.bincount(labels.ravel()).tolist(),
        "checksum": int(np.flatnonzero(labels).sum()),
    }


if __name__ == "__main__":
    path = Path(sys.argv[1])
    scene = load_scene(path)  # kept: a node does not keep its scene alive
    workflow = start(MrmlGateway(scene), path.parent)
    ((result, _),) = workflow.results
    workflow.open_result(result)
    print(json.dumps(contents(workflow, workflow.result.store.node)))
    workflow.close()
