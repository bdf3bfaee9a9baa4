"""Matched budgets: turn a recipe's knob until its trainable parameters, routers included, meet a target.

Counting is done on the meta device with the method's own ``attach``, so any plug-in is counted truly. Two counts
foresee the others along a straight line; what they lead to is counted as well, and where it is something else, as with
a plug-in that grows otherwise, the search is done again with a count at every step. Where no whole rank meets the
target, some modules, spread evenly over the depth, get one rank more (PEFT's ``rank_pattern``).
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from mosld_bench.errors import BudgetError, UnknownNameError
from mosld_bench.methods import registry
from mosld_bench.methods.base import Method
from mosld_bench.spec.budget import Budget, Count, Rank, Share, SizeOf
from mosld_bench.spec.recipe import Recipe
from mosld_bench.spec.trial import Fit, canonical

if TYPE_CHECKING:
    from torch import nn
    from transformers import PreTrainedConfig

_LARGEST_KNOB = 1 << 20

Modules = dict[str, int]  # adapted module -> its trainable parameters
Sized = tuple[dict[str, Any], Modules]  # params, and the counts that come of them


def fit_budget(
    recipe: Recipe,
    config: PreTrainedConfig,
    budget: str,
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
    target = target_of(budget, config, recipes or {}, counts)
    knob = recipe.knob or method.knob_of(params)
    if knob is None:
        raise BudgetError(
            f"The recipe {recipe.name!r} (method {recipe.method!r}) has a fixed size and cannot be fitted to the "
            f"budget {budget}; run it at the budget 'native', or name its size in the recipe's knob."
        )
    if not isinstance(params.get(knob), int):
        raise BudgetError(f"The recipe {recipe.name!r} gives no integer {knob!r}, which the budget turns.")

    def rung(value: int) -> Modules:
        return counts.by_module(method, method.at(params, value, knob))

    near = _candidates(method, params, knob, _straight(rung), target)
    best, foreseen = _nearest(near, target)
    got = counts.trainable(method, best)
    if counts.by_module(method, best) != foreseen or abs(got - target) > tolerance * target:
        # No straight line, or one that leads nowhere near: every step of the search is counted.
        near = [(one, counts.by_module(method, one)) for one, _ in _candidates(method, params, knob, rung, target)]
        best, _ = _nearest(near, target)
        got = counts.trainable(method, best)
    residual = (got - target) / target
    if abs(residual) > tolerance:
        reached = sorted({counts.trainable(method, one) for one, _ in near})
        raise BudgetError(
            f"The recipe {recipe.name!r} cannot meet the budget {budget} ({target:,} parameters) within "
            f"{tolerance:.1%}: the nearest reachable counts are {' and '.join(f'{n:,}' for n in reached)}. Choose one "
            f"of them, or raise budget_tolerance."
        )
    return Fit(target=target, trainable=got, total=counts.total(method, best), residual=residual, params=best)


def target_of(
    budget: str, config: PreTrainedConfig, recipes: Mapping[str, Recipe], counts: Counts | None = None
) -> int:
    """The number of trainable parameters that ``budget`` asks for on the model of ``config``."""
    asked = Budget.parse(budget)
    if isinstance(asked, Count):
        target = asked.parameters
    elif isinstance(asked, Share):
        target = round(asked.fraction * base_size(config))
    elif isinstance(asked, SizeOf):
        if asked.recipe not in recipes:
            raise UnknownNameError("recipe", asked.recipe, recipes, f"The budget {budget!r} is another recipe's size.")
        recipe = recipes[asked.recipe]
        method = registry.get(recipe.method)
        knob = recipe.knob or method.knob_of(recipe.params)
        if knob is None:
            raise BudgetError(f"The budget {budget!r} names the recipe {recipe.name!r}, which has no size to set.")
        target = (counts or Counts(config)).trainable(method, method.at(recipe.params, asked.rank, knob))
    else:
        raise BudgetError(f"The budget {budget!r} asks for no number of trainable parameters.")
    if target < 1:
        raise BudgetError(f"The budget {budget!r} comes to {target} parameters; at least 1 is needed.")
    return target


def count_trainable(method: Method, config: PreTrainedConfig, params: Mapping[str, Any]) -> int:
    """Trainable parameters of ``method`` at ``params`` on the model of ``config``, counted on the meta device."""
    return Counts(config).trainable(method, params)


class Counts:
    """Parameters of methods on the model of a config, by module; each setting of a method is built and counted once."""

    def __init__(self, config: PreTrainedConfig) -> None:
        self.config = config
        self._seen: dict[tuple[type[Method], str], tuple[int, Modules]] = {}

    def trainable(self, method: Method, params: Mapping[str, Any]) -> int:
        return sum(self.by_module(method, params).values())

    def total(self, method: Method, params: Mapping[str, Any]) -> int:
        """All parameters of the built model, trainable and frozen."""
        return self._counted(method, params)[0]

    def by_module(self, method: Method, params: Mapping[str, Any]) -> Modules:
        """Adapted module -> its trainable parameters."""
        return self._counted(method, params)[1]

    def _counted(self, method: Method, params: Mapping[str, Any]) -> tuple[int, Modules]:
        import torch

        key = type(method), canonical(dict(params))
        if key not in self._seen:
            with torch.device("meta"):
                built = method.attach(empty_model(self.config), params)
            modules: Modules = {}
            for name, parameter in built.named_parameters():
                if parameter.requires_grad:
                    owner = owner_of(built, name)
                    modules[owner] = modules.get(owner, 0) + parameter.numel()
            self._seen[key] = sum(p.numel() for p in built.parameters()), modules
        return self._seen[key]


def empty_model(config: PreTrainedConfig) -> nn.Module:
    """The model of ``config`` without weights; to be called on the meta device."""
    from transformers import AutoModelForCausalLM

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        model: nn.Module = AutoModelForCausalLM.from_config(config)
    return model


def base_size(config: PreTrainedConfig) -> int:
    """Parameters of the base model, tied ones once."""
    import torch

    with torch.device("meta"):
        return sum(parameter.numel() for parameter in empty_model(config).parameters())


def owner_of(model: nn.Module, parameter: str) -> str:
    """The base model's name of the module that an adapter's parameter belongs to (q_proj, not its lora_A)."""
    from peft.tuners.tuners_utils import BaseTunerLayer

    parts = parameter.split(".")
    module = model
    for depth, part in enumerate(parts):
        if isinstance(module, BaseTunerLayer):
            parts = parts[:depth]
            break
        module = getattr(module, part)
    return ".".join(parts).removeprefix("base_model.model.")


def _straight(rung: Callable[[int], Modules]) -> Callable[[int], Modules]:
    """``rung`` (knob value -> counts by module), foreseen from its first two values, as most methods grow in a line."""

    def foreseen(value: int) -> Modules:
        first = rung(1)
        second = rung(2) if value > 1 else first
        if value <= 2 or sum(second.values()) <= sum(first.values()):
            return rung(value)
        return {module: count + (value - 1) * (second.get(module, 0) - count) for module, count in first.items()}

    return foreseen


def _candidates(
    method: Method, params: dict[str, Any], knob: str, rung: Callable[[int], Modules], target: int
) -> list[Sized]:
    """Params around ``target`` with the counts that ``rung`` has for them; the rank spread over modules first."""
    low = _largest_below(lambda value: sum(rung(value).values()), target)
    if low < 1:
        return [(method.at(params, 1, knob), rung(1))]
    under, over = ((method.at(params, value, knob), rung(value)) for value in (low, low + 1))
    spread = method.pattern is not None and knob == method.knob
    return [*([_spread(method, under, over, knob, target)] if spread else []), under, over]


def _nearest(candidates: list[Sized], target: int) -> Sized:
    return min(candidates, key=lambda one: abs(sum(one[1].values()) - target))


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


def _spread(method: Method, low: Sized, high: Sized, knob: str, target: int) -> Sized:
    """``low`` with one more rank on as many modules as bring the count nearest to ``target``."""
    assert method.pattern is not None
    (params, below), (more, above) = low, high
    missing = target - sum(below.values())
    raised: list[str] = []
    for module in _evenly(list(below)):
        step = above.get(module, 0) - below[module]
        if step > 0 and missing >= step / 2:
            raised.append(module)
            missing -= step
    if not raised:
        return low
    # Anchored on the full name, since PEFT matches the end of a module's name against the pattern.
    names = [re.escape(module) for module in sorted(raised, key=list(below).index)]
    patterns = {method.pattern: dict.fromkeys(names, more[knob])}
    for field, pattern in method.proportional_patterns.items():
        if field in more:
            patterns[pattern] = dict.fromkeys(names, more[field])
    return {**params, **patterns}, below | {module: above[module] for module in raised}


def _evenly(modules: list[str]) -> list[str]:
    """The modules in an order whose every beginning is spread over the depth (van der Corput)."""

    def reversed_bits(index: int) -> float:
        value, weight = 0.0, 0.5
        while index:
            value, index, weight = value + weight * (index & 1), index >> 1, weight / 2
        return value

    order = sorted(range(len(modules)), key=reversed_bits)
    return [modules[index] for index in order]
