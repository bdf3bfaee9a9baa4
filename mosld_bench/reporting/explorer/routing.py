"""What the routers of rows did: the statistics of the report's table, and its heat maps of every module and seed."""

from __future__ import annotations

import math
from typing import Any

from mosld_bench.reporting.analysis import Analysis
from mosld_bench.reporting.explorer.places import Places
from mosld_bench.reporting.figures.routing import by_layer, by_task
from mosld_bench.reporting.routers import COURSES, NUMBERS, Range, Routed, Run, modules_text
from mosld_bench.reporting.sections.routing import following, task_share

_OF_MODULE = ("dead", "information", "most_information", "entropy_before", "entropy_after")


def routers(analysis: Analysis, places: Places) -> list[dict[str, Any]]:
    """The key ``routers``."""
    return [_row(analysis, places, routed) for _, rows in analysis.routed() for routed in rows]


def _row(analysis: Analysis, places: Places, routed: Routed) -> dict[str, Any]:
    layers, values = by_layer(routed)
    share, (agreement, chance) = task_share(routed), routed.agreement or (None, None)
    return {
        "row": places.rows[routed.row.key],
        "routers": routed.routers,
        "collapsed": routed.collapsed,
        "statistics": {name: _range(routed.range(name)) for name in NUMBERS},
        "agreement": _range(agreement),
        "agreement_by_chance": _range(chance),
        "follows": None if share is None else following(share),
        "layers": {"layers": layers, "values": values},
        "runs": [_run(analysis, places, routed, run) for run in routed.runs],
        "course": {name: [list(point) for point in routed.course(name)] for name in COURSES},
    }


def _range(values: Range | None) -> dict[str, float] | None:
    return None if values is None else values._asdict()


def _run(analysis: Analysis, places: Places, routed: Routed, run: Run) -> dict[str, Any]:
    tasks = [task for task in analysis.task_names if task in run.test.tasks]
    informed = routed.most_informed
    return {
        "record": places.records[run.record.trial_id],
        "seed": run.record.trial.seed,
        "tasks": tasks,
        "informed": informed[1] if informed and informed[0] is run else None,
        "modules": [_module(run, module, tasks) for module in range(len(run.modules))],
    }


def _module(run: Run, module: int, tasks: list[str]) -> dict[str, Any]:
    order, load = by_task(run, module, tasks) if tasks else ([], [])
    of = run.modules[module]
    numbers = {name: float(run.numbers[name][module]) for name in (*_OF_MODULE, "collapsed")}
    return {
        "name": of.name,
        "short": modules_text([of], run.modules) if len(run.modules) > 1 else of.name,
        "layer": of.layer,
        "experts": int(run.test.experts[module]),
        "collapsed": bool(numbers.pop("collapsed")),
        **{name: None if math.isnan(value) else value for name, value in numbers.items()},
        "order": order,
        "load": load,
    }
