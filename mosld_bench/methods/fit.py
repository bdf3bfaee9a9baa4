"""Matched budgets: turn a recipe's knob until its trainable parameters, routers included, meet a target.

Two counts (see `count.py`) foresee the others along a straight line. What the line leads to is counted as well, and
where that is something else, as with a plug-in that grows otherwise, the search is done again with a count at every
step. Where no whole rank meets the target, some modules, spread evenly over the depth, get one rank more (PEFT's
``rank_pattern``).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

from mosld_bench.errors import BudgetError, UnknownNameError
from mosld_bench.methods import registry
from mosld_bench.methods.base import Method
from mosld_bench.methods.count import CountByModule, Counts, base_size
from mosld_bench.spec.budget import Budget, Count, Rank, Share, SizeOf
from mosld_bench.spec.recipe import Recipe
from mosld_bench.spec.trial import Fit

if TYPE_CHECKING:
    from transformers import PreTrainedConfig

_LARGEST_KNOB = 1 << 20


class _Candidate(NamedTuple):
    """Params of a method, and the trainable parameters that come of them, counted or foreseen."""

    params: dict[str, Any]
    modules: CountByModule

    @property
    def trainable(self) -> int:
        return sum(self.modules.values())


def fit_budget(
    recipe: Recipe,
    config: PreTrainedConfig,
    budget: str,
    *,
    tolerance: float = 0.01,
    recipes: Mapping[str, Recipe] | None = None,
    counts: Counts | None = None,
) -> Fit:
    """Fit ``recipe`` on the model of ``config`` to ``budget``.

    ``budget`` is a count (``60000``, ``250k``), a share of the base model (``0.5%``), another recipe's size
    (``lora-r8``, looked up in ``recipes``), a rank (``r8``: this rank and whatever size comes of it) or ``native``, the
    recipe as written. ``tolerance`` is relative. ``counts``, of the same ``config``, keeps what was counted for other
    fits.

    Raises BudgetError, naming the nearest reachable counts, where none lies within the tolerance.
    """
    method = registry.get(recipe.method)
    params = dict(recipe.params)
    counts = counts or Counts(config)
    budget = Budget.parse(budget)
    if isinstance(budget, Rank):
        params = method.at(params, budget.rank, "r")
    if not budget.sets_size:
        trainable, total = counts.trainable(method, params), counts.total(method, params)
        return Fit(target=None, trainable=trainable, total=total, residual=None, params=params)
    target = target_of(budget, config, recipes or {}, counts=counts)
    knob = recipe.knob or method.knob_of(params)
    if knob is None:
        raise BudgetError(
            f"The recipe {recipe.name!r} (method {recipe.method!r}) has a fixed size and cannot be fitted to the "
            f"budget {budget}; run it at the budget 'native', or name its size in the recipe's knob."
        )
    if not isinstance(params.get(knob), int):
        raise BudgetError(f"The recipe {recipe.name!r} gives no integer {knob!r}, which the budget turns.")

    def count_at(value: int) -> CountByModule:
        return counts.by_module(method, method.at(params, value, knob))

    candidates = _candidates(method, params, knob=knob, count_at=_foreseen(count_at), target=target)
    best = _nearest(candidates, target)
    trainable = counts.trainable(method, best.params)
    is_as_foreseen = counts.by_module(method, best.params) == best.modules
    if not is_as_foreseen or abs(trainable - target) > tolerance * target:
        # No straight line, or one that leads nowhere near: every step of the search is counted.
        searched = _candidates(method, params, knob=knob, count_at=count_at, target=target)
        candidates = [_Candidate(each.params, counts.by_module(method, each.params)) for each in searched]
        best = _nearest(candidates, target)
        trainable = best.trainable
    residual = (trainable - target) / target
    if abs(residual) > tolerance:
        reachable = sorted({counts.trainable(method, candidate.params) for candidate in candidates})
        raise BudgetError(
            f"The recipe {recipe.name!r} cannot meet the budget {budget} ({target:,} parameters) within "
            f"{tolerance:.1%}: the nearest reachable counts are {' and '.join(f'{n:,}' for n in reachable)}. Choose "
            f"one of them, or raise budget_tolerance."
        )
    total = counts.total(method, best.params)
    return Fit(target=target, trainable=trainable, total=total, residual=residual, params=best.params)


def target_of(
    budget: str, config: PreTrainedConfig, recipes: Mapping[str, Recipe], *, counts: Counts | None = None
) -> int:
    """The number of trainable parameters that ``budget`` asks for on the model of ``config``.

    Raises BudgetError for a budget that asks for none (``native``, ``r8``), or for less than one, and
    UnknownNameError for the size of a recipe that is not in ``recipes``.
    """
    parsed = Budget.parse(budget)
    if isinstance(parsed, Count):
        target = parsed.parameters
    elif isinstance(parsed, Share):
        target = round(parsed.fraction * base_size(config))
    elif isinstance(parsed, SizeOf):
        if parsed.recipe not in recipes:
            raise UnknownNameError("recipe", parsed.recipe, recipes, f"The budget {budget!r} is another recipe's size.")
        recipe = recipes[parsed.recipe]
        method = registry.get(recipe.method)
        knob = recipe.knob or method.knob_of(recipe.params)
        if knob is None:
            raise BudgetError(f"The budget {budget!r} names the recipe {recipe.name!r}, which has no size to set.")
        target = (counts or Counts(config)).trainable(method, method.at(recipe.params, parsed.rank, knob))
    else:
        raise BudgetError(f"The budget {budget!r} asks for no number of trainable parameters.")
    if target < 1:
        raise BudgetError(f"The budget {budget!r} comes to {target} parameters; at least 1 is needed.")
    return target


def _foreseen(count_at: Callable[[int], CountByModule]) -> Callable[[int], CountByModule]:
    """``count_at`` (knob value -> counts) continued from its first two values, as most methods grow in a line."""

    def foreseen(value: int) -> CountByModule:
        first = count_at(1)
        second = count_at(2) if value > 1 else first
        if value <= 2 or sum(second.values()) <= sum(first.values()):
            return count_at(value)
        return {module: count + (value - 1) * (second.get(module, 0) - count) for module, count in first.items()}

    return foreseen


def _candidates(
    method: Method, params: dict[str, Any], *, knob: str, count_at: Callable[[int], CountByModule], target: int
) -> list[_Candidate]:
    """Params around ``target`` with the counts that ``count_at`` has for them; the rank spread over modules first."""
    low = _largest_below(lambda value: sum(count_at(value).values()), target)
    if low < 1:
        return [_Candidate(method.at(params, 1, knob), count_at(1))]
    under, over = (_Candidate(method.at(params, value, knob), count_at(value)) for value in (low, low + 1))
    can_spread = method.pattern is not None and knob == method.knob
    return [*([_spread(method, under, over, knob=knob, target=target)] if can_spread else []), under, over]


def _nearest(candidates: list[_Candidate], target: int) -> _Candidate:
    return min(candidates, key=lambda candidate: abs(candidate.trainable - target))


def _largest_below(count: Callable[[int], int], target: int) -> int:
    """The largest knob value whose count is at most ``target`` (0 if none): doubling, then bisection."""
    if count(1) > target:
        return 0
    low, high = 1, 2
    while count(high) <= target:
        if high >= _LARGEST_KNOB:
            return high
        low, high = high, high * 2
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if count(middle) <= target else (low, middle)
    return low


def _spread(method: Method, low: _Candidate, high: _Candidate, *, knob: str, target: int) -> _Candidate:
    """``low`` with one more rank on as many modules as bring the count nearest to ``target``."""
    assert method.pattern is not None
    missing = target - low.trainable
    raised: list[str] = []
    for module in _evenly(list(low.modules)):
        step = high.modules.get(module, 0) - low.modules[module]
        if step > 0 and missing >= step / 2:
            raised.append(module)
            missing -= step
    if not raised:
        return low
    # Anchored on the full name, since PEFT matches the end of a module's name against the pattern.
    names = [re.escape(module) for module in sorted(raised, key=list(low.modules).index)]
    patterns = {method.pattern: dict.fromkeys(names, high.params[knob])}
    for field, pattern in method.proportional_patterns.items():
        if field in high.params:
            patterns[pattern] = dict.fromkeys(names, high.params[field])
    return _Candidate({**low.params, **patterns}, low.modules | {module: high.modules[module] for module in raised})


def _evenly(modules: list[str]) -> list[str]:
    """The modules in an order whose every beginning is spread over the depth (van der Corput)."""

    def reversed_bits(index: int) -> float:
        value, weight = 0.0, 0.5
        while index:
            value, index, weight = value + weight * (index & 1), index >> 1, weight / 2
        return value

    order = sorted(range(len(modules)), key=reversed_bits)
    return [modules[index] for index in order]
