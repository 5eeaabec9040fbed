"""Two classifiers compared on the tables that evaluate.py writes of them."""

import tracemalloc

import numpy as np
import pytest

import evaluate
from mim import class_comparison
from mim.auc import auc, delong_p_value
from mim.class_comparison import auc_difference
from mim.class_results import summarize_classes
from mim.classifier_evaluation import write_classes

CLASSES = ("well", "sick")
POSITIVE = np.arange(40) % 2 == 1
SUBJECTS = [f"s{i // 2}" for i in range(40)]


def scores(signal, seed):
    """Logistic scores of 40 images that tell the positive ones by ``signal``."""
    noise = np.random.default_rng(seed).normal(size=40)
    return 1 / (1 + np.exp(-(noise + signal * POSITIVE)))


def write(folder, probabilities, targets=None, classes=CLASSES, subjects=SUBJECTS):
    """A table of `evaluate.py classify`."""
    targets = POSITIVE.astype(int).tolist() if targets is None else targets
    entries = [
        {"id": f"c{i:02}", "subject": subject, "target": target}
        for i, (subject, target) in enumerate(zip(subjects, targets, strict=True))
    ]
    write_classes(folder, summarize_classes(probabilities, entries, classes))
    return str(folder / "cases.csv")


def two(values):
    """Probabilities of two exclusive classes."""
    return np.stack([1 - values, values], 1).round(6)


def compare(*tables):
    return evaluate.main(["compare", *tables])


def test_the_difference_of_two_classifiers_has_its_interval_and_delongs_p(tmp_path, capsys):
    weak, strong = two(scores(0.5, 0)), two(scores(4, 1))
    tables = write(tmp_path / "a", weak), write(tmp_path / "b", strong)
    assert compare(*tables) == 0
    well, sick = capsys.readouterr().out.splitlines()
    a, b = weak[:, 1], strong[:, 1]
    gain, p = auc(b, POSITIVE) - auc(a, POSITIVE), delong_p_value(a, b, POSITIVE, SUBJECTS)
    interval = auc_difference(a, b, POSITIVE, SUBJECTS)
    assert sick == (
        f"sick: AUC {auc(a, POSITIVE):.3f}, B - A = {gain:+.4f} (95 % interval "
        f"{interval.low:+.4f} to {interval.high:+.4f}, DeLong's p {p:.3g}), 40 cases of 20 "
        "subjects: B is better"
    )
    assert 0 < interval.low < gain < interval.high and p < 0.01
    assert well.replace("well", "sick") == sick  # of two classes, one is the other's mirror
    assert compare(*reversed(tables)) == 0
    assert capsys.readouterr().out.count("B is worse") == 2


def test_several_findings_are_compared_each_on_the_cases_of_both(tmp_path, capsys):
    targets = [(int(p), int(i % 3 == 0)) for i, p in enumerate(POSITIVE)]
    other = np.array([third for _, third in targets]) > 0
    a = np.stack([scores(0.5, 0), scores(0.5, 2)], 1)
    b = np.stack([scores(4, 1), scores(0.5, 2)], 1)
    tables = [write(tmp_path / name, p, targets, ("x", "y")) for name, p in (("a", a), ("b", b))]
    lines = (tmp_path / "b/cases.csv").read_text().splitlines()
    (tmp_path / "b/cases.csv").write_text("\n".join(lines[:-1]))  # without the last case
    assert compare(*tables) == 0
    left_out, x, y = capsys.readouterr().out.splitlines()
    assert left_out.startswith("Left out, as only one of the two has them: 1 case (")
    assert x.startswith("x: ") and "39 cases of 20 subjects: B is better" in x
    assert y.startswith(f"y: AUC {auc(a[:39, 1].round(6), other[:39]):.3f}, B - A = +0.0000")
    assert "DeLong's p 1)" in y and "B is no harm" in y


def test_the_interval_is_that_of_the_areas_of_drawn_subjects():
    rng = np.random.default_rng(3)
    a, b = scores(0.5, 0).round(1), scores(1.5, 1).round(1)  # with ties
    gaps = []
    for _ in range(1500):
        cases = [2 * s + k for s in rng.integers(20, size=20) for k in (0, 1)]
        gaps.append(auc(b[cases], POSITIVE[cases]) - auc(a[cases], POSITIVE[cases]))
    found = auc_difference(a, b, POSITIVE, [f"s{i // 2:02}" for i in range(40)])
    assert (found.low, found.high) == pytest.approx(np.quantile(gaps, [0.025, 0.975]), abs=0.02)
    assert found.mean == pytest.approx(auc(b, POSITIVE) - auc(a, POSITIVE))


def test_the_area_of_drawn_cases_is_the_share_of_pairs_won_ties_half():
    rng = np.random.default_rng(5)
    values, positive = rng.integers(6, size=60) / 5, rng.random(60) < 0.4  # nearly all are ties
    order = class_comparison.DrawnAreas(values, positive)
    won = (np.sign(values[positive][:, None] - values[~positive]) + 1) / 2
    for _ in range(5):
        times = rng.integers(4, size=60)
        pairs = times[positive][:, None] * times[~positive]
        assert order.area(times) == pytest.approx((won * pairs).sum() / pairs.sum(), rel=1e-12)
    assert order.area(np.ones(60, int)) == pytest.approx(auc(values, positive), rel=1e-12)
    assert np.isnan(order.area(np.where(positive, 1, 0)))


def test_twenty_thousand_cases_are_compared_without_a_table_of_pairs(monkeypatch):
    rng, positive = np.random.default_rng(6), np.arange(20_000) % 2 == 1
    a, b = rng.normal(size=(2, 20_000)) + positive * [[0.5], [0.6]]
    monkeypatch.setattr(class_comparison, "RESAMPLES", 20)
    tracemalloc.start()
    found = auc_difference(a, b, positive, np.arange(20_000))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert found.low < found.mean < found.high
    assert peak < 20e6  # the table of 10 000 by 10 000 pairs is 800 MB


def test_images_of_a_subject_are_drawn_together():
    a, b = scores(0.5, 0), scores(1.5, 1)
    once = auc_difference(a, b, POSITIVE, SUBJECTS)
    thrice = auc_difference(*(np.repeat(x, 3) for x in (a, b, POSITIVE, SUBJECTS)))
    assert (thrice.low, thrice.high) == pytest.approx((once.low, once.high))
    assert (thrice.cases, thrice.subjects) == (120, 20)


def test_one_kind_of_case_or_one_subject_has_no_interval():
    a, b = scores(0.5, 0), scores(1.5, 1)
    alone = auc_difference(a, b, np.ones(40, bool), SUBJECTS)
    assert np.isnan([alone.mean, alone.low, alone.high]).all()
    assert np.isnan(auc_difference(a, b, POSITIVE, ["s"] * 40).low)
    assert alone.verdict() == "undecided"


@pytest.mark.parametrize(
    "change",
    [
        {"classes": ("sick", "well")},
        {"targets": [0] * 40},
    ],
)
def test_tables_of_other_classes_or_targets_are_refused(tmp_path, capsys, change):
    tables = (
        write(tmp_path / "a", two(scores(1, 0))),
        write(tmp_path / "b", two(scores(1, 1)), **change),
    )
    assert compare(*tables) == 2
    assert "differ in classes or in a case's class" in capsys.readouterr().err


def test_a_classification_is_not_compared_with_a_segmentation(tmp_path, capsys):
    table = write(tmp_path / "a", two(scores(1, 0)))
    (tmp_path / "b.csv").write_text("case,subject,structure,dice\nc,s,liver,1\n")
    assert compare(str(tmp_path / "b.csv"), table) == 2
    assert "b.csv is no table written by evaluate.py segment" in capsys.readouterr().err
