"""Small-sample statistics against numbers worked out by hand."""

from __future__ import annotations

import doctest

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


def test_holm_by_hand() -> None:
    # sorted: .005 x 4 = .02, .01 x 3 = .03, .03 x 2 = .06, .04 x 1 = .04 but not below .06
    assert stats.holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert stats.holm([0.9, None, 0.6]) == [1.0, None, 1.0]
    assert stats.holm([]) == []


def test_item_error_of_a_mean() -> None:
    assert stats.item_error([0.03, 0.04]) == pytest.approx(0.025)
    assert stats.item_error([0.03, None]) is None
    assert stats.item_error([]) is None


def test_smoothing_keeps_length_and_mean() -> None:
    assert stats.smooth([1.0, 2.0, 3.0, 4.0], 3) == pytest.approx([1.5, 2.0, 3.0, 3.5])
    assert stats.smooth([], 3) == []
