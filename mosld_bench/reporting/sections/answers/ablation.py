"""Questions about ablations: which values of which factor matter, what the factors of a factorial do, and where."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from mosld_bench.format import listed
from mosld_bench.reporting.ablation import (
    Effect,
    Factor,
    Level,
    ablated_blocks,
    crossed_blocks,
    effects,
    effects_by_task,
    factors,
    ranks,
)
from mosld_bench.reporting.analysis import Analysis, Comparison, Verdict
from mosld_bench.reporting.labels import margin_label
from mosld_bench.reporting.sections.answers.blocks import where
from mosld_bench.reporting.verdicts import WORDS, numbers, seeds_note
from mosld_bench.spec.budget import Rank
from mosld_bench.spec.trial import Condition, Domain

_FEW = 6  # values whose verdicts are told block by block


def ablation_answers(analysis: Analysis) -> Iterator[tuple[str, list[str]]]:
    """Questions with the sentences that answer them, in-domain: a block's factors, ranks, its factorial, two blocks."""
    if analysis.unlike(Domain.IN):
        return
    for block in ablated_blocks(analysis):
        yield f"One factor at a time{_at(analysis, block)}.", list(_one_factor(analysis, factors(analysis, block)))
    for block, factor in ranks(analysis):
        place = _at(analysis, block) if len(ranks(analysis)) > 1 else ""
        yield f"Rank{place}.", list(_one_factor(analysis, [factor]))
    for block in crossed_blocks(analysis):
        told = [*_factorial(analysis, effects(analysis, block)), *_task_by_task(analysis, block)]
        yield f"Factorial{_at(analysis, block)}.", told
    yield "Equal size against equal rank.", list(_size_and_rank(analysis))


def _at(analysis: Analysis, block: Condition) -> str:
    place = where(analysis, block)
    return f" ({place})" if place else ""


def _one_factor(analysis: Analysis, found: Sequence[Factor]) -> Iterator[str]:
    """The values that are told apart, factor by factor; then those that are shown equal, and those of which neither."""
    for factor in found:
        for verdict in (Verdict.BETTER, Verdict.WORSE):
            if told := _of(factor, verdict):
                yield f"{_title(factor)}: {_each(told)} {_is(told)} {WORDS[verdict]} than {_own(factor)}."
    equal = [_named(factor, levels) for factor in found if (levels := _of(factor, Verdict.EQUAL))]
    if equal:
        shown = [c for factor in found for c in factor.comparisons if c.verdict is Verdict.EQUAL]
        yield f"Equal within {margin_label(analysis.study.margin)} ({_range(shown)}): {'; '.join(equal)}."
    still_open = [f"{factor.title} {_each(levels)}" for factor in found if (levels := _of(factor, Verdict.OPEN))]
    if still_open:
        yield f"Neither told apart nor shown equal: {'; '.join(still_open)}."
    untested = [(factor, level) for factor in found for level in _of(factor, Verdict.UNTESTED)]
    if untested:
        each = [f"{f.title} {_each([level], over='over items ', full=not i)}" for i, (f, level) in enumerate(untested)]
        more = [f"{len(each) - _FEW} more are in the table"] if len(each) > _FEW else []
        yield f"The trained models differ on these items: {'; '.join([*each[:_FEW], *more])}."
        yield seeds_note([level.comparison for _, level in untested if level.comparison])


def _of(factor: Factor, verdict: Verdict) -> list[Level]:
    return [level for level in factor.levels if level.comparison and level.comparison.verdict is verdict]


def _title(factor: Factor) -> str:
    return factor.title[0].upper() + factor.title[1:]


def _own(factor: Factor) -> str:
    """What the values are compared with: the factor's own, or that of the recipe where it is none of them."""
    if factor.own:
        return factor.own.label
    return factor.comparisons[0].other.recipe.title


def _is(levels: Sequence[Level]) -> str:
    return "is" if len(levels) == 1 else "are"


def _each(levels: Sequence[Level], *, over: str = "", full: bool = True) -> str:
    """'0 (−1.3 points, 95 % −1.6 to −1.0) and 0.5 (−2.5, −2.9 to −2.0)'; the first one in ``full``."""
    compared = [(level.label, level.comparison) for level in levels if level.comparison]
    return listed([f"{label} ({numbers(c, full=full and not i, over=over)})" for i, (label, c) in enumerate(compared)])


def _range(comparisons: Sequence[Comparison]) -> str:
    """'−0.1 to +0.3 points, 95 % within −0.5 to +0.8'."""
    scale, deltas = comparisons[0].scale, [comparison.difference for comparison in comparisons]
    means = [delta.mean for delta in deltas]
    ends = dict.fromkeys(scale.text(end, sign=True) for end in (min(means), max(means)))
    lows, highs = ([end for end in of if end is not None] for of in ([d.low for d in deltas], [d.high for d in deltas]))
    return f"{' to '.join(ends)}{scale.points}, 95 % within {scale.interval(min(lows), max(highs))}"


def _named(factor: Factor, levels: Sequence[Level]) -> str:
    """'every value of experts', or 'dropout 0.05 and 0.2'."""
    if len(levels) > 1 and len(levels) == len(factor.comparisons):
        return f"every value of {factor.title}"
    return f"{factor.title} {listed([level.label for level in levels])}"


def _factorial(analysis: Analysis, found: Sequence[Effect]) -> Iterator[str]:
    """The effects, each with its interval and what tests say of it."""
    margin = margin_label(analysis.study.margin)
    main = {
        Verdict.BETTER: "better",
        Verdict.WORSE: "worse",
        Verdict.EQUAL: f"equal within {margin}",
        Verdict.OPEN: "neither told apart nor shown equal",
        Verdict.UNTESTED: "of the trained models",
    }
    together = {
        Verdict.BETTER: "they do more together than their effects add up to",
        Verdict.WORSE: "they do less together than their effects add up to",
        Verdict.EQUAL: f"their effects add up within {margin}",
        Verdict.OPEN: "whether their effects add up is open",
        Verdict.UNTESTED: "of the trained models",
    }
    several = len({effect.steps for effect in found if effect.main}) > len({e.factors for e in found if e.main})
    for i, effect in enumerate(found):
        words = (main if effect.main else together)[effect.verdict]
        over = "over items " if effect.verdict is Verdict.UNTESTED else ""
        yield f"{_of_effect(effect, several)}: {numbers(effect, full=not i, over=over)}, {words}."
    if untested := [effect for effect in found if effect.verdict is Verdict.UNTESTED]:
        yield seeds_note(untested)


def _task_by_task(analysis: Analysis, block: Condition) -> Iterator[str]:
    """On which tasks a factor's effect is told apart; all tasks and factors are one family of tests."""
    tested = [effect for effect in effects_by_task(analysis, block) if effect.verdict is not Verdict.UNTESTED]
    told: dict[tuple[str, Verdict], list[Effect]] = {}
    for effect in tested:
        if effect.separated:
            told.setdefault((effect.title, effect.verdict), []).append(effect)
    if not tested:
        return
    tests = f"(Holm over {len(tested)} tests)"
    if not told:
        yield f"On no task by itself is an effect told apart {tests}."
        return
    each: list[str] = []
    for (_, verdict), of in told.items():
        on = listed([f"{analysis.label(e.of)} ({numbers(e, full=not each and not i)})" for i, e in enumerate(of)])
        each.append(f"{_of_effect(of[0], several=False)} is {WORDS[verdict]} on {on}")
    yield f"Task by task {tests}: {'; '.join(each)}."


def _of_effect(effect: Effect, several: bool) -> str:
    """'Sharing A minus nothing', or 'Interaction of sharing and dropout', with the levels of factors of ``several``."""
    if effect.main:
        title = effect.title.replace(":", "", 1)
        return title[0].upper() + title[1:]
    return f"Interaction of {listed(list(effect.factors))}{f' ({effect.levels})' if several else ''}"


def _size_and_rank(analysis: Analysis) -> Iterator[str]:
    """Which values, or effects, have other verdicts at equal size than at equal rank, and what that means."""
    blocks = ablated_blocks(analysis) or crossed_blocks(analysis)
    size = next((block for block in blocks if block.budget.sets_size), None)
    rank = next((block for block in blocks if isinstance(block.budget, Rank)), None)
    if size is None or rank is None:
        return
    both = {block: _verdicts(analysis, block) for block in (size, rank)}
    tested = [key for key, verdict in both[size].items()
              if Verdict.UNTESTED not in {verdict, both[rank].get(key, Verdict.UNTESTED)}]  # fmt: skip
    differing = [key for key in tested if both[size][key] is not both[rank][key]]
    if not tested:
        return
    if not differing:
        yield "Every verdict is the same at equal size and at equal rank: none rests on rank or parameters alone."
        return
    told = [
        f"{key} ({WORDS[both[size][key]]} at equal size, {WORDS[both[rank][key]]} at equal rank)" for key in differing
    ]
    same = f"{len(tested) - len(differing)} of {len(tested)} are the same"
    yield f"Verdicts differ for {listed(told, most=_FEW)}; {same}."
    yield (
        "What holds at equal size alone is bought by the rank that fewer parameters leave room for; what holds at "
        "equal rank alone, by more parameters."
    )


def _verdicts(analysis: Analysis, block: Condition) -> dict[str, Verdict]:
    """What a value, or a main effect, is called -> the verdict on it."""
    of_factors = {
        f"{factor.title} {level.label}": level.comparison.verdict
        for factor in factors(analysis, block)
        for level in factor.levels
        if level.comparison
    }
    return of_factors or {
        f"the effect of {effect.factors[0]}" if effect.main else f"the interaction of {listed(list(effect.factors))}":
        effect.verdict for effect in effects(analysis, block)
    }  # fmt: skip
