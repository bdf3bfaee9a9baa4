"""Garbage is searched for seldom while a plan is made, and as before afterwards."""

from __future__ import annotations

import gc

import pytest

from mosld_bench import collector


def test_the_search_is_put_off_inside_the_block_alone() -> None:
    before = gc.get_threshold()
    with pytest.raises(ValueError, match="100000"), collector.seldom():
        raise ValueError(gc.get_threshold())
    assert gc.get_threshold() == before


def test_it_goes_on_inside_the_block() -> None:
    with collector.seldom():
        before = gc.get_stats()[0]["collections"]
        kept = [[number] for number in range(250_000)]
        assert len(kept) == 250_000
        assert gc.get_stats()[0]["collections"] - before == 2
