"""Many trials: the plan, what is missing, where it runs, what the user sees.

This is the package's door. Importing it loads neither torch nor Ray: `make_executor` imports Ray where it is asked for.
"""

from __future__ import annotations

from mosld_bench.scheduling.checks import check, check_items, check_places
from mosld_bench.scheduling.executor import Executor, InlineExecutor, RunWatcher, make_executor
from mosld_bench.scheduling.options import Options
from mosld_bench.scheduling.plan import Plan, make_plan
from mosld_bench.scheduling.probing import run_probe
from mosld_bench.scheduling.progress import ProgressDisplay
from mosld_bench.scheduling.reuse import Missing, missing
from mosld_bench.scheduling.rounds import InterimReports, Rounds
from mosld_bench.scheduling.search import Search, make_search

__all__ = [
    "Executor",
    "InlineExecutor",
    "InterimReports",
    "Missing",
    "Options",
    "Plan",
    "ProgressDisplay",
    "Rounds",
    "RunWatcher",
    "Search",
    "check",
    "check_items",
    "check_places",
    "make_executor",
    "make_plan",
    "make_search",
    "missing",
    "run_probe",
]
