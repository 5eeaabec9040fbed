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
