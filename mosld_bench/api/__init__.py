"""The commands as functions, for notebooks and scripts: they call what the command line calls, and return objects."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mosld_bench._lazy import door

if TYPE_CHECKING:
    from mosld_bench.api.comparisons import Comparison, compare
    from mosld_bench.api.plans import StudyPlan, plan
    from mosld_bench.api.reports import Report, report, run

_MODULES = {
    "Comparison": "comparisons",
    "compare": "comparisons",
    "StudyPlan": "plans",
    "plan": "plans",
    "Report": "reports",
    "report": "reports",
    "run": "reports",
}
__all__ = ["Comparison", "Report", "StudyPlan", "compare", "plan", "report", "run"]


__getattr__ = door(__name__, _MODULES)
