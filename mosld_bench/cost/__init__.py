"""What a trial takes: estimated, counted and measured."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mosld_bench._lazy import door

if TYPE_CHECKING:
    from mosld_bench.cost.estimate import (
        REACHED_SHARE,
        SUSTAINED_FLOPS,
        Price,
        Summary,
        TaskSize,
        price,
        side_by_side,
        summary,
        task_sizes,
        why_too_large,
    )
    from mosld_bench.cost.flops import attached_on_meta
    from mosld_bench.cost.measure import Options, narrowed, profile, workload
    from mosld_bench.cost.memory import Memory, Shape, UnknownShapeError, memory_of
    from mosld_bench.cost.probe import Probe

# Loaded when asked for: what counts and measures imports torch, what estimates does not.
_MODULES = {
    "Memory": "memory",
    "Shape": "memory",
    "UnknownShapeError": "memory",
    "memory_of": "memory",
    "REACHED_SHARE": "estimate",
    "SUSTAINED_FLOPS": "estimate",
    "Price": "estimate",
    "Summary": "estimate",
    "TaskSize": "estimate",
    "price": "estimate",
    "side_by_side": "estimate",
    "summary": "estimate",
    "task_sizes": "estimate",
    "why_too_large": "estimate",
    "attached_on_meta": "flops",
    "Options": "measure",
    "narrowed": "measure",
    "profile": "measure",
    "workload": "measure",
    "Probe": "probe",
}
__all__ = [  # noqa: RUF022 - grouped as the docstring says
    "Memory", "Shape", "UnknownShapeError", "memory_of",
    "REACHED_SHARE", "SUSTAINED_FLOPS", "Price", "Summary", "TaskSize", "price", "side_by_side", "summary",
    "task_sizes", "why_too_large",
    "attached_on_meta",
    "Options", "narrowed", "profile", "workload",
    "Probe",
]  # fmt: skip


__getattr__ = door(__name__, _MODULES)
