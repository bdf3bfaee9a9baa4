"""The section that holds the paper's printed numbers against ours: gaps, counts, protocol, and the paper's slips."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import TypeVar

import pandas as pd

from mosld_bench.records import published as paper
from mosld_bench.records.published import AVERAGE, Published
from mosld_bench.records.slips import slips
from mosld_bench.reporting.analysis import Analysis
from mosld_bench.reporting.document import Run, Section, bullets, paragraph, section
from mosld_bench.reporting.labels import MISSING, interval, percent, setting_label
from mosld_bench.reporting.paper_protocol import KNOWN_TO_ITEMS, protocol_differences
from mosld_bench.reporting.paper_scores import ComparedScore, Verdict, compared_scores
from mosld_bench.reporting.rows import Row
from mosld_bench.reporting.table import Cell, Column, Line, Table
from mosld_bench.spec.budget import Native, Rank

_OUTSIDE = (Verdict.ABOVE, Verdict.BELOW)
_FORWARD_ROUNDING_BILLIONS = 0.0011  # two numbers of three decimals, both rounded


def reproduction(analysis: Analysis) -> Section | None:
    """Published numbers, ours, and why they differ; None for a study that redoes no table."""
    published, study = analysis.published, analysis.study
    if not study.published or published is None:
        return None
    scores = compared_scores(analysis, published)
    sentences = [slip.sentence for slip in slips(published) if slip.name in study.published]
    names = ", ".join(sorted({score.table for score in scores}) or study.published).replace("_", " ")
    return section(
        "Reproduction",
        paragraph(
            f"The numbers that the MoSLD paper (arXiv 2412.08946) prints ({names}) beside ours. ",
            _verdicts(scores) if scores else "",
        ),
        _averages(analysis, scores) if scores else None,
        _by_task(analysis, scores),
        _counts(analysis, published) if not study.trains else None,
        _differences(analysis, published),
        paragraph(Run("Slips of the printed tables. ", "bold"), "Averages above are those of the printed scores.")
        if sentences
        else None,
        bullets(sentences) if sentences else None,
    )


def _verdicts(scores: Sequence[ComparedScore]) -> str:
    """How many comparisons have which verdict, and how to read that."""
    counts = Counter(score.verdict for score in scores)
    text = f"Of {len(scores)} printed scores: " + ", ".join(f"{n} {verdict}" for verdict, n in counts.items()) + "."
    if Verdict.OTHER_MODEL in counts:
        text += " This study ran on another base model, so no gap says anything about the paper."
    elif counts.keys() & {Verdict.AGREES, *_OUTSIDE}:
        text += " Agreement means that the 95 % interval of the gap holds zero; one in twenty would miss it by chance."
    return text


def _averages(analysis: Analysis, scores: Sequence[ComparedScore]) -> Table:
    """Printed averages (or, where a table has none, its scores) with gap, interval and verdict; the CSV has all."""
    titles = {recipe.name: recipe.title for recipe in analysis.recipes}

    def line(score: ComparedScore) -> Line:
        task = "" if score.task == AVERAGE else f", {_title(analysis, score.task)}"
        return Line.of(
            titles[score.recipe] + task,
            f"{100 * score.published:.2f}",
            percent(score.ours),
            percent(score.gap, sign=True),
            interval(score.low, score.high),
            score.verdict,
        )

    averages = [score for score in scores if score.task == AVERAGE]
    shown = sorted(averages or scores, key=lambda score: _place(analysis, score))
    subject = "Averages over the in-domain tasks" if averages else "Scores"
    return Table(
        "reproduction",
        f"{subject} as the paper prints them and ours (%), ours minus the paper's (points), its interval, and a "
        "verdict.",
        (
            Column("Method", "left"),
            *map(Column, ("Paper", "Ours", "Gap", "95 % interval")),
            Column("Verdict", "left"),
        ),
        _under_headings(shown, lambda score: _heading(score, scores), line),
        pd.DataFrame([vars(score) for score in scores]),
    )


def _heading(score: ComparedScore, scores: Sequence[ComparedScore]) -> str:
    """The setting of a score, with its rank and model where ``scores`` have several."""
    rank = f", rank {score.rank}" if len({other.rank for other in scores}) > 1 else ""
    model = f", {score.model}" if len({other.model for other in scores}) > 1 else ""
    return setting_label(score.setting).capitalize() + rank + model


def _place(analysis: Analysis, score: ComparedScore) -> tuple[int, int, int]:
    """What scores are sorted by to stand under their headings: setting, model as the paper orders them, and rank."""
    models = list(analysis.published.protocol.models) if analysis.published else []
    return analysis.settings.index(score.setting), models.index(score.model), score.rank


def _by_task(analysis: Analysis, scores: Sequence[ComparedScore]) -> Table | None:
    """Gaps by task; None where no task has one, or the table before shows the tasks already."""
    of_tasks = [score for score in scores if score.task != AVERAGE]
    if not of_tasks or len(of_tasks) == len(scores):
        return None
    tasks = list(dict.fromkeys(score.task for score in of_tasks))
    titles = {recipe.name: recipe.title for recipe in analysis.recipes}
    rows: dict[tuple[str, str, int, str], dict[str, ComparedScore]] = {}
    for score in of_tasks:
        rows.setdefault((score.setting, score.recipe, score.rank, score.model), {})[score.task] = score

    def first(row: dict[str, ComparedScore]) -> ComparedScore:
        return next(iter(row.values()))

    def line(row: dict[str, ComparedScore]) -> Line:
        gaps = [
            Cell(percent(score.gap, sign=True), mark="*" if score.verdict in _OUTSIDE else "")
            if (score := row.get(task))
            else Cell(MISSING)
            for task in tasks
        ]
        return Line((Cell(titles[first(row).recipe]), *gaps))

    shown = sorted(rows.values(), key=lambda row: _place(analysis, first(row)))
    return Table(
        "reproduction-tasks",
        "Ours minus the paper's by task, in points. *: the 95 % interval of the gap leaves out zero.",
        (Column("Method", "left"), *(Column(_title(analysis, task), turned=True) for task in tasks)),
        _under_headings(shown, lambda row: _heading(first(row), scores), line),
        None,
    )


_Item = TypeVar("_Item")


def _under_headings(
    items: Iterable[_Item], heading: Callable[[_Item], str], line: Callable[[_Item], Line]
) -> tuple[Line, ...]:
    """A line an item, with a heading wherever it changes."""
    lines: list[Line] = []
    for text, group in groupby(items, heading):
        lines.append(Line.heading(text, ruled=bool(lines)))
        lines += map(line, group)
    return tuple(lines)


def _title(analysis: Analysis, benchmark: str) -> str:
    tasks = [task for task in analysis.study.in_domain if analysis.benchmark(task) == benchmark]
    return analysis.title(tasks[0]) if tasks else benchmark


@dataclass(frozen=True)
class _Count:
    """A row's parameters beside those that Table 5 prints for it, if any; the fields are columns of the CSV."""

    recipe: str
    budget: str
    trainable_parameters: int
    in_units: str
    digits: str
    printed_billions: str | None
    forward_billions: str
    printed_forward_billions: str | None
    verdict: str


def _counts(analysis: Analysis, published: Published) -> Table:
    """Exact counts beside what Table 5 prints: the digits, and the unit that they belong to."""
    counts = [(row.recipe.title, count) for row in analysis.trained if (count := _count(analysis, published, row))]
    return Table(
        "parameters",
        "Trainable parameters, routers counted, and parameters in the forward pass, beside what Table 5 of the paper "
        "prints. Its digits of the trainable ones are those of the count; its unit is 100 times too large but for full "
        "fine-tuning.",
        (
            Column("Method", "left"),
            *map(Column, ("Trainable", "Paper", "Forward", "Paper")),
            Column("Verdict", "left"),
        ),
        tuple(
            Line.of(
                title,
                f"{count.trainable_parameters:,}",
                _in_billions(count.printed_billions),
                _in_billions(count.forward_billions),
                _in_billions(count.printed_forward_billions),
                count.verdict,
            )
            for title, count in counts
        ),
        pd.DataFrame([vars(count) for _, count in counts]),
    )


def _in_billions(number: str | None) -> str:
    return f"{number} B" if number else MISSING


def _count(analysis: Analysis, published: Published, row: Row) -> _Count | None:
    """None for a row without a record. Table 5 is of one model, at one rank or a method's own size."""
    size = next((record.size for record in row.records if record.size), None)
    if size is None:
        return None
    same_model = analysis.study.models[0].name == published.protocol.models[paper.MODEL]
    same_size = isinstance(row.budget, Native) or row.budget == Rank(f"r{paper.RANK}")
    printed = published.counts.get(row.recipe.name) if same_model and same_size else None
    digits, forward = paper.as_printed(size.trainable), paper.billions(size.total)
    if printed is None:
        verdict = MISSING
    elif printed.trainable == paper.billions(size.trainable):
        verdict = "agrees"
    else:
        verdict = "digits agree" if printed.trainable == digits else "digits differ"
    if printed and abs(float(printed.forward) - float(forward)) > _FORWARD_ROUNDING_BILLIONS:
        verdict += ", forward differs"
    return _Count(
        recipe=row.recipe.name,
        budget=row.budget,
        trainable_parameters=size.trainable,
        in_units=paper.in_units(size.trainable),
        digits=digits,
        printed_billions=printed.trainable if printed else None,
        forward_billions=forward,
        printed_forward_billions=printed.forward if printed else None,
        verdict=verdict,
    )


def _differences(analysis: Analysis, published: Published) -> Table | None:
    differences = protocol_differences(analysis, published.protocol)
    if not differences:
        return None
    return Table(
        "protocol-differences",
        "Where the protocol departs from the paper's, or fills what the paper does not give. Training items include "
        f"those held out; here their number is known to {KNOWN_TO_ITEMS} items.",
        (Column("Field", "left"), Column("Paper", "wrap"), Column("Here", "wrap")),
        tuple(Line.of(*difference) for difference in differences),
        pd.DataFrame(differences),
    )
