"""The section that holds the paper's printed numbers against ours: gap, interval, verdict, and what differs.

A printed score is compared with our row of the same recipe, setting and rank (or, for a method without a rank, at its
native size), never with a row of equal size. The interval is that of the gap: Student's t with the spread over our
seeds, taken for the paper's three seeds too, since it prints none; where the two test sets differ in size, the normal
interval of two binomial samples is added in squares. Scores are fractions (0 to 1).
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pandas as pd

from mosld_bench.records import published
from mosld_bench.records.published import AVERAGE, Protocol
from mosld_bench.report import stats
from mosld_bench.report import table as tabular
from mosld_bench.report.analysis import Analysis, Row
from mosld_bench.report.document import Block, Section, bullets, paragraph, run, section
from mosld_bench.report.table import Cell, Column, Line, Table
from mosld_bench.spec.budget import Native, Rank

_SEEDS = 3  # of every printed mean
_KNOWN_TO = 5  # items; what is held out is rounded, to whole passages where questions share one


@dataclass(frozen=True)
class Reproduced:
    """A printed score beside ours. ``verdict``: agrees, above, below, untested, other model, or no record."""

    table: str
    recipe: str
    setting: str
    task: str
    rank: int
    model: str
    published: float
    ours: float | None
    sd: float | None
    seeds: int
    gap: float | None
    low: float | None
    high: float | None
    verdict: str


def reproduction(analysis: Analysis) -> Section | None:
    """Published numbers, ours, and why they differ; None for a study that redoes no table."""
    if not analysis.study.published or analysis.published is None:
        return None
    facts = analysis.published.protocol
    found = list(reproduced(analysis, facts))
    tables: list[Block | None] = []
    if found:
        tables += [_averages(analysis, found), _by_task(analysis, found)]
    if not analysis.study.trains:
        tables.append(_counts(analysis, facts))
    slips = [slip.what for slip in published.slips(analysis.published) if slip.file[:-4] in analysis.study.published]
    names = ", ".join(sorted({one.table for one in found}) or analysis.study.published).replace("_", " ")
    return section(
        "Reproduction",
        paragraph(
            f"The numbers that the MoSLD paper (arXiv 2412.08946) prints ({names}) beside ours. ",
            _verdicts(found) if found else "",
        ),
        *tables,
        _differences(analysis, facts),
        paragraph(run("Slips of the printed tables. ", "bold"), "Averages above are those of the printed scores.")
        if slips
        else None,
        bullets(slips) if slips else None,
    )


def reproduced(analysis: Analysis, facts: Protocol) -> Iterator[Reproduced]:
    """Every printed score of the study's tables that has a place in this study, in the order of the tables."""
    assert analysis.published is not None
    benchmarks = {analysis.benchmark(task): task for task in analysis.study.in_domain}
    for name in analysis.study.published:
        if name == "table5_parameters":
            continue
        frame = published.scores(analysis.published, name)
        tasks = set(frame["task"]) - {AVERAGE} or set(facts.tasks)
        means = published.averages(frame)
        for printed in frame.to_dict("records"):
            line = {str(key): value for key, value in printed.items()}
            rank = published.RANK if pd.isna(line["rank"]) else int(line["rank"])
            row, same_model = _row(analysis, facts, line, rank)
            if row is None or not (
                line["task"] in benchmarks or (line["task"] == AVERAGE and tasks == set(benchmarks))
            ):
                continue
            what = "in_domain" if line["task"] == AVERAGE else benchmarks[line["task"]]
            if line["task"] == AVERAGE:
                line["accuracy"] = means.get((line["recipe"], line["setting"]), line["accuracy"])
            yield _one(analysis, facts, row, what, name, line, rank, same_model)


def _row(analysis: Analysis, facts: Protocol, line: dict[str, Any], rank: int) -> tuple[Row | None, bool]:
    """Our row for a printed line, and whether it is of the same base model."""
    wanted = facts.models[line["model"]]
    names = [model.name for model in analysis.study.models]
    if wanted not in names and any(name in names for name in facts.models.values()):
        return None, False  # of another of the paper's models, which is not in this study
    rows = [
        row
        for row in analysis.trained
        if (row.recipe.name, row.setting) == (line["recipe"], line["setting"])
        and _at_rank(row, rank)
        and row.block.model in ("", wanted)
        and row.block.general == 0
    ]
    return next(iter(rows), None), wanted in names


def _at_rank(row: Row, rank: int) -> bool:
    """Whether a row has ``rank``: by its budget, or at its native size by its recipe, which may have none."""
    if isinstance(row.budget, Rank):
        return row.budget.rank == rank
    return isinstance(row.budget, Native) and row.recipe.params.get("r", rank) == rank


def _one(
    analysis: Analysis,
    facts: Protocol,
    row: Row,
    what: str,
    table: str,
    line: dict[str, Any],
    rank: int,
    same_model: bool,
) -> Reproduced:
    values, printed = list(row.by_seed(what).values()), float(line["accuracy"])
    mean, sd = stats.mean_sd(values)
    gap = None if mean is None else mean - printed
    low = high = None
    if gap is not None and sd is not None:
        seeds = stats.t_half_width(sd * math.sqrt(1 / len(values) + 1 / _SEEDS), len(values) - 1)
        tasks = analysis.study.in_domain if what == "in_domain" else (what,)
        items = sum(_item_variance(analysis, facts, task, printed) for task in tasks) / len(tasks) ** 2
        half = math.hypot(seeds, 1.96 * math.sqrt(items))
        low, high = gap - half, gap + half
    if gap is None:
        verdict = "no record"
    elif not same_model:
        verdict = "other model"
    elif low is None or high is None:
        verdict = "untested"
    else:
        verdict = "agrees" if low <= 0 <= high else "above" if gap > 0 else "below"
    return Reproduced(
        table, str(line["recipe"]), str(line["setting"]), str(line["task"]), rank, str(line["model"]), printed,
        mean, sd, len(values), gap, low, high, verdict,
    )  # fmt: skip


def _item_variance(analysis: Analysis, facts: Protocol, task: str, level: float) -> float:
    """Variance of the gap that comes from other test items; none where the paper's test set is ours."""
    theirs, metric = facts.tasks.get(analysis.benchmark(task)), analysis.metric(task)
    if theirs is None or metric is None or theirs.scored == metric.items:
        return 0.0
    return level * (1 - level) * (1 / theirs.scored + 1 / metric.items)


def _verdicts(found: list[Reproduced]) -> str:
    counts = {
        verdict: sum(one.verdict == verdict for one in found) for verdict in dict.fromkeys(o.verdict for o in found)
    }
    text = f"Of {len(found)} printed scores: " + ", ".join(f"{n} {verdict}" for verdict, n in counts.items()) + "."
    if "other model" in counts:
        text += " This study ran on another base model, so no gap says anything about the paper."
    elif "agrees" in counts or "above" in counts or "below" in counts:
        text += " Agreement means that the 95 % interval of the gap holds zero; one in twenty would miss it by chance."
    return text


def _averages(analysis: Analysis, found: list[Reproduced]) -> Table:
    """Printed averages (or, where a table has none, its scores) with gap, interval and verdict; the CSV has all."""
    titles = {recipe.name: recipe.title for recipe in analysis.recipes}
    several = {key: len({getattr(one, key) for one in found}) > 1 for key in ("rank", "model")}
    lines: list[Line] = []
    last = None
    shown = [one for one in found if one.task == AVERAGE] or found
    shown = sorted(shown, key=lambda one: (analysis.settings.index(one.setting), one.model, one.rank))
    for one in shown:
        heading = tabular.setting_label(one.setting).capitalize()
        heading += f", rank {one.rank}" if several["rank"] else ""
        heading += f", {one.model}" if several["model"] else ""
        if heading != last:
            lines.append(Line((Cell(heading),), ruled=bool(lines)))
            last = heading
        what = titles[one.recipe] + ("" if one.task == AVERAGE else f", {_title(analysis, one.task)}")
        texts = [what, f"{100 * one.published:.2f}", tabular.percent(one.ours), tabular.percent(one.gap, sign=True)]
        span = tabular.MISSING if one.low is None else f"{tabular.interval(one.low, one.high)}"
        lines.append(Line(tuple(map(Cell, (*texts, span, one.verdict)))))
    columns = (
        Column("Method", "left"),
        *map(Column, ("Paper", "Ours", "Gap", "95 % interval")),
        Column("Verdict", "left"),
    )
    what = "Averages over the in-domain tasks" if shown[0].task == AVERAGE else "Scores"
    return Table(
        "reproduction",
        f"{what} as the paper prints them and ours (%), ours minus the paper's (points), its interval, and a verdict.",
        columns,
        tuple(lines),
        pd.DataFrame([vars(one) for one in found]),
    )


def _by_task(analysis: Analysis, found: list[Reproduced]) -> Table | None:
    """Gaps by task; None where the table before shows the tasks already."""
    if not any(one.task == AVERAGE for one in found) or all(one.task == AVERAGE for one in found):
        return None
    tasks = list(dict.fromkeys(one.task for one in found if one.task != AVERAGE))
    titles = {recipe.name: recipe.title for recipe in analysis.recipes}
    rows: dict[tuple[str, str, int, str], dict[str, Reproduced]] = {}
    for one in found:
        rows.setdefault((one.setting, one.recipe, one.rank, one.model), {})[one.task] = one
    lines: list[Line] = []
    last = None
    with_tasks = {key: scores for key, scores in rows.items() if scores.keys() & set(tasks)}
    order = sorted(with_tasks.items(), key=lambda item: analysis.settings.index(item[0][0]))
    for (setting, recipe, _, _), by_task in order:
        if setting != last:
            lines.append(Line((Cell(tabular.setting_label(setting).capitalize()),), ruled=bool(lines)))
            last = setting
        cells = [Cell(titles[recipe])]
        for task in tasks:
            here = by_task.get(task)
            outside = here is not None and here.verdict in {"above", "below"}
            cells.append(
                Cell(tabular.percent(here.gap, sign=True) if here else tabular.MISSING, mark="*" if outside else "")
            )
        lines.append(Line(tuple(cells)))
    return Table(
        "reproduction-tasks",
        "Ours minus the paper's by task, in points. *: the 95 % interval of the gap leaves out zero.",
        (Column("Method", "left"), *(Column(_title(analysis, task), turned=True) for task in tasks)),
        tuple(lines),
        None,
    )


def _title(analysis: Analysis, benchmark: str) -> str:
    tasks = [task for task in analysis.study.in_domain if analysis.benchmark(task) == benchmark]
    return analysis.title(tasks[0]) if tasks else benchmark


def _counts(analysis: Analysis, facts: Protocol) -> Table:
    """Exact counts beside what Table 5 prints: the digits, and the unit that they belong to."""
    assert analysis.published is not None
    printed = published.printed_counts(analysis.published)
    lines, numbers = [], []
    for row in analysis.trained:
        size = next((record.size for record in row.records if record.size), None)
        if size is None:
            continue
        same_model = analysis.study.models[0].name == facts.models[published.MODEL]
        paper = same_model and (isinstance(row.budget, Native) or row.budget == Rank(f"r{published.RANK}"))
        theirs, theirs_forward = printed.get(row.recipe.name, (None, None)) if paper else (None, None)
        digits, forward = published.as_printed(size.trainable), published.billions(size.total)
        same = {None: tabular.MISSING, digits: "digits agree"}.get(theirs, "digits differ")
        if theirs == published.billions(size.trainable):
            same = "agrees"
        if theirs_forward and abs(float(theirs_forward) - float(forward)) > 0.0011:  # both are rounded
            same += ", forward differs"
        shown = [f"{text} B" if text else tabular.MISSING for text in (theirs, forward, theirs_forward)]
        texts = (row.recipe.title, f"{size.trainable:,}", *shown, same)
        lines.append(Line(tuple(map(Cell, texts))))
        numbers.append(
            {
                "recipe": row.recipe.name,
                "budget": row.budget,
                "trainable_parameters": size.trainable,
                "in_units": published.in_units(size.trainable),
                "digits": digits,
                "printed_billions": theirs,
                "forward_billions": forward,
                "printed_forward_billions": theirs_forward,
                "verdict": same,
            }
        )
    return Table(
        "parameters",
        "Trainable parameters, routers counted, and parameters in the forward pass, beside what Table 5 of the paper "
        "prints. Its digits of the trainable ones are those of the count; its unit is 100 times too large but for full "
        "fine-tuning.",
        (
            Column("Method", "left"),
            Column("Trainable"),
            Column("Paper"),
            Column("Forward"),
            Column("Paper"),
            Column("Verdict", "left"),
        ),
        tuple(lines),
        pd.DataFrame(numbers),
    )


def _differences(analysis: Analysis, facts: Protocol) -> Table | None:
    """The fields of the protocol in which the study departs from the paper, or fills what the paper leaves open."""
    spec = analysis.study.train
    if spec is None:
        return None
    asked = dict(facts.study)
    for name in analysis.study.published:
        asked |= facts.tables.get(name, {})
    asked["models"] = [facts.models[name] for name in asked["models"]]
    study = analysis.study.model_dump(mode="json") | {"models": [model.name for model in analysis.study.models]}
    study |= {part: [analysis.benchmark(task) for task in study[part]] for part in ("in_domain", "out_of_domain")}
    study["seeds"] = len(study["seeds"])
    found: list[tuple[str, Any, Any]] = []
    for key, wanted in asked.items():
        ours = study["train"][key.removeprefix("train.")] if key.startswith("train.") else study[key]
        if key == "train.epochs" and ours is None:
            ours = f"{spec.steps:,} steps"
        lists = isinstance(ours, list) and isinstance(wanted, list)
        if ours != wanted and not (lists and sorted(ours) == sorted(wanted)):
            found.append((key.removeprefix("train."), wanted, ours))
    scaled = any(row.recipe.optimizer == "adafactor" for row in analysis.trained)
    here = {"optimizer": "AdamW" + ("; Adafactor where every weight trains" if scaled else ""),
            "prompt": "the task definitions in tasks/", "answer_only_loss": "yes"}  # fmt: skip
    found += [(key.replace("_", " "), None, here[key]) for key, given in facts.other.items() if given is None]
    for recipe in analysis.recipes:
        settings = (facts.params if "r" in recipe.params else {}) | facts.recipes.get(recipe.name, {})
        for key, printed in settings.items():
            if recipe.params.get(key) != printed:
                found.append((f"{recipe.title}, {key.replace('_', ' ')}", printed, recipe.params.get(key)))
    for task in analysis.study.in_domain:
        paper, metric = facts.tasks.get(analysis.benchmark(task)), analysis.metric(task)
        drawn = _drawn(analysis, task)
        if paper is None or metric is None or drawn is None:
            continue
        if abs(drawn - paper.train) > _KNOWN_TO or metric.items != paper.scored:
            pairs = (paper.train, paper.test), (drawn, metric.items)
            theirs, ours = (" / ".join(f"{n:,}" for n in pair) for pair in pairs)
            found.append((f"{analysis.title(task)}, train / test", theirs, ours))
    if not found:
        return None
    texts = [(key, _short(wanted), _short(ours)) for key, wanted, ours in found]
    return Table(
        "protocol-differences",
        "Where the protocol departs from the paper's, or fills what the paper does not give. Training items include "
        f"those held out; here their number is known to {_KNOWN_TO} items.",
        (Column("Field", "left"), Column("Paper", "wrap"), Column("Here", "wrap")),
        tuple(Line(tuple(map(Cell, line))) for line in texts),
        pd.DataFrame(texts, columns=["field", "paper", "here"]),
    )


def _drawn(analysis: Analysis, task: str) -> int | None:
    """Items of the training split that trials used, those held out for validation among them; to ``_KNOWN_TO``."""
    spec = analysis.study.train
    infos = (record.train_info for record in analysis.records)
    trained = next((info.train_items[task] for info in infos if info and task in info.train_items), None)
    return None if trained is None or spec is None else round(trained / (1 - spec.validation_fraction))


def _short(value: Any) -> str:
    if value is None:
        return "not given"
    if isinstance(value, list):
        return ", ".join(str(item).rsplit("/", 1)[-1] for item in value) or "none"
    return f"{value:,}" if isinstance(value, int) and not isinstance(value, bool) else str(value)
