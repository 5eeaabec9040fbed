"""AUC against its definition and DeLong's formulas written out."""

import numpy as np
import pytest

from mim.auc import auc, delong_interval, delong_p_value, sensitivity_at_specificity


def sample(seed=0, count=60, ties=True):
    rng = np.random.default_rng(seed)
    positive = rng.random(count) < 0.4
    first = rng.normal(size=count) + positive
    second = first + rng.normal(size=count)
    return (first.round(1), second.round(1), positive) if ties else (first, second, positive)


def kernel(scores, positive):
    """psi(x, y) for every positive and negative."""
    x, y = scores[positive][:, None], scores[~positive][None]
    return (x > y) + 0.5 * (x == y)


@pytest.mark.parametrize("ties", [False, True])
def test_auc_equals_the_mean_over_pairs_and_the_rank_formula(ties):
    from scipy.stats import mannwhitneyu

    scores, _, positive = sample(ties=ties)
    assert auc(scores, positive) == pytest.approx(kernel(scores, positive).mean(), abs=1e-12)
    u = mannwhitneyu(scores[positive], scores[~positive]).statistic
    assert auc(scores, positive) == pytest.approx(u / positive.sum() / (~positive).sum(), abs=1e-12)


def test_interval_has_delongs_variance():
    scores, _, positive = sample()
    psi = kernel(scores, positive)
    variance = psi.mean(1).var(ddof=1) / len(psi) + psi.mean(0).var(ddof=1) / psi.shape[1]
    found = delong_interval(scores, positive)
    assert (found.high - found.low) / 2 == pytest.approx(
        1.959963984540054 * variance**0.5, abs=1e-12
    )


def test_paired_test_has_delongs_covariance():
    from scipy.stats import norm

    first, second, positive = sample()
    a, b = kernel(first, positive), kernel(second, positive)
    s10, s01 = np.cov(a.mean(1), b.mean(1)), np.cov(a.mean(0), b.mean(0))
    contrast = np.array([1, -1])
    variance = contrast @ (s10 / len(a) + s01 / a.shape[1]) @ contrast
    expected = 2 * norm.sf(abs(a.mean() - b.mean()) / variance**0.5)
    assert delong_p_value(first, second, positive) == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("specificity", [0.5, 0.8, 0.9, 1.0])
def test_sensitivity_is_the_best_of_all_thresholds_that_keep_the_specificity(specificity):
    scores, _, positive = sample()
    best = max(
        (scores[positive] > threshold).mean()
        for threshold in scores
        if (scores[~positive] <= threshold).mean() >= specificity - 1e-12
    )
    found = sensitivity_at_specificity(scores, positive, specificity)
    assert found.value == best
    assert found.low <= best <= found.high


def test_one_kind_of_case_alone_has_no_auc_and_equal_models_no_difference():
    assert np.isnan(auc([1, 2], [True, True])) and np.isnan(delong_interval([1], [False]).low)
    assert np.isnan(sensitivity_at_specificity([1], [True]).value)
    assert np.isnan(delong_p_value([1, 2], [2, 1], [True, True]))
    scores, _, positive = sample()
    assert delong_p_value(scores, scores, positive) == 1.0
    assert delong_interval([1, 2, 3, 4], [False, False, True, True]).value == 1.0


def several(seed=0, subjects=25, images=4):
    """Images of subjects with a level of their own; some have images of both kinds."""
    rng = np.random.default_rng(seed)
    owner = np.repeat(np.arange(subjects), images)
    odds = np.array([0.05, 0.5, 0.95])[rng.integers(3, size=subjects)]
    positive = rng.random(len(owner)) < odds[owner]
    scores = positive + rng.normal(size=subjects)[owner] + 0.5 * rng.normal(size=len(owner))
    return scores, positive, owner.astype(str)


def width(estimate):
    return estimate.high - estimate.low


def test_copies_of_an_image_do_not_narrow_the_interval():
    scores, _, positive = sample()
    owner = np.arange(len(scores)).astype(str)
    once, thrice = (
        delong_interval(*(np.repeat(values, n) for values in (scores, positive, owner)))
        for n in (1, 3)
    )
    assert (thrice.low, thrice.high) == pytest.approx((once.low, once.high), abs=1e-12)
    assert width(once) == pytest.approx(width(delong_interval(scores, positive)), abs=1e-12)
    found = sensitivity_at_specificity(
        *(np.repeat(values, 3) for values in (scores, positive)), 0.8, np.repeat(owner, 3)
    )
    alone = sensitivity_at_specificity(scores, positive, 0.8)
    assert width(found) == pytest.approx(width(alone), abs=0.12)


def test_the_interval_over_subjects_is_as_wide_as_a_bootstrap_of_them():
    scores, positive, owner = several()
    names, rng = np.unique(owner), np.random.default_rng(0)
    drawn = []
    for _ in range(2000):
        chosen = np.concatenate([np.flatnonzero(owner == n) for n in rng.choice(names, len(names))])
        drawn.append(auc(scores[chosen], positive[chosen]))
    found = width(delong_interval(scores, positive, owner)) / 2 / 1.96
    assert found == pytest.approx(np.nanstd(drawn), rel=0.15)
    assert found > 1.3 * width(delong_interval(scores, positive)) / 2 / 1.96


def test_the_paired_test_counts_subjects():
    first, positive, owner = several()
    second = first + 0.4 * positive * (owner.astype(int) % 3 == 0)
    apart = delong_p_value(first, second, positive)
    assert delong_p_value(first, second, positive, owner) > 2 * apart
    single = np.arange(len(first)).astype(str)
    assert delong_p_value(first, second, positive, single) == pytest.approx(apart)


def test_positives_of_one_subject_have_no_interval():
    scores, positive = [0.1, 0.4, 0.3, 0.8], [False, False, True, True]
    for found in (
        delong_interval(scores, positive, list("abcc")),
        sensitivity_at_specificity(scores, positive, subjects=list("abcc")),
    ):
        assert np.isfinite(found.value) and np.isnan([found.low, found.high]).all()
    assert np.isnan(delong_p_value(scores, scores[::-1], positive, list("abcc")))
