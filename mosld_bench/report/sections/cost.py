"""The tables of cost: what a trial took, what the budget solver built, how often an item was seen."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence

import pandas as pd

from mosld_bench.records.record import EvalInfo, Record
from mosld_bench.report.analysis import Analysis, Row
from mosld_bench.report.table import (
    MISSING,
    Cell,
    Column,
    Line,
    Table,
    beside,
    block_label,
    count,
    setting_label,
    titled,
)
from mosld_bench.spec.budget import Native
from mosld_bench.spec.trial import Condition

COSTS: dict[str, Callable[[Record], float | None]] = {
    "train_seconds": lambda r: r.train_info.seconds if r.train_info else None,
    "tokens_per_second": lambda r: r.train_info.tokens_per_second if r.train_info else None,
    "padding_percent": lambda r: 100 * r.train_info.padding_share if r.train_info else None,
    "eval_seconds": lambda r: r.eval_info.seconds if r.eval_info else None,
    "tokens_shared": lambda r: _shared(r.eval_info) if r.eval_info else None,
    "peak_memory_mib": lambda r: r.peak_memory_bytes / 2**20 if r.peak_memory_bytes else None,
}


def _shared(info: EvalInfo) -> float | None:
    """Tokens of all scored requests over those computed; None where answers were generated alone."""
    return info.tokens_plain / info.tokens_computed if info.tokens_computed else None


def cost(analysis: Analysis) -> Table:
    """What a trial took, mean over the trials of a row."""
    lines: list[Line] = []
    numbers, last = [], None
    printed = _printed(analysis)
    for row in (row for row in _by_block(analysis) if row.records):
        means = {key: _average(map(read, row.records)) for key, read in COSTS.items()}
        if row.block in printed and not row.frozen and row.block != last:
            lines.append(Line((Cell(block_label(row.block)),), ruled=bool(lines)))
            last = row.block
        texts = [MISSING if value is None else f"{value:,.{digits}f}" for value, digits in
                 zip(means.values(), (1, 0, 1, 1, 1, 0), strict=True)]  # fmt: skip
        if row.block in printed:
            lines.append(Line(tuple(Cell(text) for text in (titled(row.recipe.title, row.block), *texts))))
        numbers.append(
            {
                "recipe": row.recipe.name,
                "setting": row.setting,
                "budget": row.budget,
                "model": row.block.model or None,
                "general_items": row.block.general,
                "trials": len(row.records),
                **means,
            }
        )
    columns = ("Train s", "Tokens/s", "Pad. %", "Score s", "Shared", "MiB")
    return Table(
        "cost",
        "Cost of one trial, mean over trials: wall time of training, tokens trained a second, padding in per cent of "
        "what is computed, wall time of scoring, how many times the tokens computed all requests have (shared "
        "beginnings are computed once), and peak memory: of a GPU what the trial allocated, of a CPU the process's "
        "resident memory, with what earlier trials left in it."
        + ("" if len(numbers) == sum(len(line.cells) > 1 for line in lines) else " Other blocks are in the CSV."),
        (Column("Method", "left"), *map(Column, columns)),
        tuple(lines),
        pd.DataFrame(numbers),
    )


def _printed(analysis: Analysis) -> set[Condition]:
    """The blocks to print: all, or of more than three the first of the last setting and what has no size."""
    blocks = [block for block, _ in analysis.blocks()]
    if len(blocks) > 3:
        longest = [block for block in blocks if block.setting == analysis.settings[-1]]
        blocks = [block for block in longest if block == longest[0] or isinstance(block.budget, Native)]
    return {*blocks, *(row.block for row in analysis.frozen)}


def _by_block(analysis: Analysis) -> list[Row]:
    return [*analysis.frozen, *(row for _, rows in analysis.blocks() for row in rows)]


def _average(values: Iterable[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known else None


def audit(analysis: Analysis) -> Table:
    """What was asked of the budget solver and what the built model has, each recipe and budget once."""
    lines: list[Line] = []
    numbers = []
    seen: set[tuple[str, str, str]] = set()
    last = None
    order = {row.block: place for place, row in enumerate(reversed(analysis.trained))}
    for row in sorted(analysis.trained, key=lambda row: (not row.matched, not row.ranked, -order[row.block])):
        size = next((record.size for record in row.records if record.size), None)
        here = (row.budget, row.block.model)
        if analysis.study.trains and not row.matched and any(other.matched for other in analysis.trained):
            continue  # what has no target needs no audit; its size is in the main table
        if size is None or (row.recipe.name, *here) in seen:
            continue
        seen.add((row.recipe.name, *here))
        fitted = fitted_params(row)
        if here != last:
            asked = f", target {count(size.target)}" if size.target and row.budget != str(size.target) else ""
            what = f"Budget {row.budget.label}{asked}" if row.matched else f"Equal {row.budget.label}"
            what = what if row.ranked else "Not matched in size"
            lines.append(Line((Cell(what + beside(row.block._replace(general=0))),), ruled=bool(lines)))
            last = here
        share = size.trainable / size.total if size.total else None
        texts = (
            row.recipe.title,
            count(size.trainable),
            MISSING if size.residual is None else f"{100 * size.residual:+.2f}".replace("-", "−"),
            MISSING if share is None else f"{100 * share:.2f}",
            fitted or MISSING,
        )
        lines.append(Line(tuple(map(Cell, texts))))
        numbers.append(
            {
                "recipe": row.recipe.name,
                "budget": row.budget,
                "model": row.block.model or None,
                "target": size.target,
                "trainable_parameters": size.trainable,
                "residual": size.residual,
                "total_parameters": size.total,
                "share": share,
                "fitted": fitted,
            }
        )
    frame = pd.DataFrame(numbers)
    if len(frame):
        frame = frame.astype({"target": "Int64", "trainable_parameters": "Int64", "total_parameters": "Int64"})
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
        frame,
    )


def fitted_params(row: Row) -> str:
    """What the budget turned: 'r 11, 12 on 3 modules'."""
    params = next((record.size.params for record in row.records if record.size), {})
    knobs = dict.fromkeys(key for key in (row.recipe.knob, "r", "num_virtual_tokens") if key and key in params)
    parts = [f"{key.replace('_', ' ')} {params[key]}" for key in knobs]
    ranks = Counter((params.get("rank_pattern") or {}).values())
    parts += [f"{rank} on {n} module{'s' if n > 1 else ''}" for rank, n in sorted(ranks.items())]
    return ", ".join(parts)


def exposure(analysis: Analysis) -> Table | None:
    """How often a training item of each task was seen, by setting; None where nothing was trained."""
    ranges: dict[str, dict[str, list[float]]] = {}
    for row in analysis.trained:
        for record in row.records:
            for task, times in (record.train_info.exposures if record.train_info else {}).items():
                ranges.setdefault(task, {}).setdefault(row.setting, []).append(times)
    if not ranges:
        return None
    settings = [setting for setting in analysis.settings if any(setting in found for found in ranges.values())]
    tasks = [task for task in analysis.study.in_domain if task in ranges]
    lines = [
        Line(tuple(Cell(text) for text in (analysis.title(task), *(_span(ranges[task].get(s, [])) for s in settings))))
        for task in tasks
    ]
    numbers = [
        {
            "task": task,
            "setting": setting,
            "least": min(ranges[task][setting]),
            "most": max(ranges[task][setting]),
        }
        for task in tasks
        for setting in settings
        if setting in ranges[task]
    ]
    return Table(
        "exposure",
        "Exposures: how often each training item of a task was seen (over all trials of the setting).",
        (Column("Task", "left"), *(Column(setting_label(setting).capitalize()) for setting in settings)),
        tuple(lines),
        pd.DataFrame(numbers),
    )


def _span(values: Sequence[float]) -> str:
    if not values:
        return MISSING
    low, high = f"{min(values):.1f}", f"{max(values):.1f}"
    return low if low == high else f"{low} to {high}"
