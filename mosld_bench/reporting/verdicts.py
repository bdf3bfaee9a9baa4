"""Comparisons as sentences: rows of one verdict together, each with its difference and interval.

No sentence says more of a pair than its `Verdict`, and none says less: "equal within 1 point" is a finding, "neither
told apart nor shown equal" is none, and of trained models without seeds to judge by nothing is said of their methods.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from mosld_bench.format import counted, listed
from mosld_bench.reporting.analysis import Comparison, Judged, Verdict
from mosld_bench.reporting.labels import named
from mosld_bench.reporting.rows import Row
from mosld_bench.reporting.stats import Basis

#: Verdict -> its word in a list.
WORDS = {Verdict.BETTER: "better", Verdict.WORSE: "worse", Verdict.EQUAL: "equal", Verdict.OPEN: "open"}


class _Phrase(NamedTuple):
    """What is said of rows: ``verb``, what they are compared with after ``preposition``, and ``rest``."""

    verb: str
    preposition: str
    rest: str = ""


_TESTED = {
    Verdict.BETTER: _Phrase("{be} better", "than"),
    Verdict.EQUAL: _Phrase("{be} equal", "to", " within {margin}"),
    Verdict.WORSE: _Phrase("{be} worse", "than"),
    Verdict.OPEN: _Phrase("{be} neither told apart", "from", " nor shown equal"),
}
_OF_GAINS = _TESTED | {Verdict.BETTER: _Phrase("gain{s}", "on"), Verdict.WORSE: _Phrase("lose{s}", "against")}
_NONE = _Phrase("is told apart", "from", " or shown equal")  # of no row
_OURS = "all ", "both ", "none ", "neither ", "the "  # with which sentences begin, other than by the name of a row


class Note(str):
    """A sentence on what numbers rest on, which is to be said once, whatever else rests on the same."""


def all_of(count: int, noun: str) -> str:
    """'the task', 'both tasks', 'all three tasks'."""
    return f"the {noun}" if count == 1 else f"both {noun}s" if count == 2 else f"all {counted(count, noun)}"


@dataclass(frozen=True)
class Wording:
    """How the comparisons of one question are worded.

    ``other``: what rows are compared with, ``model``: a trained model of it, by default the other's. ``where``: on
    what, unless that is said already. ``rows``: a noun for a row; empty where not all rows are compared. ``few``: rows
    of one verdict that have their numbers each; of more the range is told. ``gains``: over an untrained model.
    ``name``: what a row is called.
    """

    other: str
    model: str = ""
    where: str = ""
    rows: str = ""
    few: int = 4
    gains: bool = False
    name: Callable[[Row], str] = lambda row: row.recipe.title

    def names(self, comparisons: Sequence[Comparison]) -> str:
        """The rows by name."""
        return named([self.name(comparison.row) for comparison in comparisons])

    def at(self, sentence: str) -> str:
        """The sentence, which begins with a name or with a word of ours, after the words of where it holds."""
        if self.where:
            return f"{self.where[0].upper()}{self.where[1:]} {sentence}"
        return sentence[0].upper() + sentence[1:] if sentence.startswith(_OURS) else sentence


def margin_text(comparison: Judged) -> str:
    """The margin as the study gives it: '1 point', '0.5 points'; empty where the scale has none."""
    if comparison.margin is None:
        return ""
    margin = round(comparison.margin * comparison.scale.factor, 9)
    return f"{margin:g} point{'' if margin == 1 else 's'}"


def numbers(comparison: Judged, *, full: bool = True, over: str = "") -> str:
    """'−0.2 points, 95 % −0.9 to +0.5', or not in ``full`` '−0.2, −0.9 to +0.5'; without what there is not.

    ``over``: what the interval is over, where it is not over all that varies.
    """
    delta, scale = comparison.difference, comparison.scale
    mean = scale.text(delta.mean, sign=True) + (scale.points if full else "")
    if delta.low is None:
        return mean
    return f"{mean}, {f'95 % {over}' if full else ''}{scale.interval(delta.low, delta.high)}"


def sentences(comparisons: Sequence[Comparison], wording: Wording) -> list[str]:
    """What is said of the rows of each verdict, in the order better, equal, worse, open; then what no test is of.

    Each is a sentence, or where the words of where it holds stand before it, a part of one.
    """
    parts: list[str] = []
    for rows in by_verdict(comparisons):
        phrase = _phrase(rows[0], wording, several=len(rows) > 1, naming=not parts)
        if len(rows) <= wording.few:
            each = [f"{wording.name(c.row)} ({numbers(c, full=not parts and not i)})" for i, c in enumerate(rows)]
            parts.append(f"{listed(each)} {phrase}")
        elif wording.rows and len(rows) == len(comparisons):
            whole = f"{all_of(len(rows), wording.rows)} {phrase}"
            if rows[0].verdict is Verdict.OPEN:
                none = "neither" if len(rows) == 2 else "none"
                beside = _said(_NONE, rows[0], wording, naming=True)
                whole = f"{none} of the {counted(len(rows), wording.rows)} {beside}"
            parts.append(f"{whole}: {_range(rows, wording)}")
        else:
            parts.append(f"{wording.names(rows)} {phrase}: {_range(rows, wording)}")
    texts = [wording.at(f"{'; '.join(parts)}.")] if parts and wording.where else [wording.at(f"{p}.") for p in parts]
    return texts + _of_models([c for c in comparisons if c.verdict is Verdict.UNTESTED], wording)


def by_verdict(comparisons: Sequence[Comparison]) -> list[list[Comparison]]:
    """The tested ones that one sentence is of; those told apart within the margin by themselves."""
    keys = [(verdict, small) for verdict in _TESTED for small in (False, True)]
    groups = [[c for c in comparisons if (c.verdict, _small(c)) == key] for key in keys]
    return [rows for rows in groups if rows]


def _small(comparison: Comparison) -> bool:
    """Whether the two are told apart, and shown to differ by less than the margin all the same."""
    return comparison.separated and comparison.within


def _phrase(comparison: Comparison, wording: Wording, *, several: bool, naming: bool) -> str:
    """'is better than LoRA', or of ``several`` and not ``naming`` what they are compared with 'are better'."""
    phrase = (_OF_GAINS if wording.gains else _TESTED)[comparison.verdict]
    return _said(phrase, comparison, wording, several=several, naming=naming)


def _said(phrase: _Phrase, comparison: Comparison, wording: Wording, *, several: bool = False, naming: bool) -> str:
    verb, preposition, rest = phrase
    if comparison.verdict is Verdict.OPEN and comparison.margin is None:  # there is no equal to be shown
        verb, rest = verb.replace("neither", "not"), ""
    beside = f" {preposition} {wording.other}" if naming else ""
    small = ", by less than {margin}" if _small(comparison) else ""
    be, s = ("are", "") if several else ("is", "s")
    return f"{verb}{{beside}}{rest}{small}".format(be=be, s=s, beside=beside, margin=margin_text(comparison))


def _of_models(rows: Sequence[Comparison], wording: Wording) -> list[str]:
    """What there is to say of trained models where no test speaks of the methods."""
    same = [c for c in rows if c.difference.mean == c.difference.error == 0]
    apart = [c for c in rows if not c.difference.mean == c.difference.error == 0]
    texts = []
    if same:
        score = "score" if max(c.difference.seeds for c in same) == 1 else "mean score"
        has = "has" if len(same) == 1 else "have"
        texts.append(wording.at(f"{wording.names(same)} {has} the {score} of {wording.other} on every item."))
    if apart:
        each = _range(apart, wording, over="over items ")
        if len(apart) <= wording.few:
            each = listed([_of_model(c, wording, full=not i) for i, c in enumerate(apart)])
        other = wording.model or f"{wording.other}'s"
        texts.append(wording.at(f"the trained models differ on these items from {other} by {each}."))
        if all(c.difference.low is None for c in apart):
            texts.append(Note("Their items are not at hand, so there is no interval."))
        texts.append(seeds_note(apart))
    return texts


def _of_model(comparison: Comparison, wording: Wording, *, full: bool) -> str:
    """'−0.2 points (LoRA, 95 % over items −0.9 to +0.5)', or not in ``full`` '−0.2 (LoRA, −0.9 to +0.5)'."""
    mean, *interval = numbers(comparison, full=full, over="over items ").split(", ", 1)
    return f"{mean} ({', '.join([wording.name(comparison.row), *interval])})"


def seeds_note(untested: Sequence[Judged]) -> Note:
    """Why nothing is said of methods."""
    if max(c.difference.seeds for c in untested) == 1:
        return Note("With one seed nothing is said of methods.")
    return Note("These seeds do not tell the noise between seeds, so nothing is said of methods.")


def _range(rows: Sequence[Comparison], wording: Wording, *, over: str = "") -> str:
    """'−2.0 points (Prefix-tuning) to +0.8 (HydraLoRA), 95 % within −5.3 to +2.7'."""
    scale = rows[0].scale
    least, most = (pick(rows, key=lambda c: c.difference.mean) for pick in (min, max))
    low, high = (scale.text(c.difference.mean, sign=True) for c in (least, most))
    text = f"{low}{scale.points}"
    if low != high:
        text += f" ({wording.name(least.row)}) to {high} ({wording.name(most.row)})"
    lows = [c.difference.low for c in rows if c.difference.low is not None]
    highs = [c.difference.high for c in rows if c.difference.high is not None]
    return f"{text}, 95 % {over}within {scale.interval(min(lows), max(highs))}" if lows and highs else text


def notes(comparisons: Sequence[Comparison], wording: Wording) -> Iterator[Note]:
    """What the intervals of comparisons within a block rest on, where that is not all that there could be.

    That a row's own noise counts is said of those whose interval is told.
    """
    told = [c for rows in by_verdict(comparisons) if len(rows) <= wording.few for c in rows]
    yield from _borrowed([c for c in comparisons if c.difference.basis is Basis.BORROWED])
    yield from _own([c for c in told if c.difference.basis is Basis.OWN], comparisons)
    without = [c for c in comparisons if c.difference.error is not None and not c.difference.of_items]
    if without and len(without) == len(comparisons):
        yield Note("No items are at hand that give these scores, so the intervals leave out the choice of items.")
    elif without:
        names = named([c.row.recipe.title for c in without])
        yield Note(f"No items of {names} are at hand, so that these intervals leave out the choice of items.")


def _borrowed(rows: Sequence[Comparison]) -> Iterator[Note]:
    """Which rows have a single seed."""
    if not rows:
        return
    other, of = rows[0].other, rows[0].of
    if len(other.by_seed(of)) == 1:
        yield Note(f"{other.recipe.title} has one seed, its noise borrowed from the others.")
        return
    alone = [c.row.recipe.title for c in rows if len(c.row.by_seed(of)) == 1]
    paired = [c.row.recipe.title for c in rows if len(c.row.by_seed(of)) > 1]
    if alone:
        yield Note(
            f"{named(alone)} {'has' if len(alone) == 1 else 'have'} one seed, its noise borrowed from the others."
        )
    if paired:
        have = "has" if len(paired) == 1 else "have"
        yield Note(
            f"{named(paired)} {have} one seed in common with {other.recipe.title}, its noise borrowed from all rows."
        )


def _own(rows: Sequence[Comparison], comparisons: Sequence[Comparison]) -> Iterator[Note]:
    """Which rows scatter so much over seeds that the noise of the others does not count for them."""
    if not rows:
        return
    several = [c for c in comparisons if c.difference.of_methods and c.difference.seeds > 1]
    noisy = [c.row.recipe.title for c in rows]
    if len(several) > 1 and all(c.difference.basis is Basis.OWN for c in several):  # what they have in common
        noisy = [rows[0].other.recipe.title]
    verb, whose = ("scatters", "its") if len(noisy) == 1 else ("scatter", "their")
    yield Note(f"{named(noisy)} {verb} more over seeds than the others, so {whose} own noise counts.")
