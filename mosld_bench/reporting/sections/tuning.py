"""The section on the search for learning rates: how it went, what it chose, and whether the choice matters."""

from __future__ import annotations

from typing import Any

import pandas as pd

from mosld_bench.format import counted, listed
from mosld_bench.reporting.analysis import Analysis, Comparison
from mosld_bench.reporting.document import Run, Section, paragraph, section
from mosld_bench.reporting.labels import MISSING, block_label, named
from mosld_bench.reporting.rows import RowKey
from mosld_bench.reporting.table import Column, Line, Table
from mosld_bench.spec.trial import Domain
from mosld_bench.spec.tuning import RateSource, TunedRecipe, Tuning

TITLE = "Tuning"


def tuning_section(analysis: Analysis) -> Section | None:
    """What the study's search found; None for a study that takes in none."""
    tuning = analysis.study.tuning
    if tuning is None or not (recipes := tuned_recipes(analysis)):
        return None
    return section(
        TITLE,
        paragraph(
            Run("tuning", "ref"),
            " and ",
            Run("learning-rates", "ref"),
            f" are of the search that gave the methods their learning rates: {_how(tuning)} ",
            _outcome(analysis, tuning, recipes),
            _by_hand(analysis),
        ),
        _table(analysis, tuning, recipes),
        *_at_both_rates(analysis),
    )


def tuned_recipes(analysis: Analysis) -> dict[str, TunedRecipe]:
    """Name -> what was found, of the recipes of the report whose rates are the search's; in the order of the rows."""
    study = analysis.study
    names = [r.name for r in analysis.recipes if study.rate_source(r.name) is RateSource.SEARCH]
    return {name: study.tuning.recipes[name] for name in names} if study.tuning else {}


def _how(tuning: Tuning) -> str:
    """The search in two sentences."""
    runs = [run for recipe in tuning.recipes.values() for run in recipe.runs]
    ended = [run for run in runs if run.ended != "finished"]
    saved = 1 - sum(run.steps for run in runs) / (len(runs) * tuning.steps)
    stopped = (
        f", of which {len(ended)} were stopped early since they could not win, which saved {saved:.0%} of the steps"
        if ended
        else ""
    )
    return (
        f"the same {counted(len(tuning.factors), 'factor')} on the study's learning rate "
        f"({listed([f'{factor:g}' for factor in tuning.factors])}) for every method, {tuning.steps:,} steps each, "
        f"seeds {listed([str(seed) for seed in tuning.seeds])}, which the study does not use; "
        f"{counted(len(runs), 'run')}{stopped}. "
        f"The factor with the lowest loss on the held-out training items is chosen; no test item is scored "
        f"(results/{tuning.results}, digest {tuning.digest})."
    )


def _outcome(analysis: Analysis, tuning: Tuning, recipes: dict[str, TunedRecipe]) -> str:
    """How many choices are above the noise, at an edge, or another by score."""
    if tuning.noise is None:
        return "No two factors count for any method, so the noise of the search is not known."
    titles = {recipe.name: recipe.title for recipe in analysis.recipes}
    clear = [name for name in recipes if tuning.separated(name)]
    text = (
        f"The margin between the best factor and the next is above the noise of a pair ({tuning.noise:.4f} nats, on "
        f"{tuning.degrees_of_freedom} degrees of freedom) for {len(clear) or 'none'} of {len(recipes)} methods"
    )
    text += "; the other choices might have gone the other way." if len(clear) < len(recipes) else "."
    if edge := [titles[name] for name, found in recipes.items() if found.at_edge]:
        text += f" At an edge of the grid: {named(edge)}."
    if other := [titles[name] for name, found in recipes.items() if found.agrees is False]:
        text += f" The score on the held-out items would choose another factor for {named(other)}."
    return text


def _by_hand(analysis: Analysis) -> str:
    """The recipes whose factor is no search's."""
    leaders, study = analysis.leaders, analysis.study
    trained = [recipe for recipe in analysis.recipes if recipe.method != "base"]
    others = [recipe for recipe in trained if study.rate_source(recipe.name) is not RateSource.SEARCH]
    ablated = [r for r in others if study.rate_source(r.name, leaders.get(r.name)) is RateSource.SEARCH]
    by_hand = [recipe.title for recipe in others if recipe not in ablated]
    text = f" Not searched for: {named(by_hand)}." if by_hand else ""
    return text + (
        f" {counted(len(ablated), 'ablation').capitalize()} at the factor of the recipe ablated." if ablated else ""
    )


def _table(analysis: Analysis, tuning: Tuning, recipes: dict[str, TunedRecipe]) -> Table:
    titles = {recipe.name: recipe.title for recipe in analysis.recipes}
    lines = []
    for name, found in recipes.items():
        ended = sum(run.ended != "finished" for run in found.runs)
        margin = MISSING if found.margin is None else f"{found.margin:.4f}"
        above = {True: "yes", False: "no", None: MISSING}[tuning.separated(name)]
        lines.append(
            Line.of(
                titles[name],
                f"{found.chosen:g}{' (edge)' if found.at_edge else ''}",
                MISSING if found.runner_up is None else f"{found.runner_up:g}",
                margin,
                above,
                MISSING if found.by_score is None else f"{found.by_score:g}",
                f"{ended} of {len(found.runs)}",
            )
        )
    numbers: list[dict[str, Any]] = [
        {
            "recipe": name,
            "factor": run.factor,
            "seed": run.seed,
            "ended": run.ended,
            "steps": run.steps,
            "validation_loss": run.losses[-1] if run.losses else None,
            "score": run.score,
            "chosen": found.chosen == run.factor,
            "runner_up": found.runner_up == run.factor,
        }
        for name, found in recipes.items()
        for run in found.runs
    ]
    noise = "" if tuning.noise is None else f" Above the noise: above {tuning.noise:.4f} nats."
    return Table(
        "tuning",
        "Factors on the study's learning rate that the search chose by validation loss, the next best ones, and the "
        f"margin between their losses in nats an answer token.{noise} By score: the factor that the score on the "
        "held-out items would choose.",
        (
            Column("Method", "left"),
            *map(Column, ("Chosen", "Next", "Margin", "Above noise", "By score", "Stopped")),
        ),
        tuple(lines),
        pd.DataFrame(numbers),
        wide=True,
    )


def _at_both_rates(analysis: Analysis) -> list[Any]:
    """The comparison with the reference at the chosen and at the next best rates; nothing where these were not run."""
    lines: list[Line] = []
    numbers: list[dict[str, Any]] = []
    held = compared = 0
    for condition, _ in analysis.blocks():
        if condition.rate != "chosen":
            continue
        again = {c.row.recipe.name: c for c in analysis.against_reference(condition._replace(rate="runner_up"))}
        chosen = [c for c in analysis.against_reference(condition) if c.row.recipe.name in again]
        lines += [Line.heading(block_label(condition), ruled=bool(lines))] if chosen else []
        for comparison in chosen:
            other = again[comparison.row.recipe.name]
            compared, held = compared + 1, held + (comparison.verdict is other.verdict)
            lines.append(Line.of(comparison.row.recipe.title, *_texts(comparison), *_texts(other)))
            numbers += [_numbers(comparison), _numbers(other)]
    if not lines:
        return [
            paragraph(
                "The comparison was not repeated at the next best rates (rates: [chosen, runner_up] in the study asks "
                "for it), so how far it hangs on the choice is not known."
            )
        ]
    reference = analysis.reference
    return [
        paragraph(
            Run("rates", "ref"),
            f" repeats the comparison with every method at its next best rate: {held} of {compared} verdicts stay.",
        ),
        Table(
            "rates",
            f"In-domain mean minus that of {reference}, every method at the learning rate that the search chose, and "
            "at the next best one, with 95 % intervals and verdicts.",
            (
                Column("Method", "left"),
                Column("difference", group="Chosen rates"),
                Column("", "left", group="Chosen rates"),
                Column("difference", group="Next best rates"),
                Column("", "left", group="Next best rates"),
            ),
            tuple(lines),
            pd.DataFrame(numbers),
            wide=True,
        ),
    ]


def _texts(comparison: Comparison) -> list[str]:
    delta, scale = comparison.difference, comparison.scale
    ends = f" [{scale.interval(delta.low, delta.high, ', ')}]" if delta.low is not None else ""
    return [scale.text(delta.mean, sign=True) + ends, str(comparison.verdict)]


def _numbers(comparison: Comparison) -> dict[str, Any]:
    key: RowKey = comparison.row.key
    delta = comparison.difference
    return {
        "recipe": key.recipe,
        "setting": key.condition.setting,
        "budget": key.condition.budget,
        "rates": key.condition.rate,
        "mean_of": str(Domain.IN),
        "difference": delta.mean,
        "low": delta.low,
        "high": delta.high,
        "p_holm": comparison.adjusted,
        "verdict": str(comparison.verdict),
    }
