"""The review without a scene: verdicts, edits, locks, undo, order, places."""

import numpy as np
import pytest

from MIMSegment.Logic.doubt import DoubtfulPlace
from MIMSegment.Logic.finding import Finding, Severity
from MIMSegment.Logic.review import MOST_PLACES, Review, Verdict
from MIMSegment.Logic.review_items import said_of_locked
from review_cases import MemoryStore

LIVER, SPLEEN, TUMOR = "Segment_1", "Segment_2", "Segment_3"
BOX = (slice(0, 2), slice(0, 4), slice(0, 4))  # half of it liver, half of it background


@pytest.fixture
def store():
    labels = np.zeros((4, 8, 8), np.uint8)
    labels[:2, :4, :2], labels[2:, 4:, :4] = 1, 2
    return MemoryStore(labels, {1: "Liver", 2: "Spleen", 3: "Tumor"})


@pytest.fixture
def log():
    return []


@pytest.fixture
def review(store, log):
    return Review(store, {1: 0.9}, record=lambda event, **values: log.append((event, values)))


def test_accept_locks_reject_hides_and_reopen_takes_both_back(review, store):
    review.accept(LIVER)
    review.reject(SPLEEN)
    assert review.state[LIVER].locked and not review.state[LIVER].actions["edit"]
    assert "reopen" in review.state[LIVER].actions["edit"].reason
    assert not review.state[SPLEEN].visible and (store.labels == 2).any(), "hidden, never deleted"
    for segment_id in (LIVER, SPLEEN):
        review.reopen(segment_id)
        assert review.state[segment_id].verdict is Verdict.OPEN
        assert review.state[segment_id].visible


def test_edit_counts_once_voxels_have_really_changed(review, store, log):
    review.edit(LIVER)
    assert review.state.editing == LIVER and review.state[LIVER].verdict is Verdict.EDITING
    assert not review.state[LIVER].edited
    store.paint(LIVER, BOX)
    review.poll()
    assert review.state[LIVER].edited and review.state[LIVER].volume_ml == pytest.approx(0.032)
    review.finish_edit()
    assert review.state.editing is None and review.state[LIVER].verdict is Verdict.EDITING
    event, values = log[-1]
    assert event == "edit" and values["voxels_changed"] == 16
    assert (values["volume_before_ml"], values["volume_after_ml"]) == (0.016, 0.032)


def test_a_finding_about_a_structure_that_was_edited_since_says_so(store):
    finding = Finding("volume", Severity.WARNING, "Liver is small: 0.016 mL.", 1)
    review = Review(store, findings=[finding])
    assert review.state[LIVER].findings == (finding,)
    review.edit(LIVER)
    store.paint(LIVER, BOX)
    review.finish_edit()
    (shown,) = review.state[LIVER].findings
    assert shown.message == "Liver is small: 0.016 mL. (Before it was edited.)"
    review.undo(LIVER)
    assert review.state[LIVER].findings == (finding,)


def test_edit_without_a_change_leaves_no_trace(review, log):
    review.edit(LIVER)
    review.finish_edit()
    assert review.state[LIVER].verdict is Verdict.OPEN and not review.state[LIVER].edited
    assert not review.state[LIVER].actions["undo"] and not log


def test_paint_that_the_editor_took_back_is_no_edit(review, store):
    before = store.labels.copy()
    review.edit(LIVER)
    store.paint(LIVER, BOX)
    review.poll()
    store.labels[...] = before
    review.finish_edit()
    assert not review.state[LIVER].edited and review.state[LIVER].verdict is Verdict.OPEN


def test_accepted_structure_cannot_be_painted_over(review, store):
    review.accept(SPLEEN)
    before = store.labels.copy()
    review.edit(LIVER)
    store.paint(LIVER, (slice(1, 4), slice(3, 6), slice(0, 4)))
    review.poll()
    np.testing.assert_array_equal(store.labels == 2, before == 2)
    assert (store.labels == 1).sum() > (before == 1).sum(), "what lies outside of it is painted"
    assert "Spleen is accepted and locked" in review.state.notice
    assert review.state[SPLEEN].verdict is Verdict.ACCEPTED and not review.state[SPLEEN].edited


def test_several_structures_that_were_painted_over_are_named_in_one_sentence():
    assert said_of_locked(["liver", "spleen", "aorta"]) == (
        "liver, spleen and aorta are accepted and locked, so the changes to them were taken back; "
        "reopen them to edit them."
    )


def test_undo_of_an_edit_gives_back_what_it_took_from_neighbors(review, store):
    before = store.labels.copy()
    review.edit(LIVER)
    store.paint(LIVER, (slice(1, 4), slice(3, 6), slice(0, 4)))
    review.finish_edit()
    assert review.state[SPLEEN].edited, "the neighbor lost voxels to a person's hand"
    review.undo(LIVER)
    np.testing.assert_array_equal(store.labels, before)
    assert not review.state[LIVER].edited and not review.state[SPLEEN].edited
    assert review.state[LIVER].verdict is Verdict.OPEN


def test_undo_leaves_later_edits_of_neighbors_alone(review, store):
    review.edit(LIVER)
    store.paint(LIVER, (slice(1, 4), slice(3, 6), slice(0, 4)))
    review.edit(SPLEEN)
    store.paint(SPLEEN, (slice(0, 1), slice(7, 8), slice(7, 8)))
    review.finish_edit()
    review.undo(LIVER)
    assert store.labels[0, 7, 7] == 2, "painted after the edit that was undone"
    assert review.state[SPLEEN].edited


def test_a_comment_while_painting_ends_no_edit_and_outlives_its_undo(review, store, log):
    review.accept(SPLEEN)
    review.reopen(SPLEEN)
    review.edit(LIVER)
    store.paint(LIVER, BOX)
    review.comment(LIVER, "fatty")
    review.comment(SPLEEN, "large")
    assert review.state.editing == LIVER
    review.finish_edit()
    assert log[-1][0] == "edit" and log[-1][1]["voxels_changed"] == 16
    review.undo(LIVER)
    assert review.state[LIVER].verdict is Verdict.OPEN and not review.state[LIVER].edited
    assert review.state[LIVER].comment == "fatty" and review.state[SPLEEN].comment == "large"
    review.undo(SPLEEN)
    assert review.state[SPLEEN].comment == ""


def test_a_comment_stays_when_the_edit_changed_nothing(review):
    review.edit(LIVER)
    review.comment(LIVER, "right as it is")
    review.finish_edit()
    assert review.state[LIVER].comment == "right as it is"
    assert review.state[LIVER].verdict is Verdict.OPEN


def test_each_step_is_undone_on_its_own(review, store, log):
    review.comment(LIVER, "look  again")
    review.accept(LIVER)
    review.reject(SPLEEN)
    review.undo(LIVER)
    assert review.state[LIVER].verdict is Verdict.OPEN
    assert review.state[LIVER].comment == "look again"
    assert review.state[SPLEEN].verdict is Verdict.REJECTED
    review.undo(SPLEEN)
    assert review.state[SPLEEN].visible
    review.undo(LIVER)
    assert review.state[LIVER].comment == "" and not review.state[LIVER].actions["undo"]
    assert [event for event, _ in log] == ["comment", "accept", "reject", "undo", "undo", "undo"]
    assert not any("look" in str(values) for _, values in log), "comments stay out of the log"


def test_undo_during_an_edit_ends_it(review, store):
    before = store.labels.copy()
    review.edit(LIVER)
    store.paint(LIVER, BOX)
    review.undo(LIVER)
    assert review.state.editing is None and review.state[LIVER].verdict is Verdict.OPEN
    np.testing.assert_array_equal(store.labels, before)


def test_accept_while_editing_finishes_the_edit(review, store):
    review.edit(LIVER)
    store.paint(LIVER, BOX)
    review.accept(LIVER)
    assert review.state[LIVER].verdict is Verdict.ACCEPTED and review.state[LIVER].edited
    review.undo(LIVER)
    assert review.state[LIVER].verdict is Verdict.EDITING
    review.undo(LIVER)
    assert review.state[LIVER].verdict is Verdict.OPEN and (store.labels == 1).sum() == 16


def test_painting_outside_the_review_counts_as_an_edit(review, store, log):
    before = store.labels.copy()
    store.paint(LIVER, (slice(1, 4), slice(3, 6), slice(0, 4)))
    review.poll()
    assert review.state[LIVER].edited and review.state[LIVER].verdict is Verdict.EDITING
    assert {event for event, _ in log} == {"edit"}
    review.undo(LIVER)
    np.testing.assert_array_equal(store.labels, before)
    assert not review.state[SPLEEN].actions["undo"], "that was the same step"


def test_verdicts_set_elsewhere_are_taken_over_and_logged(review, store, log):
    record = store.records()[0]
    store.write(type(record)(record.id, 1, "Liver", record.color, Verdict.ACCEPTED))
    store.stir()
    review.poll()
    assert review.state[LIVER].locked and log[-1][0] == "status"


def test_segment_removed_elsewhere_leaves_the_list(review, store):
    review.edit(SPLEEN)
    store.remove(SPLEEN)
    review.poll()
    assert [item.id for item in review.state.items] == [LIVER, TUMOR]
    assert review.state.editing is None


def test_most_suspicious_structures_come_first_and_rows_stay_where_they_are(store):
    findings = [
        Finding("volume", Severity.WARNING, "Too large.", 2),
        Finding("empty", Severity.ALERT, "Not found.", 3),
        Finding("note", Severity.NOTE, "A note.", 2),
    ]
    review = Review(store, {}, [DoubtfulPlace((0, 0, 0), 1, 0.5)], findings)
    assert [item.id for item in review.state.items] == [TUMOR, SPLEEN, LIVER]
    assert [f.code for f in review.state[SPLEEN].findings] == ["volume", "note"]
    assert review.state[TUMOR].severity is Severity.ALERT
    review.accept(TUMOR)
    assert [item.id for item in review.state.items] == [TUMOR, SPLEEN, LIVER]


def test_next_place_goes_from_the_worst_on_and_skips_what_is_resolved(store):
    doubtful = [
        DoubtfulPlace((1.0, 0, 0), 1, 0.2),
        DoubtfulPlace((2.0, 0, 0), 2, 0.9),
        DoubtfulPlace((3.0, 0, 0), 1, 0.4),
    ]
    alert = Finding("border", Severity.ALERT, "Cut off.", 1, (9.0, 0, 0))
    note = Finding("small", Severity.NOTE, "Small.", 2, (8.0, 0, 0))
    review = Review(store, {}, doubtful, [note, alert])
    visited = [review.next_place().position[0] for _ in range(5)]
    assert visited == [9, 2, 3, 1, 9], "alerts first, then the most doubtful, and round"
    assert review.previous_place().position[0] == 1
    review.accept(LIVER)
    assert [place.position[0] for place in review.open_places()] == [2]
    assert review.next_place().position[0] == 2
    review.reject(SPLEEN)
    assert review.next_place() is None and not review.state.actions["next_place"]


def test_no_more_places_than_somebody_will_look_at(store):
    doubtful = [DoubtfulPlace((float(i), 0, 0), 1, float(i)) for i in range(50)]
    places = Review(store, {}, doubtful).open_places()
    assert len(places) == MOST_PLACES and places[0].position[0] == 49
    assert [place.rank for place in places] == list(range(1, MOST_PLACES + 1))


def test_a_verdict_on_several_is_one_step(review, store, log):
    review.comment(SPLEEN, "look again")
    review.reject(LIVER, SPLEEN)
    assert [i.verdict for i in review.state.items if i.id != TUMOR] == [Verdict.REJECTED] * 2
    assert review.state.notice.startswith("2 structures")
    review.undo(LIVER)
    assert all(item.verdict is Verdict.OPEN and item.visible for item in review.state.items)
    assert not review.state.notice
    assert review.state[SPLEEN].comment == "look again", "the step before is not touched"
    assert not review.state[LIVER].actions["undo"] and review.state[SPLEEN].actions["undo"]
    events = [(event, values["structure"]) for event, values in log[1:]]
    assert events == [(e, s) for e in ("reject", "undo") for s in ("Liver", "Spleen")]


def test_all_the_rest_is_decided_at_once_and_what_was_decided_stays(review):
    review.reject(LIVER)
    assert review.state.actions["accept_rest"].reason == "2 structures without a verdict."
    review.accept_rest()
    verdicts = {item.id: item.verdict for item in review.state.items}
    accepted = dict.fromkeys((SPLEEN, TUMOR), Verdict.ACCEPTED)
    assert verdicts == {LIVER: Verdict.REJECTED, **accepted}
    assert not review.state.actions["accept_rest"] and not review.state.actions["reject_rest"]
    review.undo(TUMOR)
    assert [i.id for i in review.state.items if i.verdict.resolved] == [LIVER]
    review.reject_rest()
    assert all(i.verdict is Verdict.REJECTED and not i.visible for i in review.state.items)


def test_undo_of_a_verdict_on_several_leaves_later_steps_alone(review):
    review.accept_rest()
    review.reopen(SPLEEN)
    review.undo(LIVER)
    verdicts = [review.state[i].verdict for i in (LIVER, SPLEEN, TUMOR)]
    assert verdicts == [Verdict.OPEN] * 3
    review.undo(SPLEEN)
    assert review.state[SPLEEN].verdict is Verdict.ACCEPTED, "only the reopening was taken back"
    review.undo(SPLEEN)
    assert review.state[SPLEEN].verdict is Verdict.OPEN


def test_the_rest_ends_a_running_edit_and_keeps_it(review, store):
    review.edit(LIVER)
    store.paint(LIVER, BOX)
    review.accept_rest()
    assert (
        review.state.editing is None and review.state[LIVER].locked and review.state[LIVER].edited
    )
    review.undo(SPLEEN)
    assert review.state[LIVER].verdict is Verdict.EDITING and review.state[LIVER].edited


def test_undo_of_a_verdict_keeps_whose_voxels_they_are(review, store):
    review.reject(SPLEEN, TUMOR)
    review.edit(LIVER)
    store.paint(LIVER, (slice(1, 4), slice(3, 6), slice(0, 4)))
    review.finish_edit()
    review.undo(TUMOR)
    assert review.state[SPLEEN].edited, "the other edit took voxels from it"


def test_the_rest_has_the_rule_of_one_and_says_how_many_doubtful_places_lie_in_it(store):
    review = Review(
        store, {}, [DoubtfulPlace((1.0, 0, 0), 1, 0.2), DoubtfulPlace((2.0, 0, 0), 2, 1)]
    )
    assert "2 doubtful places" in review.state.actions["accept_rest"].reason
    review.accept(SPLEEN)
    reason = review.state.actions["accept_rest"].reason
    assert reason == "2 structures without a verdict with 1 doubtful place in them."
    review.accept_rest()
    assert not review.open_places()
