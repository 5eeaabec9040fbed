"""In which order a reviewer should look at structures and places: the most suspicious first."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from MIMSegment.Logic.doubt import DoubtfulPlace
from MIMSegment.Logic.finding import Finding, Severity
from MIMSegment.Logic.review_items import ReviewPlace, SegmentRecord

MOST_PLACES = 20


def most_suspicious_first(
    records: Sequence[SegmentRecord],
    volumes_ml: Mapping[str, float],
    doubtful: Sequence[DoubtfulPlace],
    findings: Sequence[Finding],
) -> list[str]:
    """Segment IDs by the gravest finding, then by undecided milliliters; what was not found and
    has no finding is last. Equal ones keep their order."""

    def suspicion(record: SegmentRecord) -> tuple[int, bool, float]:
        grave = max((f.severity.rank for f in findings if f.label == record.label), default=-1)
        doubt = sum(place.doubtful_ml for place in doubtful if place.label == record.label)
        return -grave, volumes_ml[record.id] == 0, -doubt

    return [record.id for record in sorted(records, key=suspicion)]


def ranked_places(
    records: Sequence[SegmentRecord],
    doubtful: Sequence[DoubtfulPlace],
    findings: Sequence[Finding],
) -> tuple[ReviewPlace, ...]:
    """At most MOST_PLACES: where alerts, then where warnings point, then where the model hesitated
    most."""
    segment = {record.label: record.id for record in records}
    name = {record.label: record.name for record in records}
    grave = [f for f in findings if f.position and f.severity.rank >= Severity.WARNING.rank]
    grave.sort(key=lambda finding: -finding.severity.rank)
    found = [(f.position, segment.get(f.label), f.message) for f in grave]
    for place in sorted(doubtful, key=lambda place: -place.doubtful_ml):
        reason = (
            f"The model hesitated here about {name.get(place.label, 'a structure')}: "
            f"{place.doubtful_ml:.2f} mL undecided."
        )
        found.append((place.position, segment.get(place.label), reason))
    return tuple(ReviewPlace(*item, rank) for rank, item in enumerate(found[:MOST_PLACES], 1))


class Tour:
    """Goes round through the ``places``, which are ranked; ``at`` is the one last gone to."""

    def __init__(self, places: Sequence[ReviewPlace]):
        self.at: ReviewPlace | None = None
        self._places = tuple(places)

    def open(self, records: Mapping[str, SegmentRecord]) -> tuple[ReviewPlace, ...]:
        """The unresolved places, worst first; none when every structure has a verdict."""
        resolved = {i for i, record in records.items() if record.verdict.resolved}
        if len(resolved) == len(records):
            return ()
        return tuple(place for place in self._places if place.segment_id not in resolved)

    def go(self, direction: int, places: Sequence[ReviewPlace]) -> ReviewPlace | None:
        """To the next of ``places`` (1) or the previous one (-1), and round; None without any."""
        if not places:
            self.at = None
        elif self.at is None:
            self.at = places[0 if direction > 0 else -1]
        else:
            here = self.at.rank * direction
            further = [p for p in places[::direction] if p.rank * direction > here]
            self.at = (further or places[::direction])[0]
        return self.at
