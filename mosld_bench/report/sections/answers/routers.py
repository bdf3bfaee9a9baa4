"""The question whether routers have collapsed."""

from __future__ import annotations

from collections.abc import Iterator

from mosld_bench.format import listed
from mosld_bench.report.analysis import Analysis
from mosld_bench.report.routers import Routed, modules_text
from mosld_bench.report.routing_stats import COLLAPSE_RULE
from mosld_bench.report.sections.answers.blocks import where

_FEW = 6  # rows, or sets of modules, that are named one by one


def routers(analysis: Analysis) -> Iterator[str]:
    """Which routers have collapsed, by recipe, module and seed, or that none has; nothing where none is known."""
    rows = [routed for _, of_block in analysis.routed() for routed in of_block]
    if not rows:
        return
    total, collapsed = sum(routed.routers for routed in rows), [routed for routed in rows if routed.collapsed]
    if not collapsed:
        titles = listed(list(dict.fromkeys(routed.row.recipe.title for routed in rows)))
        yield f"None of the {total:,} routers of {titles} (modules of all seeds) has collapsed."
        return
    for routed in collapsed[:_FEW]:
        at = where(analysis, routed.row.condition)
        yield (
            f"{routed.row.recipe.title}{f' ({at})' if at else ''}: {routed.collapsed:,} of {routed.routers:,} routers "
            f"have collapsed, {_which(analysis, routed)}."
        )
    if others := collapsed[_FEW:]:
        titles = listed(list(dict.fromkeys(routed.row.recipe.title for routed in others)))
        yield f"{sum(routed.collapsed for routed in others):,} more have in {titles}."
    yield f"A router has collapsed where {COLLAPSE_RULE}."


def _which(analysis: Analysis, routed: Routed) -> str:
    """'q_proj of layers 0–2 at seeds 0 and 1; v_proj of layer 1 at seed 2'."""
    runs: dict[str, list[str]] = {}
    for run in routed.runs:
        if run.collapsed:
            on = f" on {analysis.title(run.record.trial.train_on[0])}" if routed.row.setting == "single" else ""
            runs.setdefault(modules_text(run.collapsed, run.modules), []).append(f"{run.record.trial.seed}{on}")
    parts = [
        f"{modules} at every seed"
        if len(of) == len(routed.runs) > 1
        else f"{modules} at seed{'s' * (len(of) > 1)} {listed(of)}"
        for modules, of in runs.items()
    ]
    more = len(parts) - _FEW
    return "; ".join(parts if more <= 0 else [*parts[:_FEW], f"and other modules at {more} more"])
