"""Comparisons as sentences: each pair has its own verdict and numbers, and no other."""

from __future__ import annotations

import random
import re
from collections.abc import Sequence

import pytest

from mosld_bench.records.scale import SHARE, Range, Scale
from mosld_bench.reporting.analysis import Comparison, Verdict
from mosld_bench.reporting.rows import Row, SeedScores
from mosld_bench.reporting.stats import Basis, Estimate
from mosld_bench.reporting.verdicts import Note, Wording, notes, numbers, sentences
from mosld_bench.spec.recipe import Recipe
from mosld_bench.spec.trial import Domain
from tests.reporting.answering import claims
from tests.reporting.reading import MIXTURE

TITLES = ("Alpha", "Beta", "Gamma", "Delta", "Epsilon", "Zeta", "Eta", "Theta", "Iota")
PERPLEXITY = Scale(Range.NUMBER, higher_is_better=False, metric="perplexity")


def row(title: str, seeds: int = 3) -> Row:
    scores = tuple(SeedScores(seed, {}, {Domain.IN: 0.5}, True) for seed in range(seeds))
    return Row(Recipe(name=title.lower(), title=title, method="peft"), MIXTURE, (), scores)


OTHER = row("Other")
BESIDE = Wording("Other", rows="other method")


def comparison(
    title: str,
    points: float,
    error: float | None = 0.3,
    *,
    adjusted: float | None = None,
    basis: Basis = Basis.POOLED,
    seeds: int = 3,
    items: bool = True,
    scale: Scale = SHARE,
    other: Row = OTHER,
) -> Comparison:
    """``points`` and their ``error`` on 8 degrees of freedom; ``adjusted``: its p, by default that of the t test."""
    freedom = None if error is None else 8.0
    error = None if error is None else error / scale.factor
    estimate = Estimate(points / scale.factor, error, freedom, seeds, basis, items)
    margin = scale.margin(1.0)
    p = estimate.p if adjusted is None else adjusted
    return Comparison(row(title, seeds), other, Domain.IN, None, estimate, p, margin, scale)


def test_rows_of_a_verdict_share_a_sentence_and_each_has_its_numbers() -> None:
    rows = [comparison("Alpha", 2.0), comparison("Beta", 0.1), comparison("Gamma", -0.1), comparison("Delta", -3.0)]
    rows += [comparison("Epsilon", 0.8, 0.6)]
    assert sentences(rows, BESIDE) == [
        "Alpha (+2.0 points, 95 % +1.3 to +2.7) is better than Other.",
        "Beta (+0.1, −0.6 to +0.8) and Gamma (−0.1, −0.8 to +0.6) are equal within 1 point.",
        "Delta (−3.0, −3.7 to −2.3) is worse.",
        "Epsilon (+0.8, −0.6 to +2.2) is neither told apart nor shown equal.",
    ]


def test_of_more_than_four_rows_the_range_is_told() -> None:
    equal = [comparison(title, place / 10) for place, title in enumerate(TITLES[:5])]
    assert sentences(equal, BESIDE) == [
        "All five other methods are equal to Other within 1 point: 0.0 points (Alpha) to +0.4 (Epsilon), 95 % within "
        "−0.7 to +1.1."
    ]
    assert sentences([*equal, comparison("Zeta", -3)], BESIDE)[0] == (
        "Alpha, Beta, Gamma, Delta and Epsilon are equal to Other within 1 point: 0.0 points (Alpha) to +0.4 (Epsilon)"
        ", 95 % within −0.7 to +1.1."
    )
    unlike = [comparison(title, place / 10, 0.6) for place, title in enumerate(TITLES[:5])]
    assert sentences(unlike, BESIDE) == [
        "None of the five other methods is told apart from Other or shown equal: 0.0 points (Alpha) to +0.4 (Epsilon), "
        "95 % within −1.4 to +1.8."
    ]
    wording = Wording("its 30 %", where="in-domain", rows="method", few=1, gains=True)
    assert sentences([comparison("Alpha", 5), comparison("Beta", 4)], wording) == [
        "In-domain both methods gain on its 30 %: +4.0 points (Beta) to +5.0 (Alpha), 95 % within +3.3 to +5.7."
    ]


def test_a_difference_that_is_told_may_be_smaller_than_the_margin() -> None:
    small = comparison("Alpha", 0.5, 0.1)
    assert small.separated
    assert small.within
    rows = [small, comparison("Beta", 3.0), comparison("Gamma", -0.5, 0.1)]
    assert sentences(rows, BESIDE) == [
        "Beta (+3.0 points, 95 % +2.3 to +3.7) is better than Other.",
        "Alpha (+0.5, +0.3 to +0.7) is better, by less than 1 point.",
        "Gamma (−0.5, −0.7 to −0.3) is worse, by less than 1 point.",
    ]


def test_where_lower_is_better_a_negative_difference_is_better_and_without_a_margin_nothing_is_equal() -> None:
    rows = [comparison("Alpha", -2.0, scale=PERPLEXITY), comparison("Beta", 0.01, scale=PERPLEXITY)]
    assert sentences(rows, BESIDE) == [
        "Alpha (−2.000, 95 % −2.692 to −1.308) is better than Other.",
        "Beta (+0.010, −0.682 to +0.702) is not told apart.",
    ]
    many = [comparison(title, 0.01, scale=PERPLEXITY) for title in TITLES[:5]]
    assert sentences(many, BESIDE) == [
        "None of the five other methods is told apart from Other: +0.010, 95 % within −0.682 to +0.702."
    ]


def test_of_one_seed_models_are_spoken_of_and_no_methods() -> None:
    rows = [comparison("Alpha", 9.0, basis=Basis.MODELS, seeds=1), comparison("Beta", 0.1, basis=Basis.MODELS, seeds=1)]
    assert sentences(rows, BESIDE) == [
        "The trained models differ on these items from Other's by +9.0 points (Alpha, 95 % over items +8.3 to "
        "+9.7) and +0.1 (Beta, −0.6 to +0.8).",
        "With one seed nothing is said of methods.",
    ]
    bare = [comparison("Alpha", 9.0, None, basis=Basis.MODELS, seeds=1, items=False)]
    assert sentences(bare, BESIDE) == [
        "The trained models differ on these items from Other's by +9.0 points (Alpha).",
        "Their items are not at hand, so there is no interval.",
        "With one seed nothing is said of methods.",
    ]


def test_models_that_answer_alike_are_said_to() -> None:
    twin = comparison("Alpha", 0.0, 0.0, basis=Basis.MODELS, seeds=1)
    assert sentences([twin], BESIDE) == ["Alpha has the score of Other on every item."]


def test_what_an_interval_rests_on_is_noted() -> None:
    own = comparison("Alpha", 1.0, basis=Basis.OWN)
    rows = [own, comparison("Beta", 2.0), comparison("Gamma", 3.0, basis=Basis.BORROWED, seeds=1)]
    assert list(notes(rows, BESIDE)) == [
        "Gamma has one seed, its noise borrowed from the others.",
        "Alpha scatters more over seeds than the others, so its own noise counts.",
    ]
    assert all(isinstance(note, Note) for note in notes(rows, BESIDE))
    both = [comparison(title, 1.0, basis=Basis.OWN) for title in ("Alpha", "Beta")]
    assert list(notes(both, BESIDE)) == ["Other scatters more over seeds than the others, so its own noise counts."]
    single = row("Other", seeds=1)
    borrowed = [comparison("Alpha", 1.0, basis=Basis.BORROWED, seeds=1, other=single)]
    assert list(notes(borrowed, BESIDE)) == ["Other has one seed, its noise borrowed from the others."]
    lacking = [comparison("Alpha", 1.0, items=False), comparison("Beta", 1.0)]
    assert list(notes(lacking, BESIDE)) == [
        "No items of Alpha are at hand, so that these intervals leave out the choice of items."
    ]
    assert list(notes(lacking[:1], BESIDE)) == [
        "No items are at hand that give these scores, so the intervals leave out the choice of items."
    ]


def drawn(draw: random.Random, scale: Scale) -> list[Comparison]:
    """Some rows of random differences, errors and corrections."""
    titles = draw.sample(TITLES, draw.randint(1, len(TITLES)))
    untested = draw.random() < 0.15
    return [
        comparison(
            title,
            draw.gauss(0, draw.choice((0.1, 1.0, 4.0))),
            draw.choice((0.05, 0.3, 1.5)),
            adjusted=draw.choice((None, 1.0)),
            basis=Basis.MODELS if untested else draw.choice((Basis.POOLED, Basis.BORROWED, Basis.OWN)),
            scale=scale,
        )
        for title in titles
    ]


@pytest.mark.parametrize("scale", [SHARE, PERPLEXITY], ids=["share", "lower is better"])
def test_no_pair_is_given_another_verdict_than_its_own(scale: Scale) -> None:
    draw, seen = random.Random(3), set()
    for _ in range(100):
        rows = drawn(draw, scale)
        wording = Wording("Other", where=draw.choice(("", "in-domain")), rows=draw.choice(("", "other method")))
        text = " ".join(sentences(rows, wording))
        said = claims(text, [c.row.recipe.title for c in rows], "Other")
        for c in rows:
            unnamed: list[list[Verdict]] = (
                [[]] if c.verdict is Verdict.UNTESTED else []
            )  # of many models the range is told
            assert said[c.row.recipe.title] in [[c.verdict], *unnamed], text
            seen.add(c.verdict)
    assert seen == set(Verdict) - (set() if scale.points else {Verdict.EQUAL})


def test_the_numbers_of_a_sentence_are_those_of_its_comparison() -> None:
    draw = random.Random(4)
    for _ in range(60):
        rows = drawn(draw, SHARE)
        text = " ".join(sentences(rows, BESIDE))
        texts = {c.row.recipe.title: numbers(c, full=False) for c in rows}
        for title, quoted in quotations(text):
            assert quoted == texts[title]
        for low, high in re.findall(r"95 % (?:over items )?within (\S+) to ([^\s.]+\.\d)", text):
            ends = [end for quoted in texts.values() for end in re.split(r", | to ", quoted)[1:]]
            assert {low, high} <= set(ends)


def quotations(text: str) -> Sequence[tuple[str, str]]:
    """Titles with the difference and interval that stand in parentheses behind them, without words."""
    found = re.findall(r"(\w+) \(([^()]* to [^()]*)\)", text)
    return [(title, quoted.replace(" points", "").replace("95 % ", "")) for title, quoted in found if title in TITLES]
