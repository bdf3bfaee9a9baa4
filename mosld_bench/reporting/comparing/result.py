"""The result of a comparison: what meets, its scores, what is not the same, and the items that differ most."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from mosld_bench.errors import BenchError, UnknownNameError
from mosld_bench.reporting.comparing.items import ItemDifference, most_different
from mosld_bench.reporting.comparing.pairs import Pair
from mosld_bench.reporting.comparing.scores import Score, metrics_of, scores_of
from mosld_bench.reporting.comparing.sides import Side, matched, narrowed
from mosld_bench.reporting.comparing.unlike import Unlike, rows_differ
from mosld_bench.reporting.labels import short_label


@dataclass(frozen=True)
class ComparedPair:
    """Two rows, their scores, and in what they differ beside their method."""

    pair: Pair
    scores: tuple[Score, ...]
    unlike: tuple[Unlike, ...]


@dataclass(frozen=True)
class Result:
    """All that is found of two sides. ``margin``: in points; ``notes``: what is left out, in sentences."""

    ours: Side
    theirs: Side
    margin: float
    pairs: tuple[ComparedPair, ...]
    items: tuple[ItemDifference, ...]
    notes: tuple[str, ...]


def compare(
    ours: Side,
    theirs: Side,
    *,
    budgets: Sequence[str] = (),
    settings: Sequence[str] = (),
    metrics: Sequence[str] = (),
    tasks: Sequence[str] = (),
    margin: float | None = None,
    items: int = 10,
) -> Result:
    """Compare two sides: ``ours`` minus ``theirs``.

    ``budgets``, ``settings``, ``metrics`` and ``tasks`` narrow what is compared; empty for all. ``margin`` is what
    still counts as equal, in points, by default that of the studies (the smaller one). ``items``: how many of those
    that differ most.

    Raises BenchError where nothing is left to compare, and UnknownNameError for a metric or task that is not there.
    """
    if margin is not None and not 0 < margin <= 100:
        raise BenchError(f"The margin takes points, more than 0 and at most 100; given: {margin:g}.")
    margins = [side.source.analysis.study.margin for side in (ours, theirs)]
    margin = min(margins) if margin is None else margin
    pairs, left = matched(narrowed(ours, budgets, settings), narrowed(theirs, budgets, settings))
    known = dict.fromkeys(task for pair in pairs for names in pair.domains().values() for task in names)
    if not known:
        raise BenchError(f"{ours.name} and {theirs.name} were scored on no task in common.")
    for task in tasks:
        if task not in known:
            raise UnknownNameError("task that both were scored on", task, known)
    found = list(zip(pairs, scores_of(pairs, margin, metrics=_named(metrics, pairs), tasks=tasks), strict=True))
    compared = tuple(ComparedPair(pair, tuple(scores), tuple(_differ(pair))) for pair, scores in found if scores)
    if not compared:
        raise BenchError(f"{ours.name} and {theirs.name} have no number under a common metric of a common task.")
    left += [f"No number in common: {_named_rows(pair)}." for pair, scores in found if not scores]
    notes = [note for source in dict.fromkeys(side.source for side in (ours, theirs)) for note in source.notes]
    largest = most_different([members.pair for members in compared], items, tasks)
    return Result(ours, theirs, margin, compared, tuple(largest), (*notes, *left))


def _named_rows(pair: Pair) -> str:
    rows = [member.row for member in pair.members]
    return " and ".join(f"{row.recipe.name} ({short_label(row.condition)})" for row in rows)


def _named(names: Sequence[str], pairs: Sequence[Pair]) -> list[str | None]:
    """The metrics of these names: lm-eval's, with its filter or without, ``primary``, or ``probability``."""
    known: dict[str, str | None] = {}
    for pair in pairs:
        for task in (task for tasks in pair.domains().values() for task in tasks):
            known |= dict.fromkeys(_spellings(pair.primary(task) or ""))
    for metric in (metric for pair in pairs for metric in metrics_of(pair) if metric is not None):
        known |= dict.fromkeys(_spellings(metric), metric)
    known |= {"primary": None}
    known.pop("", None)
    for name in names:
        if name not in known:
            raise UnknownNameError("metric of both", name, known)
    return list(dict.fromkeys(known[name] for name in names))


def _spellings(metric: str) -> list[str]:
    return [metric, metric.removesuffix(",none")]


def _differ(pair: Pair) -> list[Unlike]:
    studies = [member.source.analysis.study for member in pair.members]
    return rows_differ(pair.ours.row, pair.theirs.row, *studies)
