"""The question whether routers have collapsed."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from mosld_bench.format import listed
from mosld_bench.reporting.analysis import Analysis
from mosld_bench.reporting.labels import MOST_NAMED, named
from mosld_bench.reporting.routers import Routed, Run, modules_text
from mosld_bench.reporting.routing_stats import COLLAPSE_RULE
from mosld_bench.reporting.sections.answers.blocks import where

_FEW = 6  # recipes, or sets of modules, that are named one by one


def routers(analysis: Analysis) -> Iterator[str]:
    """Which routers have collapsed, by recipe, module and seed, or that none has; nothing where none is known."""
    rows: dict[str, list[Routed]] = {}
    for _, of_block in analysis.routed():
        for routed in of_block:
            rows.setdefault(routed.row.recipe.title, []).append(routed)
    if not rows:
        return
    collapsed = {title: count for title, of in rows.items() if (count := sum(routed.collapsed for routed in of))}
    totals = {title: sum(routed.routers for routed in of) for title, of in rows.items()}
    if not collapsed:
        total = sum(totals.values())
        whose = listed(list(rows)) if len(rows) <= MOST_NAMED else f"{len(rows)} recipes"
        yield f"None of the {total:,} routers of {whose} (modules of all seeds) has collapsed."
        return
    for title in list(collapsed)[:_FEW]:
        yield (
            f"{title}: {collapsed[title]:,} of {totals[title]:,} routers have collapsed, "
            f"{_which(analysis, rows[title])}."
        )
    if others := list(collapsed)[_FEW:]:
        yield f"{sum(collapsed[title] for title in others):,} more have in {named(others)}."
    yield f"A router has collapsed where {COLLAPSE_RULE}."


def _which(analysis: Analysis, rows: Sequence[Routed]) -> str:
    """'q_proj of layers 0–2 at seeds 0 and 1 (60,000 parameters)'; where blocks have the same, they stand together."""
    blocks: dict[str, list[str]] = {}
    for routed in rows:
        seeds: dict[str, list[Run]] = {}
        for run in routed.runs:
            if run.collapsed:
                seeds.setdefault(modules_text(run.collapsed, run.modules), []).append(run)
        for modules, runs in seeds.items():
            text = f"{modules} at {_seeds(analysis, runs, routed)}"
            blocks.setdefault(text, []).append(where(analysis, routed.row.condition))
    parts = [text + (f" ({'; '.join(at)})" if any(at) else "") for text, at in blocks.items()]
    more = len(parts) - _FEW
    return "; ".join(parts if more <= 0 else [*parts[:_FEW], f"and {more} more sets of modules and seeds"])


def _seeds(analysis: Analysis, runs: Sequence[Run], routed: Routed) -> str:
    """'every seed', 'seeds 0 and 1', or of models of single tasks 'seed 0 on ARC-Easy and SciQ, seed 1 on SciQ'."""
    if len(runs) == len(routed.runs) > 1:
        return "every seed"
    seeds: dict[int, list[str]] = {}
    for run in runs:
        seeds.setdefault(run.record.trial.seed, []).append(analysis.title(run.record.trial.train_on[0]))
    if routed.row.setting == "single":
        return ", ".join(f"seed {seed} on {listed(tasks)}" for seed, tasks in seeds.items())
    return f"seed{'s' * (len(seeds) > 1)} {listed(list(map(str, seeds)))}"
