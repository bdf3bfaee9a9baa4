"""Trials that train as one end where each of them ends alone; whether that is worth it, the benchmark says."""

from __future__ import annotations

import pytest

from mosld_bench.spec.trial import TrainSpec
from tests.benchmarks import stacked
from tests.benchmarks.stacked import Setting, gap

SPEC = TrainSpec(steps=6, batch_size=8, learning_rate=5e-3, max_length=128, validation_items=1, micro_tokens=1 << 20)


@pytest.mark.parametrize(("recipe", "weights"), [("lora", 1e-5), ("mosld", 1e-5), ("mola", 1e-4)])
def test_a_stack_ends_where_its_trials_end_alone(recipe: str, weights: float) -> None:
    """Dropout of inputs and of weights, balance losses, clipping and rates are each trial's own."""
    of_loss, of_weight = gap(Setting(recipe, spec=SPEC), 3)
    assert 0 < of_loss < 1e-5
    assert 0 < of_weight < weights


def test_a_trial_of_a_stack_learns_nothing_from_its_neighbours() -> None:
    """Its losses are the same whoever is beside it."""
    setting = Setting("mosld", spec=SPEC)
    base, (items, pad) = setting.base(), setting.examples()
    pair = stacked.Stack(setting, [0, 1], base).train(items, pad)
    other = stacked.Stack(setting, [1, 5], base).train(items, pad)
    assert pair[1] == pytest.approx(other[0], abs=1e-5)
    assert pair[0] != pytest.approx(other[1], abs=1e-2)


def test_a_mixture_that_is_not_stacked_is_refused() -> None:
    setting = Setting("alora", spec=SPEC)
    with pytest.raises(NotImplementedError, match="no stack of a mixture like"):
        stacked.Stack(setting, [0], setting.base())
