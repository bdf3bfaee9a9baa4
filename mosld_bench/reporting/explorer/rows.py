"""The rows of the leaderboard and the blocks that they stand in, with the numbers of the report's tables."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mosld_bench.reporting.analysis import Analysis
from mosld_bench.reporting.explorer.costs import KINDS
from mosld_bench.reporting.explorer.places import Places
from mosld_bench.reporting.explorer.study import budget_kind
from mosld_bench.reporting.forgetting import Forgetting, forgetting
from mosld_bench.reporting.labels import block_label, row_title, short_label
from mosld_bench.reporting.pareto import own_mean
from mosld_bench.reporting.rows import Row, RowKey
from mosld_bench.reporting.sections.cost import fitted_params, trial_means
from mosld_bench.reporting.sections.results.marks import Standing, standings
from mosld_bench.spec.trial import Condition, Domain

#: Of every measure, by its place: where tests put a row in its block.
_Standings = list[dict[RowKey, Standing]]


def blocks(analysis: Analysis, places: Places) -> list[dict[str, Any]]:
    """The key ``blocks``."""
    return [_block(analysis, places, condition, rows) for condition, rows in analysis.blocks()]


def _block(analysis: Analysis, places: Places, condition: Condition, rows: list[Row]) -> dict[str, Any]:
    targets = (record.size.target for row in rows for record in row.records if record.size and record.size.target)
    best = [analysis.best(condition, of) for of in places.measures]
    return {
        "label": block_label(condition),
        "short": short_label(condition),
        "setting": condition.setting,
        "budget": condition.budget,
        "budget_label": condition.budget.label,
        "kind": budget_kind(condition.budget),
        "model": condition.model or analysis.study.models[0].name,
        "general_items": condition.general,
        "task_items": condition.items,
        "rate": condition.rate,
        "target": next(targets, None),
        "rows": [places.rows[row.key] for row in rows],
        "base": _place(places, analysis.frozen_of(condition)),
        "reference": _place(places, analysis.reference_row(condition)),
        "best": [_place(places, row) for row in best],
        "leads": [analysis.leads(condition, of) for of in places.measures],
        "detectable": [
            analysis.detectable(condition, of) if isinstance(of, Domain) else None for of in places.measures
        ],
    }


def _place(places: Places, row: Row | None) -> int | None:
    return None if row is None else places.rows[row.key]


def rows(analysis: Analysis, places: Places) -> list[dict[str, Any]]:
    """The key ``rows``."""
    stands: _Standings = []
    for of in places.measures:
        stands.append({})
        for condition, _ in analysis.blocks():
            stands[-1] |= standings(analysis, condition, of)
    forgotten = {one.row.key: one for one in forgetting(analysis, analysis.trained)}
    planned: dict[RowKey, int] = {}
    several = len({trial.model.name for trial in analysis.trials}) > 1
    for trial in analysis.trials:
        condition = trial.condition if several else trial.condition._replace(model="")
        key = RowKey(trial.recipe.name, condition)
        planned[key] = planned.get(key, 0) + 1
    return [
        {
            **_row(analysis, places, row),
            "planned": planned.get(row.key, 0),
            "missing": max(0, planned.get(row.key, 0) - len(row.records)),
            "scores": [_score(analysis, row, of, stands[i]) for i, of in enumerate(places.measures)],
            "costs": {kind.key: _cost(analysis, row, kind) for kind in KINDS},
            "trial_costs": trial_means(row),
            "forgetting": _forgetting(forgotten.get(row.key)),
        }
        for row in analysis.rows
    ]


def _row(analysis: Analysis, places: Places, row: Row) -> dict[str, Any]:
    """What a row is and how large; the rest of its keys are added by `rows`."""
    size = next((record.size for record in row.records if record.size), None)
    parameters = next((record.parameters for record in row.records if record.parameters), None)
    return {
        "id": "/".join(str(part) for part in (row.recipe.name, *row.condition) if part not in ("", 0, "chosen")),
        "title": row_title(row.recipe.title, row.condition),
        "recipe": places.recipes[row.recipe.name],
        "group": row.recipe.group,
        "block": None if row.frozen else places.blocks[row.condition],
        "setting": row.setting,
        "budget": row.budget,
        "budget_label": row.budget.label,
        "model": row.condition.model or analysis.study.models[0].name,
        "frozen": row.frozen,
        "ranked": row.ranked and not row.frozen,
        "seeds": [seed.seed for seed in row.seeds if seed.complete],
        "n": row.n,
        "records": [places.records[record.trial_id] for record in row.records],
        "trials": [record.trial_id for record in row.records],
        "trainable": row.trainable,
        "active": parameters.active if parameters else None,
        "stored": parameters.stored if parameters else None,
        "total": size.total if size else None,
        "target": size.target if size else None,
        "residual": size.residual if size else None,
        "fitted": "" if row.frozen else fitted_params(row),
    }


def _score(analysis: Analysis, row: Row, of: Domain | str, stands: Mapping[RowKey, Standing]) -> dict[str, Any]:
    mean, sd = row.mean_sd(of)
    estimate, standing = own_mean(analysis, row, of), stands.get(row.key, Standing())
    return {
        "mean": mean,
        "sd": sd,
        "low": estimate.low if estimate else None,
        "high": estimate.high if estimate else None,
        "basis": estimate.basis if estimate else None,
        "of_items": estimate.of_items if estimate else None,
        "by_seed": sorted(row.by_seed(of).items()),
        "rank": _rank(analysis, row, of, mean),
        "tied": standing.tied,
        "leads": standing.leads,
        "verdict": standing.verdict or None,
        "mark": standing.mark,
    }


def _rank(analysis: Analysis, row: Row, of: Domain | str, mean: float | None) -> int | None:
    """The row's place in its block by its mean; None where it is not compared there."""
    if mean is None or not row.ranked or row.frozen:
        return None
    scale, others = analysis.scale(of), [other.mean_sd(of)[0] for other in analysis.pool(row.condition)]
    return 1 + sum(other is not None and scale.better(other, mean) for other in others)


def _cost(analysis: Analysis, row: Row, kind: Any) -> dict[str, float | None] | None:
    cost = kind.of(analysis, row)
    return None if cost is None else cost._asdict()


def _forgetting(forgotten: Forgetting | None) -> dict[str, Any] | None:
    if forgotten is None:
        return None
    more = forgotten.more
    return {
        "before": forgotten.before,
        "after": forgotten.after,
        "mean": more.mean,
        "low": more.low,
        "high": more.high,
        "basis": more.basis,
        "seeds": more.seeds,
        "by_seed": sorted(forgotten.by_seed.items()),
    }
