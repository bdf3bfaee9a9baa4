"""The sections on what a trial took, and on what the budget solver built; without training, only the latter."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from mosld_bench.format import listed
from mosld_bench.records.record import Record
from mosld_bench.reporting.analysis import Analysis
from mosld_bench.reporting.document import Section, paragraph, section
from mosld_bench.reporting.forgetting import NATS_DIGITS, Forgetting, forgetting, nats, text_loss, text_title
from mosld_bench.reporting.labels import MISSING, amounts, block_label, count, hardware_label, row_title, suffix
from mosld_bench.reporting.rows import Row
from mosld_bench.reporting.table import Cell, Column, Line, Table
from mosld_bench.spec.budget import Native
from mosld_bench.spec.trial import Condition, Fit


def cost(analysis: Analysis) -> Section:
    """Time and memory; of a study that trains nothing, the numbers of parameters."""
    if not analysis.study.trains:
        return section("Parameters", audit_table(analysis))
    machines = dict.fromkeys(hardware_label(record.meta_info.get("hardware")) for record in analysis.records)
    return section(
        "Cost",
        paragraph(
            f"Measured on {listed(list(machines))}. Times are wall times of single trials and depend on what else the "
            "machine did; compare them only roughly."
        ),
        cost_table(analysis),
    )


def budget_audit(analysis: Analysis) -> Section | None:
    """What the budget solver built; None where nothing was sized, or `cost` tells it."""
    table = audit_table(analysis)
    return section("Budget audit", table, appendix=True) if table.rows and analysis.study.trains else None


@dataclass(frozen=True)
class CostColumn:
    """A column of the table of costs: what it reads from a record, which may lack it, and how it is printed."""

    key: str  # of the CSV
    title: str
    digits: int  # after the point
    read: Callable[[Record], float | None]


def _tokens_shared(record: Record) -> float | None:
    """Tokens of all scored requests over those computed; None where answers were generated alone."""
    info = record.eval_info
    return info.tokens_plain / info.tokens_computed if info and info.tokens_computed else None


COST_COLUMNS = (
    CostColumn("train_seconds", "Train s", 1, lambda r: r.train_info.seconds if r.train_info else None),
    CostColumn("tokens_per_second", "Tokens/s", 0, lambda r: r.train_info.tokens_per_second if r.train_info else None),
    CostColumn("padding_percent", "Pad. %", 1, lambda r: 100 * r.train_info.padding_share if r.train_info else None),
    CostColumn("eval_seconds", "Score s", 1, lambda r: r.eval_info.seconds if r.eval_info else None),
    CostColumn("tokens_shared", "Shared", 1, _tokens_shared),
    CostColumn("peak_memory_mib", "MiB", 0, lambda r: r.peak_memory_bytes / 2**20 if r.peak_memory_bytes else None),
)


def trial_means(row: Row) -> dict[str, float | None]:
    """Key of a `COST_COLUMNS` -> its mean over the trials of a row; None where no record has it."""
    return {column.key: _mean([column.read(record) for record in row.records]) for column in COST_COLUMNS}


def cost_table(analysis: Analysis) -> Table:
    """What a trial took, mean over the trials of a row; of many blocks some are in the CSV alone."""
    lines: list[Line] = []
    numbers, heading = [], None
    printed = _printed_blocks(analysis)
    forgotten = {one.row.key: one for one in forgetting(analysis, analysis.trained)}
    rows = [*analysis.frozen, *(row for _, rows in analysis.blocks() for row in rows)]
    for row in (row for row in rows if row.records):
        means = trial_means(row)
        if row.condition in printed:
            if not row.frozen and row.condition != heading:
                heading = row.condition
                lines.append(Line.heading(block_label(heading), ruled=bool(lines)))
            texts = [_rounded(means[column.key], column.digits) for column in COST_COLUMNS]
            cells = [Cell(row_title(row.recipe.title, row.condition)), *map(Cell, texts)]
            cells += [_forgotten_cell(forgotten.get(row.key))] if forgotten else []
            lines.append(Line(tuple(cells)))
        numbers.append(
            {
                "recipe": row.recipe.name,
                "setting": row.setting,
                "budget": row.budget,
                "model": row.condition.model or None,
                **amounts(row.condition),
                "trials": len(row.records),
                **means,
                **(_text_numbers(analysis, row, forgotten.get(row.key)) if forgotten else {}),
            }
        )
    complete = len(numbers) == sum(len(line.cells) > 1 for line in lines)
    return Table(
        "cost",
        "Cost of one trial, mean over trials: wall time of training, tokens trained a second, padding in per cent of "
        "what is computed, wall time of scoring, how many times the tokens computed all requests have (shared "
        "beginnings are computed once), and peak memory: of a GPU what the trial allocated, of a CPU the process's "
        f"resident memory, with what earlier trials left in it.{_of_forgetting(analysis) if forgotten else ''}"
        f"{'' if complete else ' Other blocks are in the CSV.'}",
        (
            Column("Method", "left"),
            *(Column(column.title) for column in COST_COLUMNS),
            *([Column("Forgets")] if forgotten else []),
        ),
        tuple(lines),
        pd.DataFrame(numbers),
        wide=bool(forgotten),
    )


def _of_forgetting(analysis: Analysis) -> str:
    """What the column of forgetting has, as a sentence of the caption."""
    return (
        " Forgets: by how many nats a token more the held-out text costs than the frozen base "
        f"({text_title(analysis)}; positive is worse), with half its 95 % interval over seeds and documents."
    )


def _forgotten_cell(forgotten: Forgetting | None) -> Cell:
    """'+0.12', and beside it half the interval; – of a row that tells nothing."""
    if forgotten is None:
        return Cell(MISSING)
    half = forgotten.more.half_width
    return Cell(nats(forgotten.more.mean), "" if half is None else f"± {half:.{NATS_DIGITS}f}")


def _text_numbers(analysis: Analysis, row: Row, forgotten: Forgetting | None) -> dict[str, Any]:
    """The columns of the CSV on the held-out text: the loss, and that minus the frozen base's with its interval."""
    base = next(filter(None, map(text_loss, row.records)), None) if row.frozen else None
    more = forgotten.more if forgotten else None
    return {
        "text": analysis.study.evaluate.text,
        "text_loss": forgotten.after if forgotten else base.nats_per_token if base else None,
        "forgetting": more.mean if more else None,
        "forgetting_low": more.low if more else None,
        "forgetting_high": more.high if more else None,
        "forgetting_basis": more.basis.value if more else None,
        "forgetting_seeds": more.seeds if more else None,
    }


def _printed_blocks(analysis: Analysis) -> set[Condition]:
    """The blocks to print: all, or of more than three the first of the last setting and what has no size."""
    blocks = [condition for condition, _ in analysis.blocks()]
    if len(blocks) > 3:
        longest = [condition for condition in blocks if condition.setting == analysis.settings[-1]]
        blocks = [block for block in longest if block == longest[0] or isinstance(block.budget, Native)]
    return {*blocks, *(row.condition for row in analysis.frozen)}


def _mean(values: Sequence[float | None]) -> float | None:
    """Mean of those that are known; None without one."""
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known else None


def _rounded(value: float | None, digits: int) -> str:
    return MISSING if value is None else f"{value:,.{digits}f}"


def audit_table(analysis: Analysis) -> Table:
    """What was asked of the budget solver and what the built model has, each recipe, budget and model once."""
    lines: list[Line] = []
    numbers, heading = [], None
    for (budget, model), row, size in _audited(analysis):
        if heading != (budget, model):
            heading = budget, model
            lines.append(Line.heading(_asked(row, size), ruled=bool(lines)))
        share = size.trainable / size.total if size.total else None
        fitted = fitted_params(row)
        lines.append(
            Line.of(
                row.recipe.title,
                count(size.trainable),
                MISSING if size.residual is None else f"{100 * size.residual:+.2f}".replace("-", "−"),
                MISSING if share is None else f"{100 * share:.2f}",
                fitted or MISSING,
            )
        )
        numbers.append(
            {
                "recipe": row.recipe.name,
                "budget": budget,
                "model": model or None,
                "target": size.target,
                "trainable_parameters": size.trainable,
                "residual": size.residual,
                "total_parameters": size.total,
                "share": share,
                "fitted": fitted,
            }
        )
    whole = ("target", "trainable_parameters", "total_parameters")
    frame = pd.DataFrame(numbers)
    return Table(
        "audit",
        "Budget audit: trainable parameters as built (routers counted), their residual against the "
        "budget and their share of all parameters in per cent, and what the budget set.",
        (
            Column("Method", "left"),
            Column("Built"),
            Column("Res. %"),
            Column("Share %"),
            Column("Fitted", "left"),
        ),
        tuple(lines),
        frame.astype(dict.fromkeys(whole, "Int64")) if numbers else frame,
    )


def _audited(analysis: Analysis) -> list[tuple[tuple[str, str], Row, Fit]]:
    """Budget and model, row and size of what the table shows; equal sizes first, then equal ranks, then the others.

    Where rows of the study are matched in size, those without a target need no audit: the main table has their size.
    """
    trained = analysis.trained
    skip_unmatched = analysis.study.trains and any(row.matched for row in trained)
    place = {row.condition: -i for i, row in enumerate(reversed(trained))}
    audited: dict[tuple[str, str, str], tuple[tuple[str, str], Row, Fit]] = {}
    for row in sorted(trained, key=lambda row: (not row.matched, not row.ranked, place[row.condition])):
        size = next((record.size for record in row.records if record.size), None)
        if size is not None and (row.matched or not skip_unmatched):
            block = row.budget, row.condition.model
            audited.setdefault((row.recipe.name, *block), (block, row, size))
    return list(audited.values())


def _asked(row: Row, size: Fit) -> str:
    """The heading above the rows of a budget: what it asked for."""
    if not row.ranked:
        text = "Not matched in size"
    elif not row.matched:
        text = f"Equal {row.budget.label}"
    else:
        target = f", target {count(size.target)}" if size.target and row.budget != str(size.target) else ""
        text = f"Budget {row.budget.label}{target}"
    return text + suffix(row.condition._replace(general=0))


def fitted_params(row: Row) -> str:
    """What the budget turned: 'r 11, 12 on 3 modules'."""
    params = _built_params(row)
    parts = [f"{key.replace('_', ' ')} {params[key]}" for key in knobs(row)]
    ranks = Counter(_own_sizes(params).values())
    parts[1:1] = [f"{rank} on {n} module{'s' if n > 1 else ''}" for rank, n in sorted(ranks.items())]
    return ", ".join(parts)


def knobs(row: Row) -> list[str]:
    """The parameters that a budget turns, by their names in the recipe; none of a row without a record."""
    params = _built_params(row)
    asked = [key for key, value in params.items() if type(value) is int and row.recipe.params.get(key) != value]
    names = dict.fromkeys((row.recipe.knob or "r", "num_virtual_tokens", *asked))
    return [key for key in names if key and key in params]


def _own_sizes(params: Mapping[str, Any]) -> Mapping[str, int]:
    """Of single modules, by the patterns that a budget fills in."""
    patterns = (params.get(name) for name in ("rank_pattern", "n_frequency_pattern", "experts_pattern"))
    found = next((pattern for pattern in patterns if pattern and isinstance(pattern, Mapping)), {})
    return {module: size for module, size in found.items() if type(size) is int}


def _built_params(row: Row) -> dict[str, Any]:
    """The parameters with which the models of a row were built."""
    return next((record.size.params for record in row.records if record.size), {})
