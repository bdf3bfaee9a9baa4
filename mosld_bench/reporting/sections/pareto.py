"""The section on scores against costs: which rows are on the front of each, and which are not shown to be off it."""

from __future__ import annotations

from typing import Any

import pandas as pd

from mosld_bench.format import digits, one_line
from mosld_bench.reporting.analysis import Analysis
from mosld_bench.reporting.document import Run, Section, paragraph, section
from mosld_bench.reporting.labels import MISSING, amounts, count, setting_label
from mosld_bench.reporting.pareto import COSTS, CostKind, Group, Member, Standing, groups
from mosld_bench.reporting.table import Cell, Column, Line, Table
from mosld_bench.spec.budget import Native

TITLE = "Scores against costs"
NAME = "pareto"

_OPEN = "†"  # beside the cost of a row that is not shown to be off the front


def pareto_section(analysis: Analysis) -> Section | None:
    """The fronts in a table; None where no record has the costs that it needs."""
    found = groups(analysis)
    if not found:
        return None
    return section(
        TITLE,
        paragraph(
            Run(NAME, "ref"),
            " has which rows are on the front of a cost: no other row scores better for no more of it. That a row is "
            "off the front is shown where a test tells that another scores better (Holm's method over all pairs on "
            "that cost) and that one is known to cost no more: parameters within the tolerance of budgets, "
            f"{100 * analysis.study.budget_tolerance:g} %, times with intervals apart. Times are of the machine and of "
            "what else it did.",
        ),
        _table(analysis, found),
    )


def member_title(group: Group, member: Member) -> str:
    """The title of a row within a group, with its budget where the group has several."""
    budgets = {one.row.budget for one in group.members if not isinstance(one.row.budget, Native)}
    several = len(budgets) > 1 and not isinstance(member.row.budget, Native)
    return one_line(f"{member.row.recipe.title}{f' ({member.row.budget.label})' if several else ''}")


def group_label(group: Group) -> str:
    """'In-domain, mixture', and the model where the report has several."""
    model = f", {group.model.rsplit('/', 1)[-1]}" if group.model else ""
    return f"{group.of.label}, {setting_label(group.setting)}{model}"


def _table(analysis: Analysis, found: list[Group]) -> Table:
    kinds = [kind for kind in COSTS if any(kind in group.kinds for group in found)]
    lines: list[Line] = []
    for group in found:
        lines.append(Line.heading(group_label(group), ruled=bool(lines)))
        lines += [_line(analysis, group, place, kinds) for place in range(len(group.members))]
    decoding = any(kind.key == "decode_ms" for kind in kinds)
    times = " Decoding: milliseconds a token, the median over the rounds of the profile." if decoding else ""
    return Table(
        NAME,
        f"Mean {analysis.measure} with half its 95 % interval, and what it costs. Bold: on the front of that cost; "
        f"{_OPEN}: not on it by these numbers, and not shown to be off it; plain: off it.{times}",
        (Column("Method", "left"), Column("Mean"), *(Column(kind.title) for kind in kinds)),
        tuple(lines),
        pd.DataFrame([_numbers(group, place, kinds) for group in found for place in range(len(group.members))]).astype(
            {kind.key: "Int64" for kind in kinds if kind.counted}
        ),
        wide=True,
    )


def _line(analysis: Analysis, group: Group, place: int, kinds: list[CostKind]) -> Line:
    member, scale = group.members[place], analysis.scale(group.of)
    half = member.score.half_width
    cells = [
        Cell(member_title(group, member)),
        Cell(scale.text(member.score.mean), scale.spread(member.score.mean, half)),
    ]
    for kind in kinds:
        cost, standing = member.costs.get(kind.key), _standing(group, place, kind)
        text = MISSING if cost is None else count(cost.value) if kind.counted else _time(cost.value)
        cells.append(Cell(text, bold=standing is Standing.ON, mark=_OPEN if standing is Standing.OPEN else ""))
    return Line(tuple(cells))


def _time(value: float) -> str:
    return f"{value:.2f}" if value < 100 else digits(value)


def _standing(group: Group, place: int, kind: CostKind) -> Standing | None:
    return group.standings[kind.key][place] if kind.key in group.standings else None


def _numbers(group: Group, place: int, kinds: list[CostKind]) -> dict[str, Any]:
    """A line of the CSV: the score with its interval, every cost, and how the row stands on it."""
    member = group.members[place]
    row, score = member.row, member.score
    numbers: dict[str, Any] = {
        "role": group.of.value,
        "setting": group.setting,
        "model": group.model or None,
        "recipe": row.recipe.name,
        "budget": row.budget,
        **amounts(row.condition),
        "score": score.mean,
        "score_low": score.low,
        "score_high": score.high,
    }
    for kind in kinds:
        cost, standing = member.costs.get(kind.key), _standing(group, place, kind)
        numbers[kind.key] = None if cost is None else cost.value
        if not kind.counted:
            numbers[f"{kind.key}_low"] = cost.low if cost else None
            numbers[f"{kind.key}_high"] = cost.high if cost else None
        numbers[f"{kind.key}_front"] = standing.value if standing else None
    return numbers
