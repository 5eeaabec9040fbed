"""Paired differences, ranks and convergence on numbers worked out by hand."""

import numpy as np
import pytest

from mim.comparison import mean_ranks, paired_difference
from mim.convergence import area_under_curve, speed_up, steps_to_target
from MIMSegment.Logic.errors import InputError

CASES = [f"c{i}" for i in range(20)]
SUBJECTS = {case: f"s{i // 2}" for i, case in enumerate(CASES)}


def scores(shift, noise=0.0, seed=0):
    rng = np.random.default_rng(seed)
    return {case: 0.7 + shift + noise * rng.normal() for case in CASES}


def test_a_constant_gain_is_better_with_a_tight_interval():
    gain = paired_difference(scores(0), scores(0.05), SUBJECTS)
    assert (gain.mean, gain.low, gain.high) == pytest.approx((0.05, 0.05, 0.05))
    assert (gain.cases, gain.subjects, gain.verdict()) == (20, 10, "better")


@pytest.mark.parametrize(
    ("shift", "noise", "verdict"),
    [(0, 0.002, "no harm"), (0, 0.2, "undecided"), (-0.05, 0.01, "worse"), (0.05, 0.01, "better")],
)
def test_the_verdict_follows_the_interval(shift, noise, verdict):
    gain = paired_difference(scores(0), scores(shift, noise), SUBJECTS)
    assert gain.verdict(margin=0.01) == verdict


def test_cases_without_a_score_in_both_do_not_count():
    a, b = scores(0), scores(0.1)
    a["c0"], b["c1"] = float("nan"), float("nan")
    del b["c2"]
    assert paired_difference(a, b, SUBJECTS).cases == 17
    with pytest.raises(InputError, match="no case"):
        paired_difference(a, {}, SUBJECTS)


def constant(**methods):
    return {method: dict.fromkeys(CASES, value) for method, value in methods.items()}


def test_ranks_average_over_data_sets_and_ties_share():
    ranks = mean_ranks(
        {"x": constant(a=0.9, b=0.8, c=0.7), "y": constant(a=0.6, b=0.6, c=0.5)},
        {"x": SUBJECTS, "y": SUBJECTS},
        resamples=20,
    )
    assert {name: rank.mean for name, rank in ranks.items()} == {"a": 1.25, "b": 1.75, "c": 3.0}
    assert (ranks["a"].low, ranks["a"].high) == (1.25, 1.25)


def test_ranks_of_close_methods_have_a_wide_interval():
    noisy = {"x": {"a": scores(0, 0.1, 1), "b": scores(0, 0.1, 2)}}
    rank = mean_ranks(noisy, {"x": SUBJECTS})["a"]
    assert (rank.low, rank.high) == (1, 2)


def test_ranks_are_as_uncertain_as_few_subjects_make_them():
    """B is ahead in one of two subjects only, though in most cases."""
    a = dict.fromkeys(CASES, 0.7)
    b = {case: 0.9 if i else 0.5 for i, case in enumerate(CASES)}
    of_two = {case: "first" if i == 0 else "rest" for i, case in enumerate(CASES)}
    rank = mean_ranks({"x": {"a": a, "b": b}}, {"x": of_two})["b"]
    assert (rank.mean, rank.low, rank.high) == (1, 1, 2)
    alone = mean_ranks({"x": {"a": a, "b": b}}, {"x": dict.fromkeys(CASES, "one")})["b"]
    assert alone.mean == 1 and np.isnan([alone.low, alone.high]).all()


def test_draws_without_a_score_do_not_make_the_ranks_unknown():
    a = dict.fromkeys(CASES, float("nan")) | {"c0": 0.9, "c2": 0.8}
    rank = mean_ranks({"x": {"a": a, "b": scores(0)}}, {"x": SUBJECTS})["a"]
    assert (rank.mean, rank.low, rank.high) == (1, 1, 1)
    with pytest.raises(InputError, match="a has no case with a score"):
        mean_ranks(
            {"x": {"a": dict.fromkeys(CASES, float("nan")), "b": scores(0)}}, {"x": SUBJECTS}
        )


def test_methods_measured_on_other_cases_are_not_ranked():
    uneven = constant(a=1, b=2)
    del uneven["b"]["c3"]
    with pytest.raises(InputError, match="equal cases"):
        mean_ranks({"x": uneven}, {"x": SUBJECTS})
    with pytest.raises(InputError, match="same methods"):
        mean_ranks({"x": constant(a=1), "y": constant(b=1)}, {"x": SUBJECTS, "y": SUBJECTS})


STEPS = [0, 100, 200, 300]


def test_steps_to_target_are_interpolated():
    assert steps_to_target(STEPS, [0, 0.4, 0.6, 0.8], 0.5) == pytest.approx(150)
    assert steps_to_target(STEPS, [0.6, 0.4, 0.6, 0.8], 0.5) == 0
    assert steps_to_target(STEPS, [0, 0.1, 0.2, 0.3], 0.5) == float("inf")


def test_area_under_a_straight_line():
    assert area_under_curve(STEPS, [0, 1 / 3, 2 / 3, 1]) == pytest.approx(0.5)


def test_a_method_that_needs_half_the_steps_is_twice_as_fast():
    slow = [(STEPS, [0, 0.2, 0.4, 0.6 + seed / 100]) for seed in range(4)]
    fast = [([s / 2 for s in steps], values) for steps, values in slow]
    result = speed_up(slow, fast, 0.5)
    assert (result.ratio, result.low, result.high) == pytest.approx((2, 2, 2))
    assert (result.reached, result.runs) == (4, 4)


def test_the_speed_up_is_the_geometric_mean_of_the_pairs_with_their_spread():
    slow = [(STEPS, [0, 0.2, 0.4, 0.6 + seed / 100]) for seed in range(3)]
    ratios = (1, 2, 4)
    fast = [([s / r for s in steps], v) for r, (steps, v) in zip(ratios, slow, strict=True)]
    result = speed_up(slow, fast, 0.5)
    # One of 27 draws takes the same pair three times, which is more often than 2.5 %.
    assert (result.ratio, result.low, result.high) == pytest.approx((2, 1, 4))
    reversed_ = speed_up(fast, slow, 0.5)
    assert (reversed_.ratio, reversed_.low, reversed_.high) == pytest.approx((0.5, 0.25, 1))


def test_runs_that_never_reach_the_target_are_counted_out_loud():
    slow = [(STEPS, [0, 0.1, 0.2, 0.3]), (STEPS, [0, 0.4, 0.6, 0.8])]
    result = speed_up(slow, [slow[1], slow[1]], 0.5)
    assert (result.ratio, result.reached, result.runs) == (1, 1, 2)
    assert np.isnan(result.low)
