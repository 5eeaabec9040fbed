import numpy as np
import pytest

from mim.statistics import bootstrap_mean_ci, few_subjects, span


def test_interval_holds_the_true_mean_about_as_often_as_it_says():
    rng = np.random.default_rng(0)
    hits = 0
    for seed in range(200):
        values = rng.normal(0.8, 0.1, 40)
        _, low, high = bootstrap_mean_ci(values, range(40), resamples=500, seed=seed)
        hits += low <= 0.8 <= high
    assert 0.88 <= hits / 200 <= 0.99


def test_images_of_one_subject_do_not_narrow_the_interval():
    rng = np.random.default_rng(1)
    values = rng.normal(0.8, 0.1, 20)
    _, low, high = bootstrap_mean_ci(values, range(20))
    _, copied_low, copied_high = bootstrap_mean_ci(np.repeat(values, 5), np.repeat(range(20), 5))
    assert copied_high - copied_low == pytest.approx(high - low, rel=0.05)


def test_undefined_scores_do_not_count_and_one_subject_gives_no_interval():
    mean, low, high = bootstrap_mean_ci([0.5, np.nan, 0.7], ["a", "b", "c"])
    assert mean == pytest.approx(0.6)
    assert 0.5 <= low <= high <= 0.7
    assert np.isnan(bootstrap_mean_ci([0.5, 0.7], ["a", "a"])[1])
    assert np.isnan(bootstrap_mean_ci([np.nan], ["a"])[0])


def test_several_runs_on_the_same_cases_have_the_interval_of_their_mean():
    runs = np.random.default_rng(2).normal(0.8, 0.1, (3, 20))
    subjects = np.arange(20) // 2
    assert bootstrap_mean_ci(runs, subjects) == pytest.approx(
        bootstrap_mean_ci(runs.mean(axis=0), subjects)
    )


def test_a_case_that_only_some_runs_have_counts_in_their_means():
    nan = np.nan
    mean, low, high = bootstrap_mean_ci([[0.8, 0.8, 0.0], [0.8, 0.8, nan]], list("abc"))
    assert mean == pytest.approx((1.6 / 3 + 0.8) / 2)
    assert low < mean < high


def test_no_interval_is_a_dash():
    assert span(0.81249, 0.9) == "0.812 to 0.900"
    assert span(-0.5, 0.25, "+.1f") == "-0.5 to +0.2"
    assert span(float("nan"), 1.0) == "–"


def test_what_is_said_of_few_subjects_is_about_what_happens():
    rng, hits = np.random.default_rng(3), 0
    for seed in range(300):
        _, low, high = bootstrap_mean_ci(
            rng.normal(0.8, 0.1, 5), range(5), resamples=300, seed=seed
        )
        hits += low <= 0.8 <= high
    said = few_subjects(5)
    assert f"about {83} of 100" in said and abs(hits / 3 - 83) < 6
    assert few_subjects(10) == few_subjects(1) == ""
