"""The ablations of a study: rows factor by factor beside the one that they are around, and the effects of a factorial.

Which row is which value of which factor follows from the study and the recipes that the records hold; no recipe file is
read. Holm's family is the values of a factor in a block, and of a factorial the effects in a block: each factor is a
question of its own.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import prod

from mosld_bench.records.scale import Scale
from mosld_bench.reporting import stats
from mosld_bench.reporting.analysis import Analysis, Comparison, Judged, Verdict
from mosld_bench.reporting.evidence import Term
from mosld_bench.reporting.rows import Row
from mosld_bench.spec.ablation import factor_label, level_label
from mosld_bench.spec.budget import Rank
from mosld_bench.spec.trial import Condition, Domain

RANK = "rank"


@dataclass(frozen=True)
class Level:
    """A value of a factor: the row that has it, and that row minus the one that the ablation is around.

    ``comparison`` is None for the row itself (``own``), and where the two have no seed in common.
    """

    label: str
    row: Row
    own: bool
    comparison: Comparison | None


@dataclass(frozen=True)
class Factor:
    """What is varied by itself: its name in the study, its title, and its values that are rows of a block."""

    name: str
    title: str
    levels: tuple[Level, ...]

    @property
    def own(self) -> Level | None:
        """The value that the row has which the others are compared with; None where it is none of these."""
        return next((level for level in self.levels if level.own), None)

    @property
    def comparisons(self) -> list[Comparison]:
        """Of the values that are compared."""
        return [level.comparison for level in self.levels if level.comparison is not None]


def around(analysis: Analysis, condition: Condition) -> Row | None:
    """The row of a block that its ablations are around; None where there is none."""
    ablate = analysis.study.ablate
    return next((row for row in analysis.pool(condition) if ablate and row.recipe.name == ablate.around), None)


def factors(analysis: Analysis, condition: Condition, of: Domain | str = Domain.IN) -> list[Factor]:
    """The factors of a block, in the study's order, those with two values that are rows or more."""
    ablate, other = analysis.study.ablate, around(analysis, condition)
    if ablate is None or other is None:
        return []
    pool = analysis.pool(condition)
    rows = {row.recipe.name: row for row in pool}
    variants = ablate.variants({name: row.recipe for name, row in rows.items()})
    found = []
    for name, values in ablate.vary.items():
        labels: dict[str, str] = {}  # row -> its label, that of the first value that it has
        for variant, value in zip((v for v in variants if v.factor == name), values, strict=True):
            if variant.recipe.name in rows:
                labels.setdefault(variant.recipe.name, level_label(name, value))
        levels = [(label, rows[recipe]) for recipe, label in labels.items()]
        found.append(_factor(analysis, name, factor_label(name), levels, other, pool, of))
    return [factor for factor in found if len(factor.levels) > 1]


def ranks(analysis: Analysis, of: Domain | str = Domain.IN) -> list[tuple[Condition, Factor]]:
    """Rank as a factor: the row that ablations are around at each of its ranks, minus that at the rank of its recipe.

    A budget sets the rank, so that the rows stand in blocks of their own; what a seed does to one of them is taken to
    be what it does to the others. With the block of the rank that they are compared with.
    """
    found = []
    for condition, _ in analysis.blocks():
        other = around(analysis, condition)
        if other is None or condition.budget != f"r{other.recipe.params.get('r')}":
            continue
        ordered = sorted(
            (
                (row.budget.rank, row)
                for row in analysis.trained
                if row.recipe.name == other.recipe.name
                and isinstance(row.budget, Rank)
                and row.condition._replace(budget=condition.budget) == condition
            ),
            key=lambda pair: pair[0],
        )
        rows = [(str(rank), row) for rank, row in ordered]
        factor = _factor(analysis, RANK, RANK, rows, other, [row for _, row in rows], of)
        found += [(condition, factor)] if len(factor.levels) > 1 else []
    return found


def _factor(
    analysis: Analysis,
    name: str,
    title: str,
    rows: Sequence[tuple[str, Row]],
    other: Row,
    pool: Sequence[Row],
    of: Domain | str,
) -> Factor:
    """``rows`` with the labels of their values, each minus ``other``."""
    compared = analysis.compared_with(other, [row for _, row in rows if row.key != other.key], pool, of)
    by_row = {comparison.row.key: comparison for comparison in compared}
    levels = [Level(label, row, row.key == other.key, by_row.get(row.key)) for label, row in rows]
    return Factor(name, title, tuple(levels))


@dataclass(frozen=True)
class Cell:
    """A cell of a factorial: the labels of its levels, and its row."""

    labels: tuple[str, ...]
    row: Row


@dataclass(frozen=True)
class Effect(Judged):
    """A main effect or an interaction in a block.

    ``factors`` are the titles of the factors that it is of, and ``steps`` their levels, each as (label, label of the
    first level).
    """

    factors: tuple[str, ...]
    steps: tuple[tuple[str, str], ...]
    of: Domain | str
    difference: stats.Estimate
    adjusted: float | None
    margin: float | None
    scale: Scale

    @property
    def main(self) -> bool:
        """Whether it is that of one factor."""
        return len(self.factors) == 1

    @property
    def word(self) -> str:
        """What tests say of it; two factors that interact do more or less together than their effects add up to."""
        together = {Verdict.BETTER: "more together", Verdict.WORSE: "less together", Verdict.EQUAL: "add up"}
        return self.verdict.value if self.main else together.get(self.verdict, self.verdict.value)

    @property
    def title(self) -> str:
        """'sharing: A minus nothing', 'sharing × dropout'; of factors with several levels an interaction names them."""
        if self.main:
            ((label, first),) = self.steps
            return f"{self.factors[0]}: {label} minus {first}"
        return " × ".join(self.factors)

    @property
    def levels(self) -> str:
        """'A minus nothing, by 0.1 on weight minus 0'."""
        return ", by ".join(f"{label} minus {first}" for label, first in self.steps)


def factor_titles(analysis: Analysis) -> tuple[str, ...]:
    """The titles of the factors that are crossed; none without a factorial."""
    return tuple(map(factor_label, analysis.study.factorial.cross)) if analysis.study.factorial else ()


def level_labels(analysis: Analysis) -> list[list[str]]:
    """The labels of every crossed factor's levels."""
    cross = analysis.study.factorial.cross if analysis.study.factorial else {}
    return [[level_label(name, value) for value in levels] for name, levels in cross.items()]


def cells(analysis: Analysis, condition: Condition) -> list[Cell]:
    """The cells of a block's factorial in the order of their levels; empty where one of them is no row of it."""
    factorial, pool = analysis.study.factorial, analysis.pool(condition)
    rows = {row.recipe.name: row for row in pool}
    if factorial is None or factorial.around not in {row.recipe.name for row in analysis.trained}:
        return []
    recipes = {recipe.name: recipe for recipe in analysis.recipes} | {name: row.recipe for name, row in rows.items()}
    labels = level_labels(analysis)
    found = [
        Cell(tuple(of_factor[level] for of_factor, level in zip(labels, cell.levels, strict=True)), row)
        for cell in factorial.cells(recipes)
        if (row := rows.get(cell.recipe.name))
    ]
    return found if len(found) == prod(factorial.levels) else []


def effects(analysis: Analysis, condition: Condition, of: Domain | str = Domain.IN) -> list[Effect]:
    """The effects of a block's factorial, those that have an estimate: one family of tests."""
    return _judged(analysis, condition, (of,))


def effects_by_task(analysis: Analysis, condition: Condition) -> list[Effect]:
    """The main effects on each of several in-domain tasks, task by task: one family of tests for all of them."""
    tasks = analysis.tasks_in(Domain.IN)
    return _judged(analysis, condition, tasks, main=True) if len(tasks) > 1 else []


def _judged(
    analysis: Analysis, condition: Condition, ofs: Sequence[Domain | str], *, main: bool = False
) -> list[Effect]:
    found = [
        (of, effect, estimate)
        for of in ofs
        for effect, estimate in _effects(analysis, condition, of)
        if len(effect.factors) == 1 or not main
    ]
    adjusted = stats.holm([estimate.p for *_, estimate in found])
    titles, labels = factor_titles(analysis), level_labels(analysis)
    judged = []
    for (of, effect, estimate), p in zip(found, adjusted, strict=True):
        scale = analysis.scale(of)
        steps = tuple(
            (labels[factor][level], labels[factor][0])
            for factor, level in zip(effect.factors, effect.levels, strict=True)
        )
        named = tuple(titles[factor] for factor in effect.factors)
        judged.append(Effect(named, steps, of, estimate, p, scale.margin(analysis.study.margin), scale))
    return judged


def _effects(
    analysis: Analysis, condition: Condition, of: Domain | str
) -> Iterator[tuple[stats.EffectWeights, stats.Estimate]]:
    """The effects with their estimates, of cells that have a seed in common."""
    members, pool = cells(analysis, condition), analysis.pool(condition)
    if not members or analysis.study.factorial is None:
        return
    for effect in stats.factorial_effects(analysis.study.factorial.levels):
        weighted = [(cell.row, weight) for cell, weight in zip(members, effect.weights, strict=True) if weight]
        estimate = analysis.evidence.contrast([Term(row, weight) for row, weight in weighted], of, pool)
        if estimate is not None:
            yield effect, estimate


def ablated_blocks(analysis: Analysis) -> list[Condition]:
    """The blocks that have a factor with several values."""
    return [condition for condition, _ in analysis.blocks() if factors(analysis, condition)]


def crossed_blocks(analysis: Analysis) -> list[Condition]:
    """The blocks that have all cells of the factorial."""
    return [condition for condition, _ in analysis.blocks() if cells(analysis, condition)]
