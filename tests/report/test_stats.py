"""Small-sample statistics against numbers worked out by hand."""

from __future__ import annotations

import doctest
import random

import pytest

from mosld_bench.report import stats


def test_doctests() -> None:
    assert doctest.testmod(stats).failed == 0


def test_mean_and_sample_sd() -> None:
    mean, sd = stats.mean_sd([0.60, 0.62, 0.67])
    assert mean == pytest.approx(0.63)
    # squares of the deviations: 9 + 1 + 16 = 26 (in 1e-4), over n - 1 = 2
    assert sd == pytest.approx(0.0013**0.5)
    assert stats.mean_sd([0.5]) == (0.5, None)
    assert stats.mean_sd([]) == (None, None)


def test_paired_t_by_hand() -> None:
    difference = stats.paired({0: 0.70, 1: 0.72, 2: 0.71}, {0: 0.69, 1: 0.69, 2: 0.69})
    assert difference is not None
    # differences 1, 3, 2 points: mean 2, sd 1, error 1/sqrt(3); t(0.975, 2) = 4.302653
    assert difference.mean == pytest.approx(0.02)
    half = 4.302653 * 0.01 / 3**0.5
    assert [difference.low, difference.high] == pytest.approx([0.02 - half, 0.02 + half], abs=1e-6)
    # t = 2 sqrt(3); for two degrees of freedom p = 1 - t / sqrt(t^2 + 2)
    assert difference.p == pytest.approx(1 - 12**0.5 / 14**0.5)
    assert difference.includes_zero
    assert difference.pairs == 3


def test_pairs_are_common_seeds() -> None:
    difference = stats.paired({0: 1.0, 1: 2.0, 7: 50.0}, {0: 0.0, 1: 0.0, 9: 3.0})
    assert difference is not None
    assert (difference.pairs, difference.mean) == (2, 1.5)
    assert stats.paired({0: 1.0}, {1: 1.0}) is None
    single = stats.paired({0: 1.0}, {0: 0.5})
    assert single == stats.Difference(0.5, None, None, None, 1)
    assert single.includes_zero


def test_equal_differences_have_no_noise() -> None:
    same = stats.paired({0: 0.5, 1: 0.6}, {0: 0.5, 1: 0.6})
    assert same is not None
    assert same == stats.Difference(0.0, None, None, None, 2)
    # Scores of few items differ by the same now and then; that is rounding and not certainty.
    shifted = stats.paired({0: 0.75, 1: 0.5}, {0: 0.5, 1: 0.25})
    assert shifted == stats.Difference(0.25, None, None, None, 2)
    assert shifted.includes_zero


def test_holm_by_hand() -> None:
    # sorted: .005 x 4 = .02, .01 x 3 = .03, .03 x 2 = .06, .04 x 1 = .04 but not below .06
    assert stats.holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert stats.holm([0.9, None, 0.6]) == [1.0, None, 1.0]
    assert stats.holm([]) == []


def test_interval_covers_at_its_level() -> None:
    draw, trials, covered = random.Random(0), 1500, 0
    for _ in range(trials):
        theirs = {seed: draw.gauss(0.6, 0.02) for seed in range(3)}
        ours = {seed: value + 0.01 + draw.gauss(0, 0.008) for seed, value in theirs.items()}
        difference = stats.paired(ours, theirs)
        assert difference is not None
        assert difference.low is not None
        assert difference.high is not None
        covered += difference.low <= 0.01 <= difference.high
    assert 0.93 < covered / trials < 0.97


def test_item_error_of_a_mean() -> None:
    assert stats.item_error([0.03, 0.04]) == pytest.approx(0.025)
    assert stats.item_error([0.03, None]) is None
    assert stats.item_error([]) is None


def test_smoothing_keeps_length_and_mean() -> None:
    assert stats.smooth([1.0, 2.0, 3.0, 4.0], 3) == pytest.approx([1.5, 2.0, 3.0, 3.5])
    assert stats.smooth([], 3) == []
