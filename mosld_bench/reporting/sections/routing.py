"""The section on routers: whether experts are used, whether the choice follows the task, and whether seeds agree."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from enum import StrEnum
from typing import Any

import pandas as pd

from mosld_bench.format import counted, digits, listed
from mosld_bench.reporting.analysis import Analysis
from mosld_bench.reporting.document import Bullets, Run, Section, bullets, paragraph, section
from mosld_bench.reporting.labels import MISSING, amounts, block_label, percent, short_label
from mosld_bench.reporting.routers import COURSES, NUMBERS, Range, Routed
from mosld_bench.reporting.routing_stats import COLLAPSE_RULE, DEAD_BELOW
from mosld_bench.reporting.sections.answers.blocks import main_block
from mosld_bench.reporting.sections.results.pages import in_pages
from mosld_bench.reporting.table import Cell, Column, Line, Table
from mosld_bench.spec.trial import Condition

TITLE = "Routing"

IGNORES = 0.05  # of the most information: below it, the router ignores the task
FOLLOWS = 0.5  # from there on it follows it
_ALIKE = 0.05, 0.5  # the same of the agreement of two seeds, from chance (0) to all picks (1)
_FEW = 8  # recipes that have a sentence each


def routing(analysis: Analysis) -> Section | None:
    """What is seen of every routed recipe, and a table; None where no record has a file of what its routers did."""
    blocks = analysis.routed()
    if not blocks:
        return None
    condition, rows = main_routed(analysis, blocks)
    return section(
        TITLE,
        paragraph(
            Run("router", "ref"),
            " is of what the routers did with the tokens of the test items; ",
            *_figures(rows),
            f" Of {short_label(condition)}:" if len(blocks) > 1 else " What is seen:",
        ),
        _seen(rows),
        *_elsewhere(blocks, condition),
        *_tables(analysis, blocks),
    )


def _figures(rows: Sequence[Routed]) -> Iterator[str | Run]:
    """What each figure of the section shows."""
    drawn = [("router-layers", "how evenly experts are used")]
    drawn += [("router-tasks", "which task uses which")] if any(routed.most_informed for routed in rows) else []
    if any(len(routed.course(name)) > 1 for routed in rows for name in COURSES):
        drawn.append(("router-training", "how that came about in training"))
    for i, (name, shows) in enumerate(drawn):
        yield from ("; " if i else "", Run(name, "ref"), f" shows {shows}" if not i else f" {shows}")
    yield "."


def main_routed(analysis: Analysis, blocks: Sequence[tuple[Condition, list[Routed]]]) -> tuple[Condition, list[Routed]]:
    """The block that the report opens with, or the first that has routers."""
    main = main_block(analysis)
    return next((block for block in blocks if block[0] == main), blocks[0])


# What is seen


def task_share(routed: Routed) -> float | None:
    """Mean information of expert and task as a share of the mean of the most it can be; None where there is none."""
    information, most = routed.range("information"), routed.range("most_information")
    return information.mean / most.mean if information and most and most.mean > 0 else None


def _seen(rows: Sequence[Routed]) -> Bullets | None:
    """A sentence a recipe; of many, one of all."""
    if len(rows) > _FEW:
        return bullets([said[0].upper() + said[1:]]) if (said := _by_task(rows)) else None
    return bullets(f"{routed.row.recipe.title}: {'; '.join(_clauses(routed))}." for routed in rows)


def _clauses(routed: Routed) -> Iterator[str]:
    """What is seen of the routers of a row."""
    share, information, most = task_share(routed), routed.range("information"), routed.range("most_information")
    if share is not None and information and most:
        yield (
            f"{following(share)} (mutual information {information.mean:.2f} of {most.mean:.2f} bits, by module "
            f"{information.low:.2f} to {information.high:.2f})"
        )
    dead, experts = (int(routed.values(name).sum()) for name in ("dead", "experts"))
    yield f"{dead:,} of {experts:,} experts dead" if dead else "no expert dead"
    if routed.collapsed:
        yield f"{routed.collapsed} of {counted(routed.routers, 'router')} collapsed"
    if routed.agreement:
        found, chance = routed.agreement
        least, most_alike = _ALIKE
        alike = (found.mean - chance.mean) / (1 - chance.mean) if chance.mean < 1 else 0.0
        verdict = "no more than by chance" if alike < least else "largely" if alike >= most_alike else "in part"
        yield f"two seeds pick alike {verdict} ({percent(found.mean)} % of picks, {percent(chance.mean)} % by chance)"


class Following(StrEnum):
    """How far routers follow the task."""

    FOLLOWS = "follows the task"
    IN_PART = "follows the task in part"
    IGNORES = "ignores the task"


def following(share: float) -> Following:
    """What is said of a share of the most information (`task_share`)."""
    return Following.IGNORES if share < IGNORES else Following.FOLLOWS if share >= FOLLOWS else Following.IN_PART


_OF_TASK = {
    Following.FOLLOWS: "followed by",
    Following.IN_PART: "followed in part by",
    Following.IGNORES: "ignored by",
}


def _by_task(rows: Sequence[Routed]) -> str:
    """Which recipes follow the task and which do not, in one sentence; empty where none can be told."""
    groups: dict[Following, list[str]] = {}
    for routed in rows:
        if (share := task_share(routed)) is not None:
            groups.setdefault(following(share), []).append(routed.row.recipe.title)
    if len(groups) == 1 and len(titles := next(iter(groups.values()))) == len(rows) > 2:
        return f"the task is {_OF_TASK[next(iter(groups))]} all {counted(len(titles), 'recipe')}."
    said = [f"{words} {listed(groups[verdict], most=_FEW)}" for verdict, words in _OF_TASK.items() if verdict in groups]
    return f"the task is {'; '.join(said)}." if said else ""


def _elsewhere(blocks: Sequence[tuple[Condition, list[Routed]]], main: Condition) -> Iterator[Bullets]:
    """Of every other block, who follows the task."""
    others = [
        f"{block_label(condition)}: {said}"
        for condition, rows in blocks
        if condition != main and (said := _by_task(rows))
    ]
    if others:
        yield bullets(others)


# The table


def _tables(analysis: Analysis, blocks: Sequence[tuple[Condition, list[Routed]]]) -> list[Table]:
    lines: list[list[Line]] = []
    for condition, rows in blocks:
        heading = [Line.heading(block_label(condition), ruled=bool(lines))] if len(blocks) > 1 else []
        lines.append([*heading, *map(_line, rows)])
    columns = (
        Column("Method", "left"),
        Column("N"),
        Column("K"),
        *(Column(title, group="Entropy") for title in ("before", "after")),
        *(Column(title, group="Largest share") for title in ("of picks", "of mass")),
        Column("Dead"),
        *(Column(title, group="MI with task, bits") for title in ("mean", "most")),
        Column("Shift"),
        *(Column(title, group="Two seeds, %") for title in ("agree", "chance")),
        Column("Collapsed"),
    )
    frame = pd.DataFrame([_numbers(condition, routed) for condition, rows in blocks for routed in rows])
    table = Table(
        "router",
        "What routers did with the tokens of test items: means over modules and seeds, and beside some the range over "
        "modules. In-domain tasks weigh the same.",
        columns,
        (),
        frame.astype(dict.fromkeys(_WHOLE, "Int64")),
        (*_NOTES, *_incomplete([routed for _, rows in blocks for routed in rows])),
        wide=True,
    )
    return in_pages(table, lines)


_NOTES = (
    "N, K: experts of a module, and how many of them a token picks.",
    "Entropy: of the router's probabilities as a share of log N, and of the gates after the top-K as a share of log K; "
    "1 is even.",
    "Largest share: what one expert takes; of picks at most 1 / K.",
    f"Dead: experts with less than {100 * DEAD_BELOW:g} % of the even load, over modules and seeds.",
    "MI: mutual information of expert and task; at most min(log2 (N / K), log2 of the tasks).",
    f"A router is said to ignore the task below {100 * IGNORES:g} % of that, and to follow it from {100 * FOLLOWS:g} % "
    "on.",
    "Shift: total variation distance between the mean loads in-domain and out of domain.",
    "Two seeds: the share of picks in common on the same tokens, with the experts of one matched to those of the other "
    "for the most agreement; chance: the same with the tokens of one permuted. They pick alike no more than by chance "
    f"where less than {100 * _ALIKE[0]:g} % of the way from chance to all is gone, and largely from "
    f"{100 * _ALIKE[1]:g} % on.",
    "Where a token picks all experts, its picks say nothing: dead experts, MI and shift are then of gate mass.",
    f"Collapsed: of the modules of all seeds, those in which {COLLAPSE_RULE}.",
)  # fmt: skip


def _incomplete(rows: Sequence[Routed]) -> list[str]:
    """The note on records without a file of what their routers did."""
    short = [
        f"{routed.row.recipe.title} ({len(routed.runs)} of {len(routed.row.records)})"
        for routed in rows
        if len(routed.runs) < len(routed.row.records)
    ]
    titles = listed(list(dict.fromkeys(short)), most=_FEW)
    return [f"Not every record says what its routers did: {titles}."] if short else []


def _line(routed: Routed) -> Line:
    agreement = routed.agreement or (None, None)
    dead, experts = (int(routed.values(name).sum()) for name in ("dead", "experts"))
    most = routed.range("most_information")
    has_tasks = routed.range("information") is not None
    return Line(
        (
            Cell(routed.row.recipe.title),
            *(Cell(_whole(routed.range(name))) for name in ("experts", "picked")),
            *(_mean(routed.range(name)) for name in ("entropy_before", "entropy_after")),
            *(_mean(routed.range(name), spread=True) for name in ("largest_of_picks", "largest_of_mass")),
            Cell(f"{dead:,} of {experts:,}"),
            _mean(routed.range("information"), spread=True),
            _mean(most if has_tasks else None),
            _mean(routed.range("shift")),
            *(Cell(percent(of.mean) if of else MISSING) for of in agreement),
            Cell(f"{routed.collapsed:,} of {routed.routers:,}"),
        )
    )


def _whole(values: Range | None) -> str:
    """'8', or where modules differ '2–8'."""
    if values is None:
        return MISSING
    return "–".join(dict.fromkeys(digits(end) for end in (values.low, values.high)))


def _mean(values: Range | None, *, spread: bool = False) -> Cell:
    """A mean; with ``spread`` the least and the greatest beside it."""
    if values is None:
        return Cell(MISSING)
    return Cell(f"{values.mean:.2f}", f"{values.low:.2f}–{values.high:.2f}" if spread else "")


_COUNTS = ("dead", "collapsed")  # of which a line of the CSV has the sum
_WHOLE = ("seeds", "records", "routers", "all_experts", *_COUNTS)  # columns of whole numbers


def _numbers(condition: Condition, routed: Routed) -> dict[str, Any]:
    """A line of the CSV: of every statistic mean, least and greatest over modules and seeds."""
    numbers: dict[str, Any] = {
        "recipe": routed.row.recipe.name,
        "setting": condition.setting,
        "budget": condition.budget,
        "model": condition.model,
        **amounts(condition),
        "rates": condition.rate,
        "seeds": len({run.record.trial.seed for run in routed.runs}),
        "records": len(routed.runs),
        "routers": routed.routers,
        "all_experts": routed.values("experts").sum(),
        **{name: routed.values(name).sum() for name in _COUNTS},
    }
    agreement, chance = routed.agreement or (None, None)
    ranges = {name: routed.range(name) for name in NUMBERS if name not in _COUNTS}
    for name, values in {**ranges, "agreement": agreement, "agreement_by_chance": chance}.items():
        for part in Range._fields:
            numbers[f"{name}_{part}"] = getattr(values, part) if values else None
    return numbers
