"""Blocks: the rows of a plan that are compared with each other, before any of them has run."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

from mosld_bench.spec.budget import Native
from mosld_bench.spec.study import Study
from mosld_bench.spec.trial import Condition, Trial


@dataclass(frozen=True)
class Block:
    """The recipes that are planned under one condition, each with its trials, and the one that others differ from."""

    condition: Condition
    rows: Mapping[str, tuple[Trial, ...]]
    reference: str

    @property
    def trial(self) -> Trial:
        """The first of its trials, which has in common with the others what does not tell rows apart."""
        return next(iter(self.rows.values()))[0]

    def seeds_of(self, recipe: str) -> set[int]:
        """The seeds of a row."""
        return {trial.seed for trial in self.rows[recipe]}

    @cached_property
    def common(self) -> dict[str, int]:
        """Recipe -> how many of its seeds the reference has, too; in the order of the plan, without the reference."""
        seeds = self.seeds_of(self.reference)
        return {recipe: len(seeds & self.seeds_of(recipe)) for recipe in self.rows if recipe != self.reference}

    @property
    def seeds(self) -> int:
        """The most seeds that a row has in common with the reference."""
        return max(self.common.values())

    @property
    def compared(self) -> list[str]:
        """The reference and the recipes that have the most seeds in common with it, in the order of the plan."""
        return [recipe for recipe in self.rows if self.common.get(recipe, self.seeds) == self.seeds]

    @property
    def fewer(self) -> dict[int, list[str]]:
        """Number of common seeds, one or more, -> the recipes that have these and not the most; falling."""
        counts = sorted({count for count in self.common.values() if 0 < count < self.seeds}, reverse=True)
        return {count: [recipe for recipe, own in self.common.items() if own == count] for count in counts}

    @property
    def further_freedom(self) -> int:
        """Degrees of freedom that the rows beside `compared` add to the noise of seeds."""
        others = self.rows.keys() - set(self.compared)
        return sum(len(self.seeds_of(recipe)) - 1 for recipe in others)

    def added(self, seeds: int) -> list[Trial]:
        """What `compared` has to run beyond the plan for so many seeds a row: those of its first seed, repeated."""
        trials: list[Trial] = []
        for recipe in self.compared:
            trials += self.once(recipe) * max(0, seeds - len(self.seeds_of(recipe)))
        return trials

    def once(self, recipe: str) -> list[Trial]:
        """The trials of a row's first seed: one, or one a task."""
        seed = self.rows[recipe][0].seed
        return [trial for trial in self.rows[recipe] if trial.seed == seed]

    def seeds_up_to(self, count: int) -> list[int]:
        """So many seeds, those of the plan first."""
        planned = sorted(set().union(*map(self.seeds_of, self.compared)))
        return [*planned, *(seed for seed in range(count + len(planned)) if seed not in planned)][:count]


def blocks_of(study: Study, trials: Iterable[Trial]) -> list[Block]:
    """The blocks of a plan that have two rows or more.

    What has its native size is in none, since nothing makes it comparable. Where the study's reference is missing, the
    first row of most seeds takes its place.
    """
    conditions: dict[Condition, dict[str, list[Trial]]] = {}
    for trial in trials:
        if trial.train_on and not isinstance(trial.budget, Native):
            conditions.setdefault(trial.condition, {}).setdefault(trial.recipe.name, []).append(trial)
    return [
        Block(condition, {recipe: tuple(members) for recipe, members in rows.items()}, _reference(study, rows))
        for condition, rows in conditions.items()
        if len(rows) > 1
    ]


def _reference(study: Study, rows: Mapping[str, Sequence[Trial]]) -> str:
    return study.reference if study.reference in rows else max(rows, key=lambda recipe: len(rows[recipe]))
