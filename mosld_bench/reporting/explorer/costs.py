"""What rows cost, and scores against it with the fronts: those of the report, and peak memory beside them."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

from mosld_bench.reporting import pareto, stats
from mosld_bench.reporting.analysis import Analysis
from mosld_bench.reporting.explorer.places import Places
from mosld_bench.reporting.pareto import COSTS, Cost, CostKind, Group, cost_groups
from mosld_bench.reporting.rows import Row
from mosld_bench.reporting.sections.cost import trial_means


def _peak_memory(analysis: Analysis, row: Row) -> Cost | None:
    """Mean over the trials of a row, as the table of costs has it; its interval is over trials."""
    mean = trial_means(row)["peak_memory_mib"]
    if mean is None:
        return None
    peaks = [record.peak_memory_bytes / 2**20 for record in row.records if record.peak_memory_bytes]
    if len(peaks) < 2:
        return Cost(mean, None, None)
    half = stats.t_half_width((stats.mean_sd(peaks)[1] or 0.0) / math.sqrt(len(peaks)), len(peaks) - 1)
    return Cost(mean, max(0.0, mean - half), mean + half)


_MEMORY = CostKind("peak_memory_mib", "MiB", "Peak memory of a trial (MiB)", False, _peak_memory)

#: What rows are compared on.
KINDS = (*COSTS, _MEMORY)

_UNITS = {"train_seconds": "s", "decode_ms": "ms", "peak_memory_mib": "MiB"}


def cost_kinds() -> list[dict[str, Any]]:
    """The key ``costs``."""
    return [
        {
            "key": kind.key,
            "title": kind.title,
            "label": kind.label,
            "counted": kind.counted,
            "unit": _UNITS.get(kind.key, ""),
        }
        for kind in KINDS
    ]


def fronts(analysis: Analysis, places: Places) -> list[dict[str, Any]]:
    """The key ``fronts``."""
    return [_front(analysis, places, group) for group in cost_groups(analysis, KINDS)]


def _front(analysis: Analysis, places: Places, group: Group) -> dict[str, Any]:
    return {
        "measure": places.measures.index(group.of),
        "setting": group.setting,
        "model": group.model,
        "members": [
            {
                "row": places.rows[member.row.key],
                "mean": member.score.mean,
                "low": member.score.low,
                "high": member.score.high,
            }
            for member in group.members
        ],
        "costs": dict(_standings(analysis, group)),
    }


def _standings(analysis: Analysis, group: Group) -> Iterator[tuple[str, dict[str, Any]]]:
    """Of every cost how each member stands on it, and the corners of the front."""
    scale = analysis.scale(group.of)
    for key, standing in group.standings.items():
        known = [
            (member.costs[key].value, scale.rank(member.score.mean)) for member in group.members if key in member.costs
        ]
        corners = pareto.steps([cost for cost, _ in known], [rank for _, rank in known])
        yield key, {"standing": standing, "line": [(cost, scale.rank(rank)) for cost, rank in corners]}
