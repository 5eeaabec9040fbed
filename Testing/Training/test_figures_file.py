"""Files of figures are JSON that every program reads, and what reads them here knows the gaps."""

import json
import math

import numpy as np
import pytest

from mim.bundle import ExportOptions, bundle_metadata, results_of
from mim.demo_report import DemoResult, page, summary
from mim.ensemble import Member, results_together
from mim.evaluation import summarize
from mim.figures_file import read_figures
from mim.study_grid import Cell, Run
from mim.study_scores import Scores
from mim.study_table import rows_of
from MIMSegment.Logic.files import write_json
from MIMSegment.Logic.matching import InputSpec

NAN = float("nan")
# The second structure is in nobody, the third in one of two subjects.
ROWS = [
    {"id": "a", "subject": "a", "dice": {"organ": 0.5, "cyst": NAN, "lesion": 0.9}},
    {"id": "b", "subject": "b", "dice": {"organ": 0.7, "cyst": NAN, "lesion": NAN}},
]


def strict(path):
    """What a program reads that knows only JSON."""

    def refuse(constant):
        raise ValueError(f"{constant} is no JSON")

    return json.loads(path.read_text(), parse_constant=refuse)


@pytest.fixture
def run(tmp_path):
    """A folder with the results of a fine-tuning, and its log."""
    write_json(tmp_path / "results.json", {**summarize(ROWS), "rows": ROWS})
    (tmp_path / "log.jsonl").write_text("")
    return tmp_path


def test_no_figure_is_null(run):
    results = strict(run / "results.json")
    assert results["dice_per_class"]["cyst"] == {"dice": None, "ci95": [None, None]}
    assert results["rows"][1]["dice"] == {"organ": 0.7, "cyst": None, "lesion": None}
    write_json(run / "odd.json", {"a": (np.float64("inf"), -math.inf), 1: [NAN, True, None]})
    assert strict(run / "odd.json") == {"a": [None, None], "1": [None, True, None]}


def test_figures_are_read_as_they_were_also_from_files_with_a_bare_nan(run):
    expected = {**summarize(ROWS), "rows": ROWS}
    np.testing.assert_equal(read_figures(run / "results.json"), expected)
    (run / "old.json").write_text(json.dumps(expected))
    assert "NaN" in (run / "old.json").read_text()
    np.testing.assert_equal(read_figures(run / "old.json"), expected)


def test_a_study_leaves_out_what_has_no_figure(run):
    arms = {arm: [[Run("finetune", run, "", ())]] for arm in ("base", "other")}
    base, other = rows_of(Cell({}, arms), "base")
    assert base["score"] == pytest.approx(0.7) and other["difference"] == 0
    assert Scores(((run,),)).by_seed == [pytest.approx(0.7)]


def test_networks_of_one_package_leave_out_what_has_no_figure(run):
    member = Member(run / "last.pt", {}, results_of(run / "last.pt"))
    together = results_together([member, member])
    assert together["dice_per_class"]["lesion"]["dice"] == 0.9
    assert math.isnan(together["dice_per_class"]["cyst"]["dice"])


def test_the_report_of_the_demo_shows_what_has_no_figure(run, monkeypatch):
    monkeypatch.setattr("mim.demo_report.PICTURES", {})
    results = read_figures(run / "results.json")
    found = DemoResult("boxes", True, "c", results, {"cyst": NAN}, {"cyst": (0, 0)}, {}, {})
    assert "<td>cyst</td>" in page(found, run) and "<td>absent</td>" in page(found, run)
    write_json(run / "summary.json", summary(found))
    assert strict(run / "summary.json")["dice_per_class"]["cyst"]["dice"] is None


def test_a_package_states_no_figure_that_there_is_not():
    metrics = {"mean_dice": NAN, "mean_auc": 0.5}
    inputs = [InputSpec("T2w", "MR")]
    found = bundle_metadata("T", ExportOptions(), "t", "n", inputs, (8, 8, 8), {}, metrics)
    assert found["eval_metrics"] == {"mean_auc": 0.5}
