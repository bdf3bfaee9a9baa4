"""The section on how differences are tested: the method in exact words, and the noise that it found."""

from __future__ import annotations

from collections.abc import Iterator

import pandas as pd

from mosld_bench.format import digits, listed
from mosld_bench.reporting.analysis import Analysis
from mosld_bench.reporting.document import Section, section
from mosld_bench.reporting.labels import MISSING, amounts, block_label, margin_label
from mosld_bench.reporting.stats import LEVEL, POWER
from mosld_bench.reporting.table import Column, Line, Table

TITLE = "How differences are tested"


def method_of_tests(analysis: Analysis) -> Section | None:
    """The estimator, its families and margin, and the noise of every block; None without training."""
    if not analysis.study.trains:
        return None
    return section(TITLE, _method_table(analysis), _noise_table(analysis), appendix=True)


def _method_table(analysis: Analysis) -> Table:
    settings = "; all rows of the mixture minus single tasks" if len(analysis.settings) > 1 else ""
    steps = {
        "Difference": "of two rows of a block: the mean over their S common seeds of the mean over tasks of the mean "
        "over items of the difference of their scores.",
        "Noise of seeds": "VS = 2 MS / S. MS is the residual mean square of the fit row + seed to the means of all "
        "rows of the block that have two seeds or more, on ν degrees of freedom.",
        "Noise of items": "X = max(0, VI − VE). VI is the variance of the difference over the choice of items, VE the "
        f"part of it that changes from seed to seed and so is in VS already. {_clusters(analysis)}",
        "Interval": "95 %, t √(VS + X) to each side, on (VS + X)² / (VS² / ν + X² / df) degrees of freedom, df being "
        "those of VI (Satterthwaite).",
        "One seed (‡)": "VS = 2 MS of the rows with several seeds; VE is the mean over their pairs of S VE.",
        "Noisy row (§)": "Where a row's variance over seeds (Grubbs) is larger than that of the others by an F test at "
        f"{LEVEL:g}, that of the pair's own differences takes the place of 2 MS, on S − 1 degrees of freedom.",
        "No seeds (¶)": "With one seed in every row, or ν < 2, the interval is over items alone; p is McNemar's exact "
        "one on a single task of single items. Both are of the trained models and say nothing of methods.",
        "By itself": "A row minus the untrained model, or minus itself in the other setting: s² / S + X, on S − 1 "
        "degrees of freedom and those of X, s being the standard deviation over seeds. A single seed takes that of the "
        "other rows (‡).",
        **_of_ablations(analysis),
        "Better, worse": f"p < {LEVEL:g} after Holm's correction. Families: the rows of a block minus "
        f"{analysis.reference}, domain by domain; the rows and tasks of a block and domain; the rows of a block minus "
        f"the untrained model{settings}{_families_of_ablations(analysis)}. Each metric has its own.",
        "Equal": f"By two one-sided t tests at {LEVEL:g} with the same error the difference is less than "
        f"{margin_label(analysis.study.margin)}; row by row, and where rows are not told apart.",
        "Best of a block": "The best mean of the rows with the most seeds, or a row that is told to be better. It was "
        "found by looking, so p is corrected for all pairs of rows.",
    }
    return Table(
        "tests",
        "How a difference is tested.",
        (Column("Step", "left"), Column("Method", "wrap")),
        tuple(Line.of(step, text) for step, text in steps.items()),
        None,
    )


def _of_ablations(analysis: Analysis) -> dict[str, str]:
    """How an effect of a factorial is estimated; nothing for a study without one."""
    if analysis.study.factorial is None:
        return {}
    return {
        "Effect": "of a factorial: a sum Σ c y over its cells with Σ c = 0, estimated as a difference is from that sum "
        "seed by seed and item by item, with VS = MS Σ c² / S. Of two levels each, c is ±1/2 for a main effect of two "
        "factors and ±1 for their interaction; a difference has c = 1 and −1."
    }


def _families_of_ablations(analysis: Analysis) -> str:
    """The families of a study with ablations, domain by domain; a factor is a question of its own."""
    ablate, factorial = analysis.study.ablate, analysis.study.factorial
    return ("; the values of a factor in a block" if ablate else "") + (
        "; the effects of the factorial in a block" if factorial else ""
    )


def _clusters(analysis: Analysis) -> str:
    """What stands by itself in the choice of items: passages where they are known, else items."""
    passages = dict(_passages(analysis))
    if not passages:
        return "Every item stands by itself."
    named = listed([f"{count:,} of {analysis.title(task)}" for task, count in passages.items()])
    rest = ", every other item by itself" if len(passages) < len(analysis.task_names) else ""
    return f"Items of one passage count together (passages: {named}){rest}."


def _passages(analysis: Analysis) -> Iterator[tuple[str, int]]:
    """Task -> its passages, of tasks whose items tell them."""
    for task in analysis.task_names:
        answers = (a for row in analysis.rows for a in analysis.evidence.answers(row, task).values())
        groups = next((a.groups for a in answers), None)
        if groups is not None:
            yield task, len(set(groups))


def _noise_table(analysis: Analysis) -> Table | None:
    """MS and ν of every block on every domain, or task where that has no mean; None where no seeds tell."""
    lines: list[Line] = []
    numbers = []
    for condition, _ in analysis.blocks():
        pool = analysis.pool(condition)
        known = {
            of: noise for of in analysis.compared() if (noise := analysis.evidence.seed_noise(pool, of)) is not None
        }
        lines += [Line.heading(block_label(condition), ruled=bool(lines))] if known else []
        for of, noise in known.items():
            scale, detectable = analysis.scale(of), analysis.detectable(condition, of)
            square = noise.mean_square * scale.factor**2
            found = MISSING if detectable is None else digits(detectable * scale.factor)
            lines.append(Line.of(analysis.label(of), digits(square), str(noise.freedom), found))
            numbers.append(
                {
                    "setting": condition.setting,
                    "budget": condition.budget,
                    "model": condition.model or None,
                    **amounts(condition),
                    "rate": condition.rate,
                    "of": str(of),
                    "mean_square": noise.mean_square,
                    "freedom": noise.freedom,
                    "detectable": detectable,
                }
            )
    if not numbers:
        return None
    unit = " (points² and points)" if all(analysis.scale(of).points for of in analysis.compared()) else ""
    return Table(
        "noise",
        f"What seeds move rows by{unit}: MS on ν degrees of freedom, and the smallest true difference that two rows "
        f"with the most seeds show with a chance of {100 * POWER:.0f} %.",
        (Column("Mean of", "left"), Column("MS"), Column("ν"), Column("detectable")),
        tuple(lines),
        pd.DataFrame(numbers),
    )
