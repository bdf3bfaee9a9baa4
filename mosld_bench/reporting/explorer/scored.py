"""What was scored and not trained under the study, in a table of its own as in the report."""

from __future__ import annotations

from typing import Any

from mosld_bench.reporting import stats
from mosld_bench.reporting.analysis import Analysis
from mosld_bench.reporting.explorer.places import Places
from mosld_bench.reporting.sections.scored import APART, ScoredRow, scored_rows
from mosld_bench.spec.trial import Domain


def scored(analysis: Analysis, places: Places) -> dict[str, Any] | None:
    """The key ``scored``."""
    rows = scored_rows(analysis)
    return {"text": APART, "rows": [_row(row, places) for row in rows]} if rows else None


def _row(row: ScoredRow, places: Places) -> dict[str, Any]:
    record = row.record
    return {
        "id": record.scored_id,
        "title": record.title,
        "model": record.model.name,
        "peft_type": record.adapter.peft_type if record.adapter else None,
        "trainable": record.parameters.trainable,
        "total": record.parameters.total,
        "scores": [_score(row, of) for of in places.measures],
        "differences": row.differences(),
        "command": record.meta_info.get("command"),
    }


def _score(row: ScoredRow, of: Domain | str) -> dict[str, Any]:
    """As the report prints it: a mean with its interval over items, a task alone."""
    if isinstance(of, Domain):
        mean: stats.Estimate | None = row.mean(of)
        return {"mean": mean.mean, "low": mean.low, "high": mean.high} if mean else dict.fromkeys(_SCORE)
    metric = row.metrics.get(of)
    return {"mean": metric.value if metric else None, "low": None, "high": None}


_SCORE = ("mean", "low", "high")
