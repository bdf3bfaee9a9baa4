"""Scores against costs: which rows are on the front, where no other row scores better at no higher a cost.

A row is shown to be off the front where another row is shown to cost no more and to score better: by the tests of the
report, corrected by Holm's method over all pairs of the two that are looked at on one cost. A row that is not on the
front by its own numbers, and not shown to be off it either, is open.

Parameters are counted, and sizes within the budget's tolerance count as equal. Times are measured: those of training
have an interval over trials, those of decoding the range over the rounds of a profile, and one is shown to be no longer
than another where it ends before that begins.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from functools import cache
from statistics import median
from typing import NamedTuple

from mosld_bench.records.profile import Entry
from mosld_bench.records.record import Parameters
from mosld_bench.reporting import stats
from mosld_bench.reporting.analysis import Analysis
from mosld_bench.reporting.rows import Row
from mosld_bench.spec.trial import Domain


class Cost(NamedTuple):
    """What a row costs; of what is measured the ends of its interval, None where that is not known."""

    value: float
    low: float | None
    high: float | None

    @classmethod
    def counted(cls, value: float) -> Cost:
        """A number without an error."""
        return cls(value, value, value)


class Standing(StrEnum):
    """Where a row stands on one cost."""

    ON = "on"
    """On the front by its numbers."""
    OPEN = "open"
    """Not on it by its numbers, and not shown to be off it."""
    OFF = "off"
    """Another row is shown to cost no more and to score better."""


@dataclass(frozen=True)
class CostKind:
    """A cost that rows are compared on. ``counted``: without an error, so that the budget's tolerance applies."""

    key: str  # of the CSV
    title: str  # of a column
    label: str  # of an axis
    counted: bool
    of: Callable[[Analysis, Row], Cost | None]


def _trainable(analysis: Analysis, row: Row) -> Cost | None:
    return None if row.trainable is None else Cost.counted(row.trainable)


def _parameters(row: Row) -> Parameters | None:
    return next((record.parameters for record in row.records if record.parameters), None)


def _active(analysis: Analysis, row: Row) -> Cost | None:
    return Cost.counted(found.active) if (found := _parameters(row)) else None


def _stored(analysis: Analysis, row: Row) -> Cost | None:
    return Cost.counted(found.stored) if (found := _parameters(row)) else None


def _train_seconds(analysis: Analysis, row: Row) -> Cost | None:
    """Of what a seed trains: one model, or in the setting ``single`` one a task; its interval is over seeds."""
    if row.frozen:
        return Cost.counted(0.0)
    models = len(analysis.study.in_domain) if row.setting == "single" else 1
    by_seed: dict[int, list[float]] = {}
    for record in row.records:
        if record.train_info:
            by_seed.setdefault(record.trial.seed, []).append(record.train_info.seconds)
    seconds = [math.fsum(of_seed) for of_seed in by_seed.values() if len(of_seed) == models]
    mean, sd = stats.mean_sd(seconds)
    if mean is None:
        return None
    if sd is None:
        return Cost(mean, None, None)
    half = stats.t_half_width(sd / math.sqrt(len(seconds)), len(seconds) - 1)
    return Cost(mean, max(0.0, mean - half), mean + half)


def _decode_ms(analysis: Analysis, row: Row) -> Cost | None:
    """Median and range over the rounds of the profile, where that measured the row at its size."""
    entry = _entry(analysis, row)
    times = [1e3 * seconds for seconds in entry.decode] if entry else []
    return Cost(median(times), min(times), max(times)) if times else None


def _entry(analysis: Analysis, row: Row) -> Entry | None:
    profile = analysis.profile
    model = row.condition.model or analysis.study.models[0].name
    if profile is None or profile.model.name != model:
        return None
    entries = profile.current(analysis.recipes)
    if row.frozen:
        return next((entry for entry in entries if entry.recipe.method == "base"), None)
    named = (entry for entry in entries if entry.recipe.name == row.recipe.name)
    return next((entry for entry in named if entry.fit.trainable == row.trainable), None)


COSTS = (
    CostKind("trainable_parameters", "Trainable", "Trainable parameters", True, _trainable),
    CostKind("active_parameters", "Active", "Active parameters", True, _active),
    CostKind("stored_parameters", "Stored", "Stored parameters", True, _stored),
    CostKind("train_seconds", "Train s", "Training (s)", False, _train_seconds),
    CostKind("decode_ms", "Decode ms", "Decoding (ms a token)", False, _decode_ms),
)


@dataclass(frozen=True)
class Member:
    """A row in a group, with its score and what it costs."""

    row: Row
    score: stats.Estimate
    costs: dict[str, Cost]


@dataclass(frozen=True)
class Group:
    """Rows of one setting and model with a score on ``of``, the frozen base first, and how they stand on each cost.

    ``standings``: key of a cost -> for every member its standing, None where its cost is not known. A cost is there
    where two members have it.
    """

    of: Domain
    setting: str
    model: str
    members: tuple[Member, ...]
    standings: dict[str, tuple[Standing | None, ...]]

    @property
    def kinds(self) -> list[CostKind]:
        """The costs that are known of two members or more."""
        return [kind for kind in COSTS if kind.key in self.standings]


def groups(analysis: Analysis) -> list[Group]:
    """The groups of a report, setting by setting; none where no record has active and stored parameters."""
    return cost_groups(analysis) if any(record.parameters for record in analysis.records) else []


def cost_groups(analysis: Analysis, kinds: Sequence[CostKind] = COSTS) -> list[Group]:
    """The groups of a report under these ``kinds`` of costs, setting by setting.

    Rows are those with an in-domain mean, at their chosen rates and with the least general data that is mixed in.
    """
    least = min((row.condition.general for row in analysis.trained), default=0)
    rows = [
        row
        for row in analysis.trained
        if row.score is not None and (row.condition.general, row.condition.rate) == (least, "chosen")
    ]
    found = []
    for setting, model in dict.fromkeys((row.setting, row.condition.model) for row in rows):
        of_group = [row for row in rows if (row.setting, row.condition.model) == (setting, model)]
        base = analysis.frozen_of(of_group[0].condition)
        for of in analysis.averaged():
            members = tuple(_members(analysis, [*([base] if base else []), *of_group], of, kinds))
            if len(members) > 1:
                found.append(Group(of, setting, model, members, _standings(analysis, members, of, kinds)))
    return found


def own_mean(analysis: Analysis, row: Row, of: Domain | str) -> stats.Estimate | None:
    """A row's mean with its own interval, over seeds and items; None without a score."""
    pool = [] if row.frozen else [other for other in analysis.trained if other.condition == row.condition]
    return analysis.evidence.mean(row, of, pool)


def _members(analysis: Analysis, rows: Sequence[Row], of: Domain, kinds: Sequence[CostKind]) -> Iterator[Member]:
    for row in rows:
        score = own_mean(analysis, row, of)
        if score is not None:
            costs = {kind.key: cost for kind in kinds if (cost := kind.of(analysis, row)) is not None}
            yield Member(row, score, costs)


def _standings(
    analysis: Analysis, members: Sequence[Member], of: Domain, kinds: Sequence[CostKind]
) -> dict[str, tuple[Standing | None, ...]]:
    """Of every cost that two members have: how each member stands on it."""
    scale, tolerance = analysis.scale(of), analysis.study.budget_tolerance

    @cache
    def difference(place: int, other: int) -> stats.Estimate | None:
        return _difference(analysis, members[place].row, members[other].row, of)

    found = {}
    for kind in kinds:
        places = [place for place, member in enumerate(members) if kind.key in member.costs]
        if len(places) < 2:
            continue
        slack = tolerance if kind.counted else 0.0
        costs = [members[place].costs[kind.key] for place in places]
        on = front([cost.value for cost in costs], [scale.rank(members[p].score.mean) for p in places], slack)
        pairs = [
            (place, other)
            for i, place in enumerate(places)
            for j, other in enumerate(places)
            if i != j and no_more(costs[j], costs[i], slack)
        ]
        estimates = [difference(place, other) for place, other in pairs]
        adjusted = stats.holm([estimate.p if estimate and estimate.of_methods else None for estimate in estimates])
        off = {
            place
            for (place, _), estimate, p in zip(pairs, estimates, adjusted, strict=True)
            if estimate and p is not None and p < stats.LEVEL and scale.better(0, estimate.mean)
        }
        standings: list[Standing | None] = [None] * len(members)
        for place, is_on in zip(places, on, strict=True):
            standings[place] = Standing.ON if is_on else Standing.OFF if place in off else Standing.OPEN
        found[kind.key] = tuple(standings)
    return found


def _difference(analysis: Analysis, row: Row, other: Row, of: Domain) -> stats.Estimate | None:
    """``row`` minus ``other``: as the report compares rows of a block, rows of two blocks by their own seeds."""
    if row.frozen or other.frozen:
        trained, base = (other, row) if row.frozen else (row, other)
        pool = [member for member in analysis.trained if member.condition == trained.condition]
        estimate = analysis.evidence.against_base(trained, base, of, pool)
        return estimate.negative if estimate and row.frozen else estimate
    together = row.condition == other.condition and row.ranked
    pool = analysis.pool(row.condition) if together else [row, other]
    return analysis.evidence.difference(row, other, of, pool)


def no_more(one: Cost, other: Cost, slack: float = 0.0) -> bool:
    """Whether it is known that ``one`` is no higher than ``other``, or higher by a share of ``slack`` at most."""
    if one.high is None or other.low is None:
        return False
    return one.high <= other.low * (1 + slack)


def front(costs: Sequence[float], ranks: Sequence[float], slack: float = 0.0) -> list[bool]:
    """For every point whether it is on the front: no other costs no more (within ``slack``) and ranks higher.

    Of points that rank the same, those that cost more than another by more than ``slack`` are off it.
    """
    return [
        not any(
            costs[j] <= costs[i] * (1 + slack)
            and (ranks[j] > ranks[i] or (ranks[j] == ranks[i] and costs[j] * (1 + slack) < costs[i]))
            for j in range(len(costs))
        )
        for i in range(len(costs))
    ]


def steps(costs: Sequence[float], ranks: Sequence[float]) -> list[tuple[float, float]]:
    """The front as a step line: cost -> the highest rank that is to be had for it, where that rises."""
    found: list[tuple[float, float]] = []
    for cost, rank in sorted(zip(costs, ranks, strict=True), key=lambda point: (point[0], -point[1])):
        if not found or rank > found[-1][1]:
            found.append((cost, rank))
    return found


def at(line: Sequence[tuple[float, float]], cost: float) -> float:
    """The rank that is to be had for ``cost``, by a line of `steps`. Raises ValueError below the cheapest."""
    return max(rank for price, rank in line if price <= cost)
