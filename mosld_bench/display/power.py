"""What a study will find, in the terminal: the sentences below its plan."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Protocol

from mosld_bench.format import counted, digits, hours_text, listed
from mosld_bench.records.pilots import Pilot
from mosld_bench.records.scale import Scale
from mosld_bench.spec.block import Block
from mosld_bench.spec.budget import NATIVE
from mosld_bench.spec.trial import Condition, Domain, Trial

#: Recipes, seeds and conditions that differ in their budget -> the command that runs these and nothing else.
RunCommand = Callable[[Sequence[str], Sequence[int], Sequence[Condition]], str]

_LADDER = (3, 5, 10, 20, 50)  # seeds that are looked at beyond those of a plan
_STEPS = 2  # of them that are shown
_PILOT_SEEDS = 3  # of two methods, which leave the two degrees of freedom that their noise needs at least


class PilotNoise(Protocol):
    """What a pilot's noise rests on, as `report.power.Noise` has it."""

    @property
    def freedom(self) -> int:
        """Degrees of freedom."""

    @property
    def rows(self) -> int:
        """Rows of two seeds or more."""

    @property
    def seeds(self) -> int:
        """The most of a row."""

    @property
    def items(self) -> Mapping[str, int]:
        """Task -> items that were scored."""

    @property
    def factors(self) -> tuple[float, float]:
        """What effects are to be multiplied by for the ends of their 95 % interval."""

    @property
    def has_items(self) -> bool:
        """Whether items were at hand."""


class BlockPower(Protocol):
    """What a block finds on a domain or a task, as `report.power.Power` has it."""

    @property
    def block(self) -> Block:
        """The rows that are planned."""

    @property
    def domain(self) -> Domain:
        """The domain, or that of the task."""

    @property
    def of(self) -> Domain | str:
        """The domain itself or the task."""

    @property
    def scale(self) -> Scale:
        """Of its scores."""

    @property
    def pilot(self) -> Pilot:
        """Whose noise it is."""

    @property
    def noise(self) -> PilotNoise:
        """What that rests on."""

    @property
    def items(self) -> Mapping[str, int]:
        """Task -> items to score."""

    @property
    def all_items(self) -> Mapping[str, int] | None:
        """Task -> items that there are; None where that is not known."""

    @property
    def of_items_alone(self) -> bool:
        """Whether the pilot shows no noise of seeds beyond that of its items."""

    @property
    def floor(self) -> float | None:
        """What no number of seeds goes below; None where there is nothing such."""

    def detectable(self, seeds: int) -> float | None:
        """The effect that so many seeds find; None where they test none."""

    def detectable_with_fewer(self, seeds: int) -> float | None:
        """The effect that a row of so many seeds finds."""

    def seeds_for(self, effect: float, *, all_items: bool = False) -> int | None:
        """The fewest seeds that find an effect; None where a thousand do not."""


def power_sentences(
    blocks: Sequence[Block],
    powers: Sequence[BlockPower],
    *,
    wished: float | None,
    hours: Mapping[str, float],
    command: RunCommand,
) -> list[str]:
    """What the ``blocks`` of a plan find, by ``powers``, those of which the noise is known.

    ``wished``: points for which it is said what they take. ``hours``: trial id -> GPU-hours, 0 where there is no
    estimate. Lines that begin with two spaces are commands, to be pasted.
    """
    if not blocks:
        return [] if wished is None else ["No two methods are compared at one size, so there is no difference to find."]
    of_block = [(block, [power for power in powers if power.block is block]) for block in blocks]
    known = [(block, own) for block, own in of_block if own]
    sentences = []
    for body, members in _merged((block, _noise(own)) for block, own in known):
        of_some = f" of {_names(members, blocks)}" if len(members) < len(known) else ""
        sentences.append(f"The noise{of_some} is known from {body}")
    for body, members in _merged((block, _found(own)) for block, own in known):
        sentences.append(f"{_names(members, blocks)}: {body}")
    if wished is not None:
        alike: dict[tuple[object, ...], list[BlockPower]] = {}
        for power in (power for _, own in known for power in own):
            alike.setdefault(_answer(power, wished), []).append(power)
        sentences += [line for own in alike.values() for line in _taken(own, blocks, wished, hours, command)]
    unknown = [block for block, own in of_block if not own]
    return sentences + (_unknown(unknown, blocks, wished, hours, command) if unknown else [])


def _merged(bodies: Iterable[tuple[Block, str]]) -> Iterable[tuple[str, list[Block]]]:
    """Each body once, with its blocks."""
    merged: dict[str, list[Block]] = {}
    for block, body in bodies:
        merged.setdefault(body, []).append(block)
    return merged.items()


def _names(members: Iterable[Block], blocks: Sequence[Block]) -> str:
    """Blocks by setting and budget, and by what else tells those of the plan apart."""
    others = [key for key in Condition._fields[2:] if len({getattr(block.condition, key) for block in blocks}) > 1]
    conditions = [block.condition for block in members]
    return listed([" ".join([*c[:2], *(f"{key} {getattr(c, key)}" for key in others)]) for c in conditions])


def _of(power: BlockPower) -> str:
    """'in-domain', or 'on' a task."""
    return power.of.label.lower() if isinstance(power.of, Domain) else f"on {power.of}"


def _items(items: Mapping[str, int]) -> str:
    """'500 items a task', '500 to 2,376 items a task', and of one task '500 items'."""
    low, high = min(items.values()), max(items.values())
    counts = f"{low:,}" if low == high else f"{low:,} to {high:,}"
    return f"{counts} items{' a task' if len(items) > 1 else ''}"


def _noise(powers: Sequence[BlockPower]) -> str:
    """Whose records tell the noise of a block, in what they differ from it, and how well they tell."""
    pilot, noise = powers[0].pilot, powers[0].noise
    differing = [f"{key} ({value})" for key, value in pilot.differences(powers[0].block.trial).items()]
    whose = "records of this study" if pilot.own else f"the records of {pilot.study}"
    low, high = noise.factors
    return (
        f"{whose}{f', which differ in {listed(differing)}' if differing else ''}: {counted(noise.rows, 'row')} of "
        f"{counted(noise.seeds, 'seed')}, {_items(noise.items)}. By its {noise.freedom} degrees of freedom the "
        f"differences below may come out {low:.2g} to {high:.2g} times as large."
        f"{'' if noise.has_items else ' The choice of items is left out: their items are not at hand.'}"
    )


def _found(powers: Sequence[BlockPower]) -> str:
    """From which differences on a block finds them: with its seeds, with more, and where a row has fewer."""
    block, items = powers[0].block, _items({task: count for power in powers for task, count in power.items.items()})
    known = {seeds: _all(power.detectable(seeds) for power in powers) for seeds in (block.seeds, *_LADDER)}
    steps = [(seeds, effects) for seeds, effects in known.items() if seeds > block.seeds and effects][:_STEPS]
    planned = known[block.seeds]
    (seeds, effects), *further = [(block.seeds, planned), *steps] if planned else steps
    untested = f"with {counted(block.seeds, 'seed')} a row no difference of methods is tested, only of trained models; "
    named = [f"{_effect(power, effect)} {_of(power)}" for power, effect in zip(powers, effects, strict=True)]
    text = (
        f"{'' if planned else untested}with {counted(seeds, 'seed')} and {items}, differences are found (80 % power, "
        f"each by itself) from {listed(named)}"
    )
    text += "".join(f", with {counted(seeds, 'seed')} from {_short(powers, effects)}" for seeds, effects in further)
    text += "."
    for seeds, recipes in block.fewer.items():
        if fewer := _all(power.detectable_with_fewer(seeds) for power in powers):
            text += f" Rows of {counted(seeds, 'seed')} ({', '.join(recipes)}): from {_short(powers, fewer)}."
    if at_best := [_of(power) for power in powers if power.of_items_alone and _more(power.items, power)]:
        text += (
            f" {listed(at_best).capitalize()} that is at best: more items are scored, and the records show no noise "
            f"but that of items."
        )
    if block.trial.out_of_domain and Domain.OUT not in {power.domain for power in powers}:
        text += " No records tell the noise out-of-domain."
    return text


def _all(effects: Iterable[float | None]) -> list[float] | None:
    """The effects; None where one of them is."""
    every = list(effects)
    known = [effect for effect in every if effect is not None]
    return known if len(known) == len(every) else None


def _more(items: Mapping[str, int], power: BlockPower) -> bool:
    """Whether these are more items of a task than its pilot has."""
    return any(count > power.noise.items[task] for task, count in items.items())


def _effect(power: BlockPower, value: float) -> str:
    """'0.98 points', or a number of the metric's own unit."""
    return f"{_number(power, value)}{power.scale.points}"


def _number(power: BlockPower, value: float) -> str:
    return f"{power.scale.factor * value:.2f}" if power.scale.points else digits(value)


def _short(powers: Sequence[BlockPower], effects: Sequence[float]) -> str:
    """Their numbers alone, in the order in which they were named."""
    return listed([_number(power, effect) for power, effect in zip(powers, effects, strict=True)])


def _answer(power: BlockPower, wished: float) -> tuple[object, ...]:
    """What blocks have in common for which a wished effect takes the same, at whatever budget."""
    block, effect = power.block, power.scale.margin(wished)
    seeds = effect if effect is None else (power.seeds_for(effect), _with_all_items(power, effect))
    return power.of, *block.condition._replace(budget=NATIVE), *block.compared, *block.seeds_up_to(block.seeds), seeds


def _taken(
    powers: Sequence[BlockPower],
    blocks: Sequence[Block],
    wished: float,
    hours: Mapping[str, float],
    command: RunCommand,
) -> list[str]:
    """What a wished effect takes of seeds or items on blocks for which it is the same, and the command that runs it."""
    power, members = powers[0], [power.block for power in powers]
    block, effect = power.block, power.scale.margin(wished)
    subject = f"A difference of {_points(wished)} {_of(power)} ({_names(members, blocks)})"
    if effect is None:
        return [f"{subject} cannot be asked for: its metric is not counted in points."]
    seeds, by_items = power.seeds_for(effect), _with_all_items(power, effect)
    if seeds is None:
        limit = f", since {_items(power.items)} set a limit of {_effect(power, power.floor)}" if power.floor else ""
        if power.all_items == power.items:
            by_items = "All items are scored already; more tasks would help."
        return [f"{subject} is out of reach of any number of seeds{limit}. {by_items}".rstrip()]
    if seeds <= block.seeds:
        return [f"{subject} takes {counted(seeds, 'seed')}, {'fewer than' if seeds < block.seeds else 'as'} planned."]
    added = _price([trial for member in members for trial in member.added(seeds)], hours)
    conditions = [member.condition for member in members]
    run = [f"  {command(block.compared, block.seeds_up_to(seeds), conditions)}"] if seeds <= _LADDER[-1] else []
    return [f"{subject} takes {counted(seeds, 'seed')}: {added} more than planned. {by_items}".rstrip(), *run]


def _with_all_items(power: BlockPower, effect: float) -> str:
    """What a wished effect takes where every item is scored; empty where that is planned, or their number not known."""
    if power.all_items is None or power.all_items == power.items:
        return ""
    seeds = power.seeds_for(effect, all_items=True)
    at_best = " at best" if power.of_items_alone and _more(power.all_items, power) else ""
    takes = f"it takes {counted(seeds, 'seed')}{at_best}, all run anew" if seeds else "it is out of reach as well"
    return f"With all items, {_items(power.all_items)}, {takes}."


def _price(trials: Sequence[Trial], hours: Mapping[str, float]) -> str:
    """'35 trials and 0.016 GPU-hours'."""
    total = sum(hours[trial.id] for trial in trials)
    return f"{counted(len(trials), 'trial')}{f' and {hours_text(total)} GPU-hours' if total else ''}"


def _unknown(
    unknown: Sequence[Block],
    blocks: Sequence[Block],
    wished: float | None,
    hours: Mapping[str, float],
    command: RunCommand,
) -> list[str]:
    """That nothing tells the noise of some blocks, and the least that would: two methods with three seeds."""
    first = next((block for block in unknown if block.condition.setting == "mixture"), unknown[0])
    order = list(first.rows)
    after = order[(order.index(first.reference) + 1) % len(order)]
    pair = {first.reference, after if first.reference == "lora" or "lora" not in order else "lora"}
    recipes = [recipe for recipe in order if recipe in pair]
    seeds = first.seeds_up_to(_PILOT_SEEDS)
    trials = [trial for recipe in recipes for trial in first.once(recipe)] * len(seeds)
    whose = "this study" if len(unknown) == len(blocks) else _names(unknown, blocks)
    wish = "" if wished is None else f", and what one of {_points(wished)} takes,"
    return [
        f"Which differences {whose} will find{wish} cannot be said yet: there are no records to judge by, of two "
        f"methods with two seeds or more on the same tasks. A pilot of two methods with {counted(len(seeds), 'seed')}, "
        f"{_price(trials, hours)}, would tell:",
        f"  {command(recipes, seeds, [first.condition])}",
    ]


def _points(wished: float) -> str:
    return f"{wished:g} point{'' if wished == 1 else 's'}"
