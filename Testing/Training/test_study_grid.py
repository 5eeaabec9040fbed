"""A study's grid becomes named runs, each once, done in an order that works."""

import subprocess
import sys

import pytest

from mim.recipe import RecipeError
from mim.run_log import TrainingError
from mim.study_grid import Run, StudyRecipe, cells_of, runs_of
from mim.study_runner import do_runs
from MIMSegment.Logic.processes import start_time
from study_job import meet, note
from waiting import wait_until

ARMS = {"scratch": [], "mae": ["pre.toml", "loop.steps=5"]}


def names(**keys):
    recipe = StudyRecipe(**{"seeds": (0,), "arms": ARMS, "run": "R", **keys})
    return [run.folder.name for run in runs_of(cells_of(recipe))]


def test_every_combination_is_a_run_and_pre_trainings_come_first():
    found = names(seeds=(0, 7), grid={"finetune.subjects": [4, 0]})
    assert found == [
        "scratch-subjects=4-seed0", "pretrain-mae-seed0", "mae-subjects=4-seed0",
        "scratch-subjects=all-seed0", "mae-subjects=all-seed0",
        "scratch-subjects=4-seed7", "pretrain-mae-seed7", "mae-subjects=4-seed7",
        "scratch-subjects=all-seed7", "mae-subjects=all-seed7",
    ]  # fmt: skip


def test_training_from_scratch_is_not_repeated_along_axes_of_the_pre_training():
    grid = {"pretrain.mask.ratio": [[0.5, 0.5], [0.9, 0.9]], "pretrain.network.patch": [[8, 8, 8]]}
    found = names(grid=grid)
    assert found.count("scratch-seed0") == 1
    assert "mae-ratio=0.9x0.9-patch=8x8x8-seed0" in found and len(found) == 5


def test_arms_with_equal_pre_training_share_it():
    arms = {**ARMS, "sawtooth": [*ARMS["mae"], "finetune.transfer.schedule=sawtooth"]}
    cell = cells_of(StudyRecipe(seeds=(0,), arms=arms, run="R"))[0]
    plain, sawtooth = cell.runs["mae"][0][0], cell.runs["sawtooth"][0][0]
    assert plain.after == sawtooth.after
    assert "transfer.schedule=sawtooth" in sawtooth.overrides
    assert "transfer.schedule=sawtooth" not in (*plain.overrides, *plain.after.overrides)
    assert "loop.steps=5" in plain.after.overrides


def test_spaces_around_the_equals_sign_of_an_arm_change_nothing():
    spaced = [" pre.toml", "loop.steps = 5", " finetune.transfer.schedule = sawtooth"]
    arms = {**ARMS, "sawtooth": spaced}
    recipe = StudyRecipe(seeds=(0,), arms=arms, finetune_overrides=("watch = 2",), run="R")
    run = cells_of(recipe)[0].runs["sawtooth"][0][0]
    assert {"transfer.schedule=sawtooth", "watch=2"} <= set(run.overrides)
    assert run.after.recipe == "pre.toml" and "loop.steps=5" in run.after.overrides
    assert run.after.folder.name == "pretrain-mae-seed0"  # the same pre-training


def test_an_axis_of_both_reaches_both_commands_and_a_cache_replaces_the_other():
    cell = cells_of(
        StudyRecipe(
            seeds=(3,), arms=ARMS, cache="A", grid={"cache": ["A", "B"], "both.patch": [[8, 8, 4]]}
        )
    )[1]
    run = cell.runs["mae"][0][0]
    for overrides in (run.overrides, run.after.overrides):
        assert {"cache=B", "patch=[8, 8, 4]", "seed=3"} <= set(overrides)
    assert run.folder.name == "mae-cache=B-patch=8x8x4-seed3"


def test_caches_of_one_name_are_not_taken_for_one():
    study = StudyRecipe(arms=ARMS, grid={"cache": ["mm1/cache", "mm2/cache"]})
    with pytest.raises(RecipeError, match=r"two runs \(cache=mm1/cache and cache=mm2/cache\)"):
        runs_of(cells_of(study))


@pytest.mark.parametrize(
    ("keys", "complaint"),
    [
        ({"grid": {"subjects": [4]}}, "finetune.subjects"),
        ({"grid": {"finetune.subjects": 4}}, "list of values"),
        ({"baseline": "other"}, "the baseline"),
        ({"arms": {"scratch": []}}, "at least one arm"),
    ],
)
def test_studies_that_cannot_be_are_refused(keys, complaint):
    with pytest.raises(RecipeError, match=complaint):
        StudyRecipe(**{"arms": ARMS, **keys})


def test_arms_that_forget_their_recipe_are_refused():
    with pytest.raises(RecipeError, match="begin with a recipe"):
        cells_of(StudyRecipe(arms={"scratch": [], "mae": ["loop.steps=5"]}))


def run_named(root, name, after=None):
    return Run("finetune", root / name, "recipe", (), after)


def times(run):
    begin, end, process = (run.folder / "done").read_text().split()
    return float(begin), float(end), process


def test_several_runs_go_at_once_and_none_before_what_it_starts_from(tmp_path):
    first = run_named(tmp_path, "pretrain")
    runs = [first, run_named(tmp_path, "fine", first), run_named(tmp_path, "scratch")]
    said = []
    do_runs(runs, meet, 2, said.append)
    assert times(runs[1])[0] >= times(first)[1]
    assert len({times(run)[2] for run in (first, runs[2])}) == 2
    assert len(said) == 3 and said[-1].startswith("3/3")
    assert (first.folder / "output.log").read_text() == "doing pretrain\n"


def test_a_failed_run_stops_only_what_starts_from_it_and_is_named(tmp_path):
    broken = run_named(tmp_path, "broken")
    runs = [broken, run_named(tmp_path, "child", broken), run_named(tmp_path, "other")]
    with pytest.raises(TrainingError, match=r"2 of 3 runs failed[\s\S]*scanner") as caught:
        do_runs(runs, note, 1, lambda text: None)
    assert (tmp_path / "other/done").exists() and not (tmp_path / "child/done").exists()
    assert "broken failed" in str(caught.value)


@pytest.mark.parametrize(
    ("name", "reason"),
    [("full", "full/output.log: RuntimeError: CUDA out of memory\n"), ("killed", "out of memory")],
)
def test_a_run_that_crashes_stops_no_other(tmp_path, name, reason):
    crashed = run_named(tmp_path, name)
    runs = [crashed, run_named(tmp_path, "child", crashed), run_named(tmp_path, "other")]
    with pytest.raises(TrainingError, match="2 of 3 runs failed") as caught:
        do_runs(runs, note, 1, lambda text: None)
    assert reason in str(caught.value) + "\n" and (tmp_path / "other/done").exists()


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="looks into /proc")
def test_runs_of_a_killed_study_end_with_it(tmp_path):
    code = (
        "import sys; sys.path[:0] = sys.argv[2:]\n"
        "from pathlib import Path\n"
        "from mim.study_grid import Run\n"
        "from mim.study_runner import do_runs\n"
        "from study_job import wait_long\n"
        "if __name__ == '__main__':\n"
        "    do_runs([Run('finetune', Path(sys.argv[1]), '', ())], wait_long, 1, print)\n"
    )
    (tmp_path / "killed.py").write_text(code)
    study = subprocess.Popen(
        [sys.executable, str(tmp_path / "killed.py"), str(tmp_path / "run"), *sys.path]
    )
    mark = tmp_path / "run/process"

    def has_begun():
        assert study.poll() is None
        return mark.exists() and mark.read_text()

    wait_until(has_begun)
    study.kill()
    study.wait()
    wait_until(lambda: start_time(int(mark.read_text())) is None)
