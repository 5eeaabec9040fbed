"""Reviewed results for the tests of exports and reports."""

import numpy as np

from MIMSegment.Logic.audit import Provenance
from MIMSegment.Logic.finding import Finding, Severity
from MIMSegment.Logic.labels import Code, Label
from MIMSegment.Logic.review_items import ReviewItem, Verdict
from MIMSegment.Logic.reviewed_case import CaseInput, ReviewedCase
from MIMSegment.Logic.volume import Geometry, Volume
from plausibility_cases import ALTERED, ANATOMY, PROSTATE

ZONES = (
    Label(1, "peripheral zone", ANATOMY, Code("SCT", "279706003", "Peripheral zone"),
          color=(230, 158, 140)),
    Label(2, "transition zone", ANATOMY, Code("SCT", "399384005", "Transition zone"),
          color=(102, 172, 198)),
    Label(3, "lesion", ALTERED, Code("SCT", "52988006", "Lesion"), region=PROSTATE,
          color=(240, 70, 60)),
)  # fmt: skip
GEOMETRY = Geometry.from_parts((20, 60, 60), (3.0, 1.0, 1.0))


def prostate_labels() -> np.ndarray:
    """Zones and two lesions: 6 × 4 × 12 mm in the peripheral, a smaller one in the transition
    zone."""
    labels = np.zeros(GEOMETRY.shape, np.uint8)
    labels[4:16, 15:45, 10:50] = 1
    labels[5:15, 15:30, 15:45] = 2
    labels[8:10, 36:40, 20:32] = 3
    labels[10:12, 20:23, 20:24] = 3
    return labels


def prostate_case(labels=None, verdicts=None, inputs=1, geometry=GEOMETRY, table=ZONES, **options):
    """A reviewed prostate; ``verdicts`` maps label values to verdicts, accepted otherwise."""
    labels = prostate_labels() if labels is None else labels
    rng = np.random.default_rng(0)
    names = ("T2w", "ADC", "DWI")[:inputs]
    volumes = [
        Volume(rng.normal(100 * n, 20, (1, *geometry.shape)).astype(np.float32), geometry, name)
        for n, name in enumerate(names, 2)
    ]
    chosen = {label.value: Verdict.ACCEPTED for label in table} | (verdicts or {})
    rejected = [value for value, verdict in chosen.items() if verdict is Verdict.REJECTED]
    kept = np.where(np.isin(labels, rejected), 0, labels).astype(labels.dtype)
    volume = geometry.voxel_volume_ml
    items = tuple(
        ReviewItem(f"Segment_{s.value}", s.value, s.name, s.color,
                   float((labels == s.value).sum() * volume), 0.9, chosen[s.value], "", (),
                   edited=s.value == 2)
        for s in table
    )  # fmt: skip
    findings = (Finding("volume-outside-range", Severity.WARNING, "A <b>bold</b> finding.", 1),)
    return ReviewedCase(
        "Prostate zones",
        Volume(kept[None], geometry),
        tuple(s for s in table if chosen[s.value] is not Verdict.REJECTED),
        items,
        Provenance("prostate", "1.0.0", {"models/model.onnx": "ab" * 32}, ("1.2.3",)),
        findings,
        tuple(CaseInput(n, v) for n, v in zip(names, volumes, strict=True)),
        options=options,
        rejected=tuple(s for s in table if s.value in rejected),
        everything=Volume(labels[None], geometry) if rejected else None,
    )
