"""Studies from the command line on tiny data, and the numbers of their tables."""

import json
import shutil

import numpy as np
import pytest

import study
from mim.auc import auc, delong_interval, delong_mean_interval
from mim.caching import PrepareOptions, prepare_dataset
from mim.learning_curve import WATCHED
from mim.study_grid import Cell, Run
from mim.study_plots import plot_curves, plot_scores
from mim.study_scores import Scores, bootstrap_over_subjects
from mim.study_table import rows_of
from MIMSegment.Logic.errors import InputError
from small_sets import decathlon, picture

RECIPE = """
seeds = [0, 1]
finetune = "finetune_cpu.toml"
finetune_overrides = ["network.features=4,8,8", "network.blocks=1,1,1", "device=cpu",
  "precision=fp32", "loop.steps=4", "loop.validate_every=2", "watch=2", "loop.tensorboard=false"]
[arms]
scratch = []
masked = ["pretrain_cpu.toml", "network.features=4,8,8", "network.blocks=1,1,1", "device=cpu",
  "precision=fp32", "loop.steps=2", "validation_crops=2", "loop.tensorboard=false"]
[grid]
"finetune.subjects" = [1, 0]
"""


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    root = tmp_path_factory.mktemp("study")
    decathlon(root / "data", count=6)
    prepare_dataset(
        root / "data",
        root / "cache",
        PrepareOptions(patch_voxels=4000, stages=3, jobs=1, held_back=0.5),
    )
    (root / "study.toml").write_text(RECIPE)
    assert study.main(arguments(root)) == 0
    return root


def arguments(root, *more):
    return [str(root / "study.toml"), f"cache={root / 'cache'}", f"run={root / 'run'}", *more]


def test_table_has_every_combination_with_intervals_and_curves(finished):
    content = json.loads((finished / "run/study.json").read_text())
    rows = content["rows"]
    assert [(row["cell"]["finetune.subjects"], row["arm"]) for row in rows] == [
        (1, "scratch"), (1, "masked"), (0, "scratch"), (0, "masked")
    ]  # fmt: skip
    for row in rows[1::2]:
        low, high = row["difference_ci95"]
        assert low <= row["difference"] <= high
        assert row["speed_up"]["runs"] == 2 and row["verdict"]
        assert row["curve_steps"] == [2, 4] and len(row["curves_by_seed"]) == 2
        assert 0 <= row["area_under_curve"] <= 1
    assert rows[0]["training_subjects"] == 1
    text = (finished / "run/study.md").read_text()
    assert text.count("ahead in") == 2 and "of 2 seeds" in text
    assert text.count("| masked |") == 2 and "| all | scratch |" in text
    for name, plot in (("scores.png", plot_scores), ("curves.png", plot_curves)):
        plot(rows, finished / name)  # test_study_plots.py looks at what is in them
        assert (finished / "run" / name).read_bytes() == (finished / name).read_bytes()


def test_finished_runs_are_not_done_again(finished, capsys):
    before = {p: p.stat().st_mtime_ns for p in (finished / "run").glob("*/last.pt")}
    assert study.main(arguments(finished)) == 0
    assert {p: p.stat().st_mtime_ns for p in (finished / "run").glob("*/last.pt")} == before
    assert "1/" not in capsys.readouterr().out.splitlines()[0]


def test_runs_of_another_recipe_are_not_mixed_in(finished, capsys):
    changed = RECIPE.replace('"loop.steps=4"', '"loop.steps=6"')
    (finished / "changed.toml").write_text(changed)
    code = study.main([str(finished / "changed.toml"), *arguments(finished)[1:]])
    assert code == 2 and "loop.steps was 4, is now 6" in capsys.readouterr().err


def test_a_fine_tuning_from_another_pretraining_is_not_taken_for_this_one(finished, capsys):
    """The way out of a changed pre-training is to remove it; what started from it is old too."""
    changed = finished / "changed.toml"
    changed.write_text(RECIPE.replace('"loop.steps=2"', '"loop.steps=3"'))
    (finished / "aside").mkdir()
    aside = {f: finished / "aside" / f.name for f in (finished / "run").glob("pretrain-*")}
    for folder, place in aside.items():
        folder.rename(place)
    try:
        assert study.main([str(changed), *arguments(finished)[1:]]) == 2
        assert len(aside) == 2 and not list((finished / "run").glob("pretrain-*"))
    finally:
        for folder, place in aside.items():
            place.rename(folder)
    said = capsys.readouterr().err
    assert "masked-subjects=1-seed0 holds a run that does not belong" in said
    assert "was another (loop.steps was 2, is now 3)" in said


def test_a_finished_study_can_be_moved(finished, tmp_path):
    shutil.copytree(finished / "run", tmp_path / "elsewhere")
    recipe, cache, _ = arguments(finished)
    assert study.main([recipe, cache, f"run={tmp_path / 'elsewhere'}"]) == 0
    tables = [folder / "study.md" for folder in (finished / "run", tmp_path / "elsewhere")]
    assert tables[0].read_text() == tables[1].read_text()


def test_runs_of_a_cache_that_was_prepared_anew_are_not_mixed_in(finished, capsys):
    fingerprint = finished / "cache/fingerprint.json"
    text = fingerprint.read_text()
    fingerprint.write_text(text.replace('"cases": 3', '"cases": 4'))
    try:
        assert fingerprint.read_text() != text and study.main(arguments(finished)) == 2
    finally:
        fingerprint.write_text(text)
    assert f"the cache {finished / 'cache'} has changed" in capsys.readouterr().err


def test_list_names_the_runs_and_does_none(finished, tmp_path, capsys):
    recipe, *changes = arguments(finished)[:-1]
    assert study.main([recipe, "--list", *changes, f"run={tmp_path}"]) == 0
    assert len(capsys.readouterr().out.split()) == 10 and not list(tmp_path.iterdir())


def result(folder, probabilities, targets):
    rows = [
        {"id": str(i), "subject": str(i // 2), "target": int(t), "probabilities": [1 - p, p]}
        for i, (p, t) in enumerate(zip(probabilities, targets, strict=True))
    ]
    value = auc(probabilities, np.array(targets) == 1)
    folder.mkdir()
    content = {"auc_mean": value, "classes": ["well", "sick"], "rows": rows, "cases": len(rows)}
    (folder / "results.json").write_text(json.dumps(content))
    (folder / "log.jsonl").write_text("")
    return folder


def test_areas_are_compared_on_the_same_subjects(tmp_path):
    random = np.random.default_rng(0)
    targets = np.arange(60) % 2
    runs = {}
    for arm, signal in (("base", 0.3), ("better", 2.0)):
        noise = random.normal(size=(2, 60))
        runs[arm] = Scores(
            tuple(
                (
                    result(
                        tmp_path / f"{arm}{i}", 1 / (1 + np.exp(-(signal * targets + n))), targets
                    ),
                )
                for i, n in enumerate(noise)
            )
        )
    mean, low, high = runs["better"].difference(runs["base"])
    assert mean == pytest.approx(np.mean(runs["better"].by_seed) - np.mean(runs["base"].by_seed))
    assert 0 < low < mean < high
    low, high = runs["better"].interval()
    assert low < np.mean(runs["better"].by_seed) < high


def findings(folder, probabilities, targets):
    """A run of two findings, each there or not; both (cases, 2)."""
    rows = [
        {"id": str(i), "subject": str(i), "target": list(map(int, t)), "probabilities": list(p)}
        for i, (p, t) in enumerate(zip(probabilities, targets, strict=True))
    ]
    folder.mkdir()
    content = {"auc_mean": 0.5, "classes": ["nodule", "mass"], "rows": rows, "cases": len(rows)}
    (folder / "results.json").write_text(json.dumps(content))
    return Scores(((folder,),))


def test_two_findings_are_not_two_classes_of_which_one_is_enough(tmp_path):
    random = np.random.default_rng(0)
    targets = random.random((80, 2)) < 0.5
    noise = random.normal(size=(80, 2))
    base = findings(tmp_path / "base", noise, targets)
    better = findings(tmp_path / "better", noise + targets * [4.0, 0.0], targets)
    areas = [auc((noise + targets * [4.0, 0.0])[:, i], targets[:, i]) for i in range(2)]
    mean, low, high = better.difference(base)
    assert mean == pytest.approx((areas[0] - auc(noise[:, 0], targets[:, 0])) / 2)
    assert 0.1 < low < mean < high
    low, high = better.interval()
    assert low < np.mean(areas) < high


def test_a_class_that_no_case_has_is_left_out_of_score_and_difference(tmp_path):
    random = np.random.default_rng(0)
    targets = np.zeros((40, 2), bool)
    targets[::2, 0] = True
    base = findings(tmp_path / "base", random.random((40, 2)), targets)
    better = findings(tmp_path / "better", random.random((40, 2)) + targets, targets)
    mean, low, high = better.difference(base)
    assert 0 < low <= mean <= high


def test_a_structure_that_only_some_seeds_invent_counts_where_they_do(tmp_path):
    def arm(name, *seeds):
        folders = []
        for seed, dice in enumerate(seeds):
            rows = [{"id": str(i), "subject": str(i), "dice": {"a": d}} for i, d in enumerate(dice)]
            (tmp_path / f"{name}{seed}").mkdir()
            content = {"dice_mean": float(np.nanmean(dice)), "rows": rows, "cases": 3}
            (tmp_path / f"{name}{seed}/results.json").write_text(json.dumps(content))
            folders.append((tmp_path / f"{name}{seed}",))
        return Scores(tuple(folders))

    nan = float("nan")
    invents = arm("invents", [0.8, 0.8, 0.0], [0.8, 0.8, nan])
    knows = arm("knows", [0.8, 0.8, nan], [0.8, 0.8, nan])
    assert knows.difference(invents)[0] == pytest.approx(1 / 6)
    assert invents.difference(knows)[0] == pytest.approx(-1 / 6)
    assert knows.differences_by_seed(invents) == pytest.approx([1 / 3, 0])
    low, high = invents.interval()
    assert low < np.mean(invents.by_seed) < high


def test_arms_that_were_measured_on_other_cases_are_not_compared(tmp_path):
    targets = np.arange(8) % 2
    first = Scores(((result(tmp_path / "first", targets / 2, targets),),))
    content = (result(tmp_path / "other", targets / 2, targets) / "results.json").read_text()
    (tmp_path / "other/results.json").write_text(content.replace('"id": "0"', '"id": "9"'))
    with pytest.raises(InputError, match=r"other cases.*prepared anew.*run=OTHER"):
        first.difference(Scores(((tmp_path / "other",),)))


def test_one_subject_has_no_interval(tmp_path):
    mean, low, high = bootstrap_over_subjects(lambda cases: 0.7, ["a", "a"])
    assert mean == 0.7 and np.isnan([low, high]).all()


def written(folder, dice, steps):
    """A run that segments ten images so well, and rises to it in a straight line of ``steps``."""
    rows = [{"id": str(i), "subject": str(i), "dice": {"a": dice + i / 100}} for i in range(10)]
    folder.mkdir()
    content = {"dice_mean": dice + 0.045, "rows": rows, "cases": 10, "subjects": 10}
    (folder / "results.json").write_text(json.dumps(content))
    curve = [{"step": step, WATCHED: dice * min(1, step / steps)} for step in range(0, 101, 10)]
    (folder / "log.jsonl").write_text("\n".join(map(json.dumps, curve)))
    return Run("finetune", folder, "", ())


def test_the_arm_that_is_better_and_faster_is_said_to_be_so(tmp_path):
    runs = {
        arm: [[written(tmp_path / f"{arm}{seed}", dice, steps)] for seed in range(2)]
        for arm, dice, steps in (("scratch", 0.6, 80), ("masked", 0.7, 40), ("worse", 0.5, 100))
    }
    scratch, masked, worse = rows_of(Cell({}, runs), "scratch", target=0.35)
    assert "difference" not in scratch
    assert masked["difference"] == pytest.approx(0.1)
    assert masked["difference_ci95"] == pytest.approx([0.1, 0.1])
    assert masked["speed_up"]["ratio"] == pytest.approx((80 * 0.35 / 0.6) / (40 * 0.35 / 0.7))
    assert worse["difference"] == pytest.approx(-0.1) and worse["speed_up"]["ratio"] < 1
    assert masked["verdict"] != worse["verdict"]


def test_interval_of_a_mean_area_is_that_of_one_model_seen_twice():
    random = np.random.default_rng(1)
    positive = np.arange(40) % 2 == 1
    first, second = random.normal(size=(2, 40)) + positive
    assert delong_mean_interval([first, first], positive) == delong_interval(first, positive)
    both = delong_mean_interval([first, second], positive)
    assert both.value == pytest.approx((auc(first, positive) + auc(second, positive)) / 2)
    widths = [e.high - e.low for e in (both, delong_interval(first, positive))]
    assert widths[0] < widths[1]


def test_subjects_are_drawn_as_wholes():
    values = np.repeat([0.0, 1.0, 2.0, 3.0], 5)
    owners = np.repeat(list("abcd"), 5)
    mean, low, high = bootstrap_over_subjects(lambda cases: values[cases].mean(), owners)
    assert mean == 1.5 and high - low > 1.5


def test_watched_score_of_a_classifier_is_logged(tmp_path):
    import finetune

    rows = ["file,class,group"]
    for index in range(16):
        picture(tmp_path / f"data/p{index}.png", index, bright=index % 2 == 1)
        rows.append(f"p{index}.png,{'sick' if index % 2 else 'well'},g{index}")
    (tmp_path / "data/labels.csv").write_text("\n".join(rows))
    options = PrepareOptions(stages=3, jobs=1, picture_size=32, held_back=0.4)
    prepare_dataset(tmp_path / "data", tmp_path / "cache", options)
    (tmp_path / "recipe.toml").write_text("")
    common = ["network.name=resenc_classifier", "network.features=4,8,8", "network.blocks=1,1,1"]
    common += ["device=cpu", "loop.steps=2", "loop.validate_every=1", "loop.tensorboard=false"]
    run = tmp_path / "run"
    places = [f"cache={tmp_path / 'cache'}", f"run={run}"]
    assert finetune.main([str(tmp_path / "recipe.toml"), *places, "watch=6", *common]) == 0
    lines = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
    scores = [line["held_back_score"] for line in lines if "held_back_score" in line]
    assert len(scores) == 2 and all(0 <= score <= 1 for score in scores)
