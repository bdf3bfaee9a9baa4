"""The result of a comparison: its numbers for programs, and its lines and sentences for readers."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from mosld_bench.errors import BenchError, UnknownNameError
from mosld_bench.format import counted, listed
from mosld_bench.records.scale import Scale
from mosld_bench.report.analysis import Verdict
from mosld_bench.report.comparing.items import ItemDifference, most_different
from mosld_bench.report.comparing.pairs import Member, Pair
from mosld_bench.report.comparing.scores import Score, metrics_of, score
from mosld_bench.report.comparing.sides import Side, matched, narrowed
from mosld_bench.report.comparing.unlike import Unlike, rows_differ
from mosld_bench.report.evidence import PROBABILITY
from mosld_bench.report.labels import short_label
from mosld_bench.spec.trial import Domain

_MOST_NAMED = 6  # tasks or trials that a sentence names


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
    margins = [side.source.analysis.study.margin for side in (ours, theirs)]
    margin = min(margins) if margin is None else margin
    pairs, left = matched(narrowed(ours, budgets, settings), narrowed(theirs, budgets, settings))
    known = dict.fromkeys(task for pair in pairs for names in pair.domains().values() for task in names)
    if not known:
        raise BenchError(f"{ours.name} and {theirs.name} were scored on no task in common.")
    for task in tasks:
        if task not in known:
            raise UnknownNameError("task that both were scored on", task, known)
    scores = score(pairs, margin, metrics=_named(metrics, pairs), tasks=tasks)
    if not any(scores):
        raise BenchError(
            f"{ours.name} and {theirs.name} have no number in common: no metric of a task has one in both."
        )
    compared = [
        ComparedPair(pair, tuple(of_pair), tuple(_differ(pair))) for pair, of_pair in zip(pairs, scores, strict=True)
    ]
    sources = dict.fromkeys(side.source for side in (ours, theirs))
    notes = (*(note for source in sources for note in source.notes), *left)
    return Result(ours, theirs, margin, tuple(compared), tuple(most_different(pairs, items, tasks)), notes)


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


# For programs


def as_json(result: Result) -> dict[str, Any]:
    """The whole result as JSON has it, at full precision; `reports/README.md` describes the keys."""
    return {
        "a": _side(result.ours),
        "b": _side(result.theirs),
        "margin": result.margin,
        "notes": list(result.notes),
        "pairs": [
            {
                "a": _member(compared.pair.ours),
                "b": _member(compared.pair.theirs),
                "not_the_same": [
                    {"field": field.name, "a": field.ours, "b": field.theirs, "effect": field.effect}
                    for field in compared.unlike
                ],
                "scores": [_score(one, result.margin) for one in compared.scores],
            }
            for compared in result.pairs
        ],
        "items": [_item(item) for item in result.items],
    }


def _side(side: Side) -> dict[str, Any]:
    return {"name": side.name, "kind": side.kind.value, "source": side.source.name}


def _member(member: Member) -> dict[str, Any]:
    row, trials = member.row, [record.trial for record in member.row.records]
    return {
        "recipe": row.recipe.name,
        "title": row.recipe.title,
        "setting": row.setting,
        "budget": row.budget,
        "model": trials[0].model.name,
        "general_items": row.condition.general,
        "trainable_parameters": row.trainable,
        "seeds": sorted({trial.seed for trial in trials}),
        "trials": [record.trial_id for record in row.records],
    }


def _score(one: Score, margin: float) -> dict[str, Any]:
    difference = one.difference
    return {
        "of": str(one.of),
        "domain": isinstance(one.of, Domain),
        "title": one.title,
        "metric": one.metric,
        "primary": one.primary,
        "scale": one.scale.range.value,
        "higher_is_better": one.scale.higher_is_better,
        "a": one.ours,
        "b": one.theirs,
        "difference": difference.mean,
        "low": _finite(difference.low),
        "high": _finite(difference.high),
        "standard_error": _finite(difference.error),
        "degrees_of_freedom": _finite(difference.freedom),
        "p": _finite(difference.p),
        "adjusted_p": _finite(one.comparison.adjusted),
        "equal_p": _finite(one.comparison.equal_p),
        "detectable": _finite(one.detectable),
        "seed_noise": difference.basis.value,
        "item_noise": difference.of_items,
        "verdict": one.verdict.value,
        "within_margin": one.comparison.within,
        "identical": one.identical,
        "words": words(one, margin),
        "seeds": {"a": list(one.our_seeds), "b": list(one.their_seeds), "paired": one.same_seeds},
        "items": [
            {"task": overlap.task, "a": overlap.ours, "b": overlap.theirs, "common": overlap.common}
            | {"paired": overlap.paired and difference.of_items}
            for overlap in one.items
        ],
    }


def _item(item: ItemDifference) -> dict[str, Any]:
    return {
        "pair": item.place,
        "task": item.task,
        "doc": item.doc,
        "item": item.item,
        "metric": item.metric,
        "a": item.ours,
        "b": item.theirs,
        "a_predictions": list(item.our_predictions),
        "b_predictions": list(item.their_predictions),
        "target": item.target,
    }


def _finite(value: float | None) -> float | None:
    """JSON has no number for infinity."""
    return value if value is not None and math.isfinite(value) else None


# For readers


class ScoreLine(NamedTuple):
    """A score as a line of a table: numbers with the scale that they are printed on, and the verdict in words.

    ``adjusted`` is Holm's p of the line's family, ``noise`` where the noise of seeds is from.
    """

    title: str
    scale: Scale
    ours: float
    theirs: float
    difference: float
    low: float | None
    high: float | None
    p: float | None
    adjusted: float | None
    freedom: float | None
    noise: str
    words: str


def sections(compared: ComparedPair, margin: float) -> list[tuple[str, list[ScoreLine]]]:
    """The lines of a pair's table by metric, each metric with its heading; none where every item has the same scores.

    The only task of a domain has no line of its own: its numbers are those of the domain.
    """
    found: dict[str | None, list[Score]] = {}
    for one in compared.scores if not all(one.identical for one in compared.scores) else ():
        found.setdefault(one.comparison.metric, []).append(one)
    return [(_heading(scores), _lines(scores, compared.pair, margin)) for scores in found.values()]


def _heading(scores: Sequence[Score]) -> str:
    """The metric, in what its numbers are printed, and which way is better."""
    names, scales = {one.metric for one in scores} - {None}, {one.scale for one in scores}
    name = str(names.pop()).removesuffix(",none") if len(names) == 1 else "primary metrics"
    name = "probability of the right option" if name == PROBABILITY else name
    return name + (scales.pop().heading if len(scales) == 1 else "")


def _lines(scores: Sequence[Score], pair: Pair, margin: float) -> list[ScoreLine]:
    several = len({one.metric for one in scores} - {None}) > 1
    means = {one.items for one in scores if isinstance(one.of, Domain)}
    lines = []
    for one in scores:
        title = one.title
        if isinstance(one.of, Domain):
            title += f" ({pair.title(one.items[0].task)})" if len(one.items) == 1 else ""
        elif one.items in means:
            continue
        elif several and one.metric:
            title += f" ({one.metric.removesuffix(',none')})"
        difference = one.difference
        noise = difference.basis.value if difference.of_methods else "none"
        lines.append(
            ScoreLine(
                title=title if isinstance(one.of, Domain) else f"  {title}",
                scale=one.scale,
                ours=one.ours,
                theirs=one.theirs,
                difference=difference.mean,
                low=difference.low,
                high=difference.high,
                p=difference.p,
                adjusted=one.comparison.adjusted,
                freedom=_finite(difference.freedom),
                noise=noise if difference.of_items else f"{noise}, no items",
                words=words(one, margin),
            )
        )
    return lines


def words(one: Score, margin: float) -> str:
    """The verdict in words, which claim as much as the test does."""
    if one.identical:
        return "the same on every item"
    if one.difference.error is None or one.difference.p is None:
        return "no test"
    by_little = f", by less than {_points(margin)}" if one.comparison.within else ""
    return {
        Verdict.BETTER: f"A better{by_little}",
        Verdict.WORSE: f"A worse{by_little}",
        Verdict.EQUAL: f"equal within {_points(margin)}",
        Verdict.OPEN: "not told apart",
        Verdict.UNTESTED: "these models only",
    }[one.verdict]


def _points(margin: float) -> str:
    return f"{margin:g} point{'' if margin == 1 else 's'}"


def title(compared: ComparedPair) -> str:
    """Both rows in a line, as the title of their table."""
    ours, theirs = (member.row for member in compared.pair.members)
    block = short_label(ours.condition)
    if ours.recipe.name == theirs.recipe.name and ours.condition == theirs.condition:
        return f"A − B: {ours.recipe.title}, {block}"
    if ours.condition == theirs.condition:
        return f"A − B: {ours.recipe.title} minus {theirs.recipe.title}, {block}"
    return f"A − B: {ours.recipe.title} ({block}) minus {theirs.recipe.title} ({short_label(theirs.condition)})"


def sentences(compared: ComparedPair) -> list[str]:
    """What is compared, over which seeds and items, what is not the same, and what could be found."""
    pair, first = compared.pair, compared.scores[0]
    lines = [f"{name}: {_described(member)}" for name, member in zip("AB", pair.members, strict=True)]
    lines += [_seeds(pair, first), *_items(compared)]
    if not first.difference.of_methods and not (pair.ours.row.frozen or pair.theirs.row.frozen):
        lines.append("The noise of seeds is not known: intervals are of these trained models, on other items.")
    ours, theirs = ({record.trial_id for record in member.row.records} for member in pair.members)
    if same := sorted(ours & theirs):
        lines.append(f"The same trial on both sides: {_some(same)}.")
    effects: dict[str, list[str]] = {}
    for field in compared.unlike:
        effects.setdefault(field.effect, []).append(f"{field.name} {_value(field.ours)} against {_value(field.theirs)}")
    lines += [f"Not the same: {'; '.join(fields)}. {effect}" for effect, fields in effects.items()]
    found = [
        f"{one.scale.text(one.detectable, more=1)}{one.scale.points} {one.title.lower()}"
        for one in compared.scores
        if one.detectable is not None
    ]
    if all(one.identical for one in compared.scores):
        lines.append("Every score is the same on every item.")
    if found:
        lines.append(f"Found with a chance of 80 %: a true difference of {listed(found)}.")
    return lines


def _described(member: Member) -> str:
    """A row in a line: recipe, block, size, seeds, and where it is from."""
    row = member.row
    size = f", {row.trainable:,} trainable parameters" if row.trainable else ""
    seeds = sorted({record.trial.seed for record in row.records})
    seeded = "" if row.frozen else f", {'seed' if len(seeds) == 1 else 'seeds'} {listed(list(map(str, seeds)))}"
    return (
        f"{row.recipe.title} ({row.recipe.name}), {short_label(row.condition)}{size}{seeded}, of {member.source.name}"
    )


def _seeds(pair: Pair, first: Score) -> str:
    """How the seeds of the two meet, of the first score."""
    if pair.ours.row.frozen and pair.theirs.row.frozen:
        return "Seeds: none, neither is trained."
    if pair.ours.row.frozen or pair.theirs.row.frozen:
        return "Seeds: of one side; an untrained model has none."
    used = listed(list(map(str, first.our_seeds)))
    if not first.same_seeds:
        return (
            f"Seeds: not paired, since fewer than two are common: {used} of A, "
            f"{listed(list(map(str, first.their_seeds)))} of B."
        )
    left = [
        f"{listed(list(map(str, lone)))} of {name}"
        for name, member in zip("AB", pair.members, strict=True)
        if (lone := sorted({record.trial.seed for record in member.row.records} - set(first.our_seeds)))
    ]
    return f"Seeds: {used}, paired{f'; left out, without a partner: {listed(left)}' if left else ''}."


def _items(compared: ComparedPair) -> Iterator[str]:
    """How the items of the two meet, task by task where they are not all the same."""
    overlaps = list(dict.fromkeys(overlap for one in compared.scores for overlap in one.items))
    known = [one for one in overlaps if one.common is not None]
    whole = [one for one in known if one.common == one.ours == one.theirs]
    if whole:
        counts = sorted({one.common for one in whole if one.common is not None})
        many = f"{counts[0]:,}" if len(counts) == 1 else f"{counts[0]:,} to {counts[-1]:,}"
        yield f"Items: {many} of {'each of ' if len(whole) > 1 else ''}{counted(len(whole), 'task')}, paired."
    part = [one for one in known if one.paired and one not in whole]
    if part:
        counts_of = [f"{compared.pair.title(o.task)} {o.common:,} (A {o.ours:,}, B {o.theirs:,})" for o in part]
        yield f"Items: paired are those that both have, the others left out: {_some(counts_of)}."
    apart = [one for one in known if not one.paired]
    if apart:
        counts_of = [f"{compared.pair.title(o.task)} {o.common:,} (A {o.ours:,}, B {o.theirs:,})" for o in apart]
        yield f"Items: not paired, all of each side count, since few or none are common: {_some(counts_of)}."
    if len(known) < len(overlaps):
        names = _some([compared.pair.title(one.task) for one in overlaps if one.common is None])
        yield (
            f"Items: not at hand of every record (no items.parquet) for {names}: compared by numbers alone, intervals "
            "leave out the choice of items."
        )


def _some(names: Sequence[str]) -> str:
    more = len(names) - _MOST_NAMED
    return listed([*names[:_MOST_NAMED], f"{more} more"] if more > 0 else list(names))


def _value(value: Any) -> str:
    """A field's value in a sentence."""
    if isinstance(value, list):
        return listed(list(map(_value, value)))
    return "none" if value is None else f"{value:g}" if isinstance(value, float) else str(value)


def item_title(result: Result, item: ItemDifference) -> str:
    """The pair that an item is of, in a few words; empty where there is one pair."""
    if len(result.pairs) == 1:
        return ""
    ours, theirs = (member.row for member in result.pairs[item.place].pair.members)
    return f"{ours.recipe.name}, {short_label(theirs.condition if ours.frozen else ours.condition)}"
