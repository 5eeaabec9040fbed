"""The audit log: whole lines, whatever happens; nobody's name that was not handed in."""

import datetime
import json
import multiprocessing
import os
import tomllib
from pathlib import Path

import pytest

from MIMSegment.Logic.about import VERSION
from MIMSegment.Logic.audit import AuditLog, Provenance, append_line, log_path, read_log
from MIMSegment.Logic.errors import OutputError
from tiny_package import write_threshold_package

MADE = Provenance("liver", "1.0.0", {"models/model.onnx": "ab" * 32}, ("1.2.3", ""))
NOON = datetime.datetime(2026, 5, 4, 12, tzinfo=datetime.UTC)


def test_each_line_says_what_made_the_result_and_what_was_decided(tmp_path):
    path, table = tmp_path / "case.audit.jsonl", []
    log = AuditLog(MADE, path, [table.append], reviewer="Dr. Röntgen", now=lambda: NOON)
    log.record("accept", structure="Liver", label=1, verdict="accepted", voxels_changed=0)
    (entry,) = read_log(path)
    assert table == log.entries == [entry]
    assert entry == {
        "time": "2026-05-04T12:00:00Z",
        "event": "accept",
        "package": "liver",
        "version": "1.0.0",
        "weights": {"models/model.onnx": "ab" * 32},
        "software": f"MIM Segment {VERSION}",
        "series": ["1.2.3", ""],
        "structure": "Liver",
        "label": 1,
        "verdict": "accepted",
        "voxels_changed": 0,
        "reviewer": "Dr. Röntgen",
    }


def test_no_reviewer_unless_one_is_handed_in(tmp_path, monkeypatch):
    monkeypatch.setenv("USER", "someone")
    log = AuditLog(MADE, tmp_path / "log")
    log.record("accept")
    assert "reviewer" not in read_log(tmp_path / "log")[0]
    assert "someone" not in (tmp_path / "log").read_text()


def test_provenance_of_a_package_has_the_checksums_of_its_weights(tmp_path):
    package = write_threshold_package(tmp_path / "p")
    made = Provenance.of(package, ["1.2"])
    assert made.weights == {"models/model.onnx": package.checksums["models/model.onnx"]}
    assert made.algorithm == "bright-thing 1.2.0" and made.series_uids == ("1.2",)


@pytest.mark.parametrize("kept", [0, 1, 30, -1])
def test_a_line_cut_by_a_crash_costs_only_itself(tmp_path, kept):
    path = tmp_path / "log"
    append_line(path, {"event": "first", "structure": "Läsion\n2"})
    whole = path.read_bytes()
    path.write_bytes(whole + whole[:kept])
    append_line(path, {"event": "last"})
    assert [entry["event"] for entry in read_log(path)] == ["first", "last"] or kept == -1
    assert read_log(path)[-1] == {"event": "last"}


def test_a_line_cut_within_a_letter_does_not_stop_the_reading(tmp_path):
    path = tmp_path / "log"
    path.write_bytes('{"event": "Läs'.encode()[:-2] + b"\n")
    append_line(path, {"event": "last"})
    assert read_log(path) == [{"event": "last"}]


def _append_many(path: Path, name: str) -> None:
    for number in range(15):
        append_line(path, {"event": name, "number": number, "filler": "x" * 500})


def test_two_processes_append_to_one_log_without_mixing_lines(tmp_path):
    path = tmp_path / "log"
    context = multiprocessing.get_context("spawn")
    workers = [context.Process(target=_append_many, args=(path, name)) for name in "ab"]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    entries = read_log(path)
    assert len(entries) == 30
    assert [e["number"] for e in entries if e["event"] == "a"] == list(range(15))


def test_entries_wait_until_the_scene_has_a_file_and_follow_it(tmp_path):
    log = AuditLog(MADE)
    log.record("accept")
    first, second = tmp_path / "one.audit.jsonl", tmp_path / "two.audit.jsonl"
    log.move_to(first)
    log.record("reject")
    log.move_to(first)
    log.move_to(second)
    assert [e["event"] for e in read_log(first)] == ["accept", "reject"]
    assert read_log(second) == log.entries and log.path == second


def test_equal_lines_of_one_second_are_all_kept_and_none_is_written_twice(tmp_path):
    noon = datetime.datetime(2026, 1, 2, 12, tzinfo=datetime.UTC)
    log = AuditLog(MADE, now=lambda: noon)
    for _ in range(3):
        log.record("accept", structure='the "left" one')
    path = tmp_path / "case.audit.jsonl"
    log.move_to(path)
    assert read_log(path) == log.entries and len(log.entries) == 3
    again = AuditLog(MADE, None, entries=log.entries, now=lambda: noon)
    again.record("accept", structure='the "left" one')
    again.move_to(path)
    assert len(read_log(path)) == 4


def test_the_log_lies_beside_the_scene():
    assert log_path(Path("a/case.1.mrb")) == Path("a/case.1.audit.jsonl")


@pytest.mark.skipif(os.name == "nt" or os.getuid() == 0, reason="root may write everywhere")
def test_a_folder_that_cannot_be_written_is_named(tmp_path):
    tmp_path.chmod(0o500)
    with pytest.raises(OutputError, match="audit log"):
        append_line(tmp_path / "log", {})


def test_a_missing_folder_is_named(tmp_path):
    with pytest.raises(OutputError, match=r"none.*could not be written"):
        append_line(tmp_path / "none" / "log", {})


def test_the_log_is_plain_text_that_grows_and_is_readable_by_its_owner_only(tmp_path):
    path = tmp_path / "log"
    append_line(path, {"event": "Läsion"})
    assert json.loads(path.read_text(encoding="utf-8")) == {"event": "Läsion"}
    if os.name != "nt":
        assert path.stat().st_mode & 0o077 == 0


def test_the_software_version_is_the_projects():
    project = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text())
    assert project["project"]["version"] == VERSION
