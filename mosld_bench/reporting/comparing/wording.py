"""The result of a comparison for readers: lines of tables, and sentences."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

from mosld_bench.format import counted, listed
from mosld_bench.records.scale import Scale
from mosld_bench.reporting.analysis import Verdict
from mosld_bench.reporting.comparing.items import ItemDifference
from mosld_bench.reporting.comparing.pairs import Member, Pair, TaskOverlap
from mosld_bench.reporting.comparing.result import ComparedPair, Result
from mosld_bench.reporting.comparing.scores import Score
from mosld_bench.reporting.evidence import PROBABILITY
from mosld_bench.reporting.labels import short_label
from mosld_bench.spec.trial import Domain

_MOST_NAMED = 6  # tasks or trials that a sentence names


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
    for score in compared.scores if not all(score.identical for score in compared.scores) else ():
        found.setdefault(score.comparison.metric, []).append(score)
    return [(_heading(scores), _lines(scores, compared.pair, margin)) for scores in found.values()]


def _heading(scores: Sequence[Score]) -> str:
    """The metric, in what its numbers are printed, and which way is better."""
    names, scales = {score.metric for score in scores} - {None}, {score.scale for score in scores}
    name = str(names.pop()).removesuffix(",none") if len(names) == 1 else "primary metrics"
    name = "probability of the right option" if name == PROBABILITY else name
    return name + (scales.pop().heading if len(scales) == 1 else "")


def _lines(scores: Sequence[Score], pair: Pair, margin: float) -> list[ScoreLine]:
    several = len({score.metric for score in scores} - {None}) > 1
    means = {score.items for score in scores if isinstance(score.of, Domain)}
    lines = []
    for score in scores:
        label = score.title
        if isinstance(score.of, Domain):
            label += f" ({pair.title(score.items[0].task)})" if len(score.items) == 1 else ""
        elif score.items in means:
            continue
        elif several and score.metric:
            label += f" ({score.metric.removesuffix(',none')})"
        difference = score.difference
        noise = difference.basis.value if difference.of_methods else "none"
        lines.append(
            ScoreLine(
                title=label if isinstance(score.of, Domain) else f"  {label}",
                scale=score.scale,
                ours=score.ours,
                theirs=score.theirs,
                difference=difference.mean,
                low=difference.low,
                high=difference.high,
                p=difference.p,
                adjusted=score.comparison.adjusted,
                freedom=difference.freedom,
                noise=noise if difference.of_items else f"{noise}, no items",
                words=words(score, margin),
            )
        )
    return lines


def words(score: Score, margin: float) -> str:
    """The verdict in words, which claim as much as the test does."""
    if score.identical:
        return "the same on every item"
    if score.difference.error is None or score.difference.p is None:
        return "no test"
    by_little = f", by less than {_points(margin)}" if score.comparison.within else ""
    return {
        Verdict.BETTER: f"A better{by_little}",
        Verdict.WORSE: f"A worse{by_little}",
        Verdict.EQUAL: f"equal within {_points(margin)}",
        Verdict.OPEN: "not told apart",
        Verdict.UNTESTED: "these models only",
    }[score.verdict]


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
        f"{score.scale.text(score.detectable, more=1)}{score.scale.points} {score.title.lower()}"
        for score in compared.scores
        if score.detectable is not None
    ]
    if all(score.identical for score in compared.scores):
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
    overlaps = list(dict.fromkeys(overlap for score in compared.scores for overlap in score.items))
    known = [overlap for overlap in overlaps if overlap.common is not None]
    whole = [overlap for overlap in known if overlap.common == overlap.ours == overlap.theirs]
    if whole:
        counts = sorted({overlap.common for overlap in whole if overlap.common is not None})
        many = f"{counts[0]:,}" if len(counts) == 1 else f"{counts[0]:,} to {counts[-1]:,}"
        yield f"Items: {many} of {'each of ' if len(whole) > 1 else ''}{counted(len(whole), 'task')}, paired."
    part = [_counts(compared.pair, overlap) for overlap in known if overlap.paired and overlap not in whole]
    if part:
        yield f"Items: paired are those that both have, the others left out: {_some(part)}."
    apart = [_counts(compared.pair, overlap) for overlap in known if not overlap.paired]
    if apart:
        yield f"Items: not paired, all of each side count, since few or none are common: {_some(apart)}."
    if len(known) < len(overlaps):
        names = _some([compared.pair.title(overlap.task) for overlap in overlaps if overlap.common is None])
        yield (
            f"Items: not at hand of every record (no items.parquet) for {names}: compared by numbers alone, intervals "
            "leave out the choice of items."
        )


def _counts(pair: Pair, overlap: TaskOverlap) -> str:
    return f"{pair.title(overlap.task)} {overlap.common:,} (A {overlap.ours:,}, B {overlap.theirs:,})"


def _some(names: Sequence[str]) -> str:
    return listed(names, most=_MOST_NAMED)


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
