"""A probe of a plan on this machine: its largest trial in short, as `run` would start it, with nothing written."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from mosld_bench.cost.probe import Probe, largest, probe_of, shortened
from mosld_bench.errors import BenchError
from mosld_bench.scheduling.checks import check, check_items
from mosld_bench.scheduling.executor import RunWatcher, make_executor
from mosld_bench.scheduling.options import Options
from mosld_bench.scheduling.plan import Plan
from mosld_bench.spec.trial import PlannedTrial

if TYPE_CHECKING:
    from mosld_bench.inputs.audit import Watcher


def run_probe(
    plan: Plan, task_folders: Sequence[Path], options: Options, *, watch: Watcher, watcher: RunWatcher
) -> Probe:
    """Measure the largest trial of ``plan`` in short, in this process. Writes no record.

    ``watch``: told of the look at the items; ``watcher``: of the trial. Raises BenchError where the plan has nothing to
    measure, for what `scheduling.check` and `scheduling.check_items` refuse, and where the short trial fails.
    """
    from mosld_bench.trial.device import threads

    study, index = plan.study, largest(plan.planned, plan.prices)
    if not study.trains:
        raise BenchError(f"The study {study.name!r} only counts parameters: there is nothing to measure by --probe.")
    if index is None:
        raise BenchError("--probe carries what it measures over by estimated FLOPs, which there are for transformers.")
    whole, fit = plan.planned[index]
    short = PlannedTrial(shortened(whole, plan.sizes, score_tokens=study.resources.score_tokens), fit)
    models = tuple(model for model in study.models if model.name == whole.model.name)
    measured = replace(plan, planned=[short], study=study.model_copy(update={"models": models}))
    options = replace(options, executor="inline", save_adapters=False)
    inputs = check(measured, task_folders, options)
    check_items(measured, measured.planned, inputs, options, watch=watch, say=watcher.say)
    executor = make_executor(study, task_folders, options, gpus=inputs.gpus)
    with threads(max(1, int(study.resources.cpus_per_trial))), closing(executor):  # as a worker's
        record = next(executor.run(measured.planned, watcher)).record
    price = measured.prices[0]
    if record.status != "finished" or price is None:
        reason = ((record.error or "").strip().splitlines() or ["no reason is known"])[-1]
        raise BenchError(f"The probe, a short trial of {short.trial.recipe.name}, failed: {reason}")
    return probe_of(record, price, device="cuda" if inputs.gpus else "cpu")
