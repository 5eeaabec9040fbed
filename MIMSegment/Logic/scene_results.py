"""What a segmentation node keeps about the run that made it, for a review after a reload.

Attributes with the prefix "MIMSegment." and references to the input volumes.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace

from MIMSegment.Logic.audit import Provenance
from MIMSegment.Logic.doubt import DoubtfulPlace
from MIMSegment.Logic.finding import Finding, Severity
from MIMSegment.Logic.image_record import ImageRecord
from MIMSegment.Logic.labels import Label, labels_from_csv, labels_to_csv
from MIMSegment.Logic.scene_inputs import FindFile, VolumeSource
from MIMSegment.Logic.scene_labels import label_table
from MIMSegment.Logic.scene_review import NodeSegments
from MIMSegment.Logic.scene_segments import ATTRIBUTE_PREFIX, provenance, set_provenance
from MIMSegment.Logic.workflow_ports import OpenResult, Result

_INPUT_ROLE = "MIMSegment.Input."  # and the input's name


def keep_result(node, result: Result, volumes: Sequence[tuple[str, object]]) -> None:
    """Keep with the node what made it; ``volumes`` are the (name, node or None) of the inputs."""
    made, found = result.provenance, result.segmentation
    review = {
        "confidence": {str(label): value for label, value in found.confidence.items()},
        "doubtful": [asdict(place) for place in found.doubtful],
        "findings": [asdict(finding) for finding in result.findings],
    }
    values = {
        "Package": made.package,
        "Version": made.version,
        "Weights": dict(made.weights),
        "Series": list(made.series_uids),
        "Software": made.software,
        "Images": [asdict(image) for image in made.images],
        "Phantom": result.phantom,
        "Inputs": [name for name, _ in volumes],
        "Review": review,
        "NotAsked": labels_to_csv(list(result.not_asked)) if result.not_asked else "",
    }
    set_provenance(node, values)
    keep_inputs(node, volumes)


def with_earlier(node, result: Result) -> Result:
    """``result``, with what the node keeps about structures that the result does not replace; to
    be called before it is added."""
    if not is_result(node):
        return result
    earlier, found = kept_result(node, lambda uid: None), result.segmentation
    replaced = {label.source_value for label in result.labels}
    stay = {s.value for s in label_table(node) if s.source_value not in replaced}
    confidence = {label: v for label, v in earlier.confidence.items() if label in stay}
    doubtful = [place for place in earlier.doubtful if place.label in stay]
    findings = [finding for finding in earlier.findings if finding.label in stay]
    unknown = {label.value for label in earlier.not_asked}
    return replace(
        result,
        segmentation=replace(
            found,
            confidence=confidence | dict(found.confidence),
            doubtful=(*found.doubtful, *doubtful),
        ),
        findings=(*result.findings, *findings),
        not_asked=tuple(label for label in result.not_asked if label.value in unknown),
    )


def keep_inputs(node, volumes: Sequence[tuple[str, object]]) -> None:
    """Refer to the input volumes: their names, and nodes or None."""
    for name, volume in volumes:
        node.SetNodeReferenceID(_INPUT_ROLE + name, volume.GetID() if volume else None)


@dataclass(frozen=True)
class KeptState:
    """What `keep_result` writes, as it is at one moment, for `restore_state`."""

    attributes: Mapping[str, str]
    references: Mapping[str, str]


def kept_state(node) -> KeptState:
    """What the node keeps now."""
    roles = [node.GetNthNodeReferenceRole(i) for i in range(node.GetNumberOfNodeReferenceRoles())]
    inputs = [role for role in roles if role.startswith(_INPUT_ROLE)]
    return KeptState(provenance(node), {role: node.GetNodeReferenceID(role) for role in inputs})


def restore_state(node, state: KeptState) -> None:
    """Let the node keep what it kept then, and nothing else."""
    now = kept_state(node)
    for key in now.attributes.keys() - state.attributes.keys():
        node.RemoveAttribute(ATTRIBUTE_PREFIX + key)
    set_provenance(node, dict(state.attributes))
    for role in now.references.keys() | state.references.keys():
        node.SetNodeReferenceID(role, state.references.get(role))


def is_result(node) -> bool:
    """Whether `keep_result` has been called for the node, now or before it was saved."""
    return "Review" in provenance(node)


def kept_result(node, find_file: FindFile) -> OpenResult:
    """What `keep_result` kept."""
    kept = provenance(node)
    review = json.loads(kept["Review"])
    made = Provenance(
        kept["Package"],
        kept["Version"],
        json.loads(kept["Weights"]),
        tuple(json.loads(kept["Series"])),
        kept["Software"],
        tuple(ImageRecord(**image) for image in json.loads(kept.get("Images", "[]"))),
    )
    volumes = ((n, node.GetNodeReference(_INPUT_ROLE + n)) for n in json.loads(kept["Inputs"]))
    return OpenResult(
        NodeSegments(node),
        node.GetName(),
        made,
        {int(label): value for label, value in review["confidence"].items()},
        tuple(_place(item) for item in review["doubtful"]),
        tuple(_finding(item) for item in review["findings"]),
        tuple((name, VolumeSource(v, find_file) if v else None) for name, v in volumes),
        json.loads(kept["Phantom"]),
        node.GetID(),
        tuple(_labels(kept.get("NotAsked", ""))),
    )


def _labels(text: str) -> list[Label]:
    return labels_from_csv(text) if text else []


def _place(item: dict) -> DoubtfulPlace:
    return DoubtfulPlace(tuple(item["position"]), item["label"], item["doubtful_ml"])


def _finding(item: dict) -> Finding:
    position = tuple(item["position"]) if item["position"] else None
    severity = Severity(item["severity"])
    return Finding(item["code"], severity, item["message"], item["label"], position)
