"""Matched budgets: turn a recipe's knob until its trainable parameters, routers included, meet a target.

Two counts (see `count.py`) foresee the others along a straight line. What the line leads to is counted as well, and
where that is something else, as with a plug-in that grows otherwise, the search is done again with a count at every
step. Where no whole rank meets the target, some modules, spread evenly over the depth, get one rank more (PEFT's
``rank_pattern``).

Two things hold at every size: the scale of each module's update is the recipe's, and so are the ratios of ranks that
the recipe gives to single modules, up to whole numbers (`Method.at`).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from functools import cache
from math import inf
from typing import TYPE_CHECKING, Any, NamedTuple

from mosld_bench.compat.peft import of_module, pattern_of
from mosld_bench.errors import BenchError, BudgetError, MethodError, UnknownNameError
from mosld_bench.format import listed
from mosld_bench.methods import author, registry
from mosld_bench.methods.base import Method, Sizing
from mosld_bench.methods.count import CountByModule, Counts, base_size
from mosld_bench.spec.budget import Budget, Count, Rank, Share, SizeOf
from mosld_bench.spec.recipe import Recipe, recipe_named
from mosld_bench.spec.trial import Fit

if TYPE_CHECKING:
    from transformers import PreTrainedConfig

#: What a recipe's knob is to name.
NO_KNOB = "whole number to turn as the knob"

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
    counts = counts or Counts(config)
    budget = Budget.parse(budget)
    if not budget.sets_size:
        with _named(recipe):
            params = _at_rank(recipe, method, budget, counts) if isinstance(budget, Rank) else dict(recipe.params)
            trainable, total = counts.trainable(method, params), counts.total(method, params)
        return Fit(target=None, trainable=trainable, total=total, residual=None, params=params)
    target = target_of(budget, config, recipes or {}, counts=counts)
    with _named(recipe):
        knob = _knob(recipe, method, budget, counts)
        params = _by_module(method, recipe.params, counts, knob)
    unit = method.sizing_by(params, knob).unit

    def at(steps: int) -> dict[str, Any]:
        return method.at(params, steps * unit, knob)

    def count_at(steps: int) -> CountByModule:
        return counts.by_module(method, at(steps))

    search = _Search(method, params, knob, unit, target)
    try:
        own = _own_steps(recipe, method, knob, unit)
        line = _foreseen(count_at, lambda steps, like: counts.foreseen(method, at(steps), like), own=own)
        candidates = search.candidates(line)
        if not _holds(_nearest(candidates, target), counts, method, within=tolerance * target, target=target):
            # No straight line, or one that leads nowhere near: every step of the search is counted.
            searched = search.candidates(count_at)
            candidates = [_Candidate(each.params, counts.by_module(method, each.params)) for each in searched]
    except BenchError as error:
        with _named(recipe):
            counts.trainable(method, recipe.params)  # what is wrong with the recipe as it is written is said as such
        raise BudgetError(
            f"The recipe {recipe.name!r} cannot meet the budget {budget} ({target:,} parameters): on the way there its "
            f"{knob} takes values that the method refuses. {error}"
        ) from error
    best = _nearest(candidates, target)
    trainable = best.trainable
    residual = (trainable - target) / target
    if abs(residual) > tolerance:
        reachable = sorted({counts.trainable(method, candidate.params) for candidate in candidates})
        several = len(reachable) > 1
        raise BudgetError(
            f"The recipe {recipe.name!r} cannot meet the budget {budget} ({target:,} parameters) within "
            f"{tolerance:.1%}: the nearest reachable {'counts are' if several else 'count is'} "
            f"{listed([f'{n:,}' for n in reachable])}. Choose {'one of them' if several else 'it'}, or raise "
            f"budget_tolerance.{search.limit(best, counts)}"
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
        recipe = recipe_named(recipes, parsed.recipe, f"The budget {budget!r} is another recipe's size.")
        method = registry.get(recipe.method)
        knob = recipe.knob or method.knob_of(recipe.params)
        if knob is None:
            raise BudgetError(f"The budget {budget!r} names the recipe {recipe.name!r}, which has no size to set.")
        counts = counts or Counts(config)
        params = _by_module(method, recipe.params, counts, knob)
        target = counts.trainable(method, method.at(params, parsed.rank, knob))
    else:
        raise BudgetError(f"The budget {budget!r} asks for no number of trainable parameters.")
    if target < 1:
        raise BudgetError(f"The budget {budget!r} comes to {target} parameters; at least 1 is needed.")
    return target


def _own_steps(recipe: Recipe, method: Method, knob: str, unit: int) -> int:
    """The recipe's own value of its ``knob`` in steps of ``unit``: at least 2, which also stands for one that is none.

    Studies at a rank, and budgets of another recipe's size, count that one too.
    """
    value = {**method.defaults(recipe.params), **recipe.params}.get(knob)
    return value // unit if isinstance(value, int) and value >= 2 * unit and value % unit == 0 else 2


def _foreseen(
    count_at: Callable[[int], CountByModule], near: Callable[[int, CountByModule], CountByModule], *, own: int
) -> Callable[[int], CountByModule]:
    """``count_at`` (knob value -> counts) continued from two of its values, as most methods grow in a line.

    These are ``own``, or 2 where the method refuses it, and 1, of which ``near`` tells from the counts of the other.
    """

    @cache
    def ends() -> tuple[CountByModule, int, CountByModule]:
        with suppress(BenchError):
            return near(1, count_at(own)), own, count_at(own)
        return count_at(1), 2, count_at(2)

    def foreseen(value: int) -> CountByModule:
        first, known, last = ends()
        grown = {module: last.get(module, 0) - count for module, count in first.items()}
        if value == 1:
            return first
        if value == known or sum(last.values()) <= sum(first.values()) or any(n % (known - 1) for n in grown.values()):
            return count_at(value)
        return {module: count + (value - 1) * (grown[module] // (known - 1)) for module, count in first.items()}

    return foreseen


class _Search(NamedTuple):
    """The search for the values of a recipe's knob around a target."""

    method: Method
    params: dict[str, Any]
    knob: str
    unit: int
    target: int

    def candidates(self, count_at: Callable[[int], CountByModule]) -> list[_Candidate]:
        """Params around the target with the counts that ``count_at`` (units of the knob -> counts) has for them.

        The rank spread over the modules comes first, where the method has that.
        """

        def size(steps: int) -> float:
            """The count; infinite where the knob is too large for the model, so that the search turns back there."""
            try:
                return sum(count_at(steps).values())
            except BenchError:
                if steps == 1:
                    raise
                return inf

        low = _largest_below(size, self.target)
        if low < 1:
            return [self._candidate(1, count_at)]
        under = self._candidate(low, count_at)
        if size(low + 1) == inf:
            return [under]
        over = self._candidate(low + 1, count_at)
        sizing = self.method.sizing_by(self.params, self.knob)
        can_spread = sizing.pattern is not None and sizing.spreads
        spread = [_spread(sizing, under, over, knob=self.knob, target=self.target)] if can_spread else []
        return [*spread, under, over]

    def limit(self, best: _Candidate, counts: Counts) -> str:
        """Why the knob cannot go beyond that of ``best``, as a sentence after others; empty where it can."""
        try:
            counts.trainable(self.method, self.method.at(self.params, best.params[self.knob] + self.unit, self.knob))
        except BenchError as error:
            return f" A higher {self.knob} is refused: {error}"
        return ""

    def _candidate(self, steps: int, count_at: Callable[[int], CountByModule]) -> _Candidate:
        return _Candidate(self.method.at(self.params, steps * self.unit, self.knob), count_at(steps))


@contextmanager
def _named(recipe: Recipe) -> Iterator[None]:
    """Around attaching: what the method says against its params is said with the name of ``recipe``."""
    try:
        yield
    except BudgetError:
        raise
    except BenchError as error:
        kind = MethodError if isinstance(error, MethodError) else BenchError
        raise kind(f"The recipe {recipe.name!r} cannot be run. {error}") from error


def _knob(recipe: Recipe, method: Method, budget: Budget, counts: Counts) -> str:
    """The field of ``recipe`` that ``budget`` turns. Raises BudgetError where it has none, or no whole number in it."""
    knob = recipe.knob or method.knob_of(recipe.params)
    if knob is None:
        counts.trainable(method, recipe.params)  # what is wrong with the recipe at any budget is said first
        why = method.sizing(recipe.params).why_fixed
        if (wanted := method.sizing(recipe.params).knob) is not None and author.is_foreign(type(method)):
            why = f"its knob {wanted!r} is not in the params ({author.place(type(method))})"
        raise BudgetError(
            f"The recipe {recipe.name!r} (method {recipe.method!r}) has a fixed size and cannot be fitted to the "
            f"budget {budget}{f': {why}' if why else ''}; run it at the budget 'native', or name its size in the "
            f"recipe's knob."
        )
    whole = {**method.defaults(recipe.params), **recipe.params}
    if recipe.knob is not None and knob not in whole:
        turned = [name for name, value in whole.items() if type(value) is int]
        raise UnknownNameError(NO_KNOB, knob, turned, f"It stands under knob in the recipe {recipe.name!r}.")
    value = whole.get(knob)
    if isinstance(value, bool) or not (isinstance(value, int) or (value is None and knob not in recipe.params)):
        raise BudgetError(f"The recipe {recipe.name!r} gives no integer {knob!r}, which the budget turns.")
    return knob


def _at_rank(recipe: Recipe, method: Method, budget: Rank, counts: Counts) -> dict[str, Any]:
    """``recipe``'s params with every module at the rank that ``budget`` asks for. Raises BudgetError where none is."""
    params = recipe.params
    sizing = method.sizing(params)
    if sizing.rank is None:
        counts.trainable(method, params)  # what is wrong with the recipe at any budget is said first
        raise BudgetError(
            f"The recipe {recipe.name!r} has an update of no rank that could be set, so that the budget {budget} "
            f"cannot be met."
        )
    if recipe.knob not in {None, sizing.rank}:
        raise BudgetError(
            f"The size of the recipe {recipe.name!r} is set by its {recipe.knob}, whatever the rank, so that the "
            f"budget {budget} cannot be met. Run it at 'native' or at a number of parameters."
        )
    sized = method.at(params, budget.rank, sizing.rank)
    pattern = sizing.pattern or ""
    if any(rank != budget.rank for rank in (sized.get(pattern) or {}).values()):
        raise BudgetError(
            f"The recipe {recipe.name!r} gives single modules ranks of their own ({pattern}: {params.get(pattern)}), "
            f"and the budget {budget} gives all of them one: that would be another method under "
            f"its name. Run it at 'native' or at a number of parameters, which keeps the ratios of its ranks, or leave "
            f"it out."
        )
    return method.at(_by_module(method, params, counts, sizing.rank), budget.rank, sizing.rank)


def _by_module(method: Method, params: Mapping[str, Any], counts: Counts, knob: str) -> dict[str, Any]:
    """``params`` with the recipe's own patterns resolved to a rank, and an alpha, for each module that they match.

    The patterns are those of ``knob`` and of what moves with it.

    A pattern may match modules of several ranks and alphas; a module's own entry holds its ratio and its scale exactly.
    """
    sizing = method.sizing_by(params, knob)
    whole = {**method.defaults(params), **params}
    # Patterns -> what they hold for single modules, and what all others have.
    own: dict[str, tuple[Mapping[str, Any], Any]] = {}
    for field, pattern in ((sizing.knob, sizing.pattern), *sizing.moves.items()):
        if field and pattern and whole.get(field) is not None:
            own[pattern] = whole.get(pattern) or {}, whole[field]
    if not sizing.spreads or not any(patterns for patterns, _ in own.values()):
        return dict(params)
    matched = [
        module
        for module in counts.by_module(method, params)
        if any(pattern_of(patterns, module) is not None for patterns, _ in own.values())
    ]
    resolved = {
        pattern: {re.escape(module): of_module(patterns, module, value) for module in matched}
        for pattern, (patterns, value) in own.items()
    }
    return {**params, **resolved}


def _holds(foreseen: _Candidate, counts: Counts, method: Method, *, within: float, target: int) -> bool:
    """Whether the built model has the counts that were foreseen, and they are near enough to ``target``."""
    try:
        return counts.by_module(method, foreseen.params) == foreseen.modules and (
            abs(foreseen.trainable - target) <= within
        )
    except BenchError:  # the straight line led to a value that the method refuses
        return False


def _nearest(candidates: list[_Candidate], target: int) -> _Candidate:
    return min(candidates, key=lambda candidate: abs(candidate.trainable - target))


def _largest_below(count: Callable[[int], float], target: int) -> int:
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


def _spread(sizing: Sizing, low: _Candidate, high: _Candidate, *, knob: str, target: int) -> _Candidate:
    """``low`` with the next rank on as many modules as bring the count nearest to ``target``."""
    missing = target - low.trainable
    raised: list[str] = []
    for module in _evenly(list(low.modules)):
        step = high.modules.get(module, 0) - low.modules[module]
        if step > 0 and missing >= step / 2:
            raised.append(module)
            missing -= step
    if not raised:
        return low
    patterns: dict[str, dict[str, Any]] = {}
    for pattern, field in ((sizing.pattern, knob), *((pattern, field) for field, pattern in sizing.moves.items())):
        if pattern is None or high.params.get(field) is None:
            continue
        above = high.params.get(pattern) or {}
        # Anchored on the full name, since PEFT matches the end of a module's name against the pattern. A module that
        # the recipe gives a rank of its own has this very key (`_by_module`), which is then set to its next rank.
        names = [module for module in low.modules if module in raised]
        next_up = {re.escape(module): of_module(above, module, high.params[field]) for module in names}
        patterns[pattern] = {**(low.params.get(pattern) or {}), **next_up}
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
