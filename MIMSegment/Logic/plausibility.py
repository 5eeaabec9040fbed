"""Does the input fit the model, and does the output look like anatomy?

`check_inputs` is for before a run; it reads a sample of the voxels and takes well under a second.
`check_result` measures every structure of a result; inference does it in its own process and hands
its findings over with the result (`engine.Segmentation.findings`), together with those of
`reconstruction`. Both work for every package and say more for one that carries `expectations`.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence

from MIMSegment.Logic.engine import Segmentation
from MIMSegment.Logic.finding import Finding
from MIMSegment.Logic.input_checks import check_box, check_phantom
from MIMSegment.Logic.labels import wanted_labels
from MIMSegment.Logic.package import ModelPackage
from MIMSegment.Logic.result_checks import check_sides, check_structures
from MIMSegment.Logic.result_places import check_containment
from MIMSegment.Logic.sequence_checks import (
    check_contents,
    check_gray_values,
    check_sequences,
    check_studies,
    refuse_empty,
)
from MIMSegment.Logic.structures import measure_structures
from MIMSegment.Logic.volume import Volume


def check_inputs(volumes: Volume | Sequence[Volume], package: ModelPackage) -> tuple[Finding, ...]:
    """What speaks against running ``package`` on these images, the gravest first.

    ``volumes`` has one image for each input of the package, in their order, as it was read: on its
    own grid with its own header. One volume (c, z, y, x) with all inputs as channels does as well,
    but says less. Raises InputError for an image without contents.
    """
    images = _single_channels(volumes)
    refuse_empty(images, package)
    found = check_contents(images, package) + check_studies(images, package)
    told = check_sequences(images, package)
    found += told + check_box(images, package)
    found += check_gray_values(images, package, suspected=bool(told))
    found += check_phantom(images, package)  # last of the alerts: the others can be mended
    return gravest_first(found)


def check_result(
    segmentation: Segmentation, package: ModelPackage, wanted: Collection[int] | None = None
) -> tuple[Finding, ...]:
    """What about the structures is not as in the training data or in a body, the gravest first.

    ``wanted`` are the label values that were asked for (default: all of the package).
    """
    structures = measure_structures(segmentation.labels, segmentation.geometry)
    labels = wanted_labels(package.labels, wanted)
    found = check_structures(structures, labels, package)
    found += check_sides(structures, labels, package)
    found += check_containment(segmentation, labels, package)
    return gravest_first(found)


def gravest_first(findings: Sequence[Finding]) -> tuple[Finding, ...]:
    """Sorted by severity; within one severity the order stays."""
    return tuple(sorted(findings, key=lambda finding: -finding.severity.rank))


def _single_channels(volumes: Volume | Sequence[Volume]) -> list[Volume]:
    if not isinstance(volumes, Volume):
        return list(volumes)
    if len(volumes.array) == 1:
        return [volumes]
    # Which image a header of a stack belongs to is not known.
    return [Volume(channel[None], volumes.geometry, volumes.source) for channel in volumes.array]
