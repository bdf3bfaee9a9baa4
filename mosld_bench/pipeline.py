"""From a fitted plan to a report: check the inputs, run what is missing, compile, say where it is."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console

from mosld_bench import display
from mosld_bench.errors import BenchError, ResourceError
from mosld_bench.inputs import contamination
from mosld_bench.records.overlap import Overlap
from mosld_bench.records.published import Published
from mosld_bench.records.slips import slips
from mosld_bench.records.store import Store
from mosld_bench.run.plan import Plan
from mosld_bench.spec.study import Study
from mosld_bench.spec.task_files import TaskFiles
from mosld_bench.spec.trial import PlannedTrial, Trial
from mosld_bench.spec.workspace import Workspace

if TYPE_CHECKING:
    from mosld_bench.inputs.tasks import TaskLoader


@dataclass(frozen=True)
class Options:
    """How to run, as given on the command line. None of it is part of a trial's identity."""

    gpus: int | None = None
    cpus: int | None = None
    address: str | None = None
    executor: str = "ray"
    data_root: Path | None = None
    model_root: Path | None = None
    include_paths: tuple[Path, ...] = ()
    plugins: tuple[str, ...] = ()
    save_adapters: bool = False
    overwrite: str = "only-missing"


def run(plan: Plan, workspace: Workspace, console: Console, options: Options) -> int:
    """Run a study's missing trials and build its report. Returns the exit code: 1 where a trial failed."""
    study, jobs = plan.study, plan.jobs
    from mosld_bench.inputs.models import weights_source
    from mosld_bench.records.provenance import command_line
    from mosld_bench.run import ray_executor as launch
    from mosld_bench.run.progress import ProgressDisplay
    from mosld_bench.trial.execute import WorkerConfig

    inline = options.executor == "inline" or study.train is None
    own_gpus = launch.check_gpus(options.gpus) if inline or options.address is None else 0
    if own_gpus and study.train:
        _check_memory(plan, study.resources.gpus_per_trial)
    folders = [workspace.tasks, *options.include_paths]
    loader = _check_inputs(study, folders, options)
    weights = {model.name: weights_source(model, options.model_root) for model in study.models if study.train}
    todo = missing(jobs, workspace.results, options.overwrite, weights)
    taken: Counter[str] = Counter()
    if options.overwrite == "only-missing":
        todo, taken = _take(todo, workspace.results, weights)
    told = "".join(f", {count} of them taken from {name}" for name, count in taken.items())
    console.print(f"{study.name}: {len(jobs)} trials, {len(jobs) - len(todo)} recorded{told}, {len(todo)} to run")
    around = WorkerConfig(
        task_folders=tuple(str(folder.resolve()) for folder in folders),
        resources=study.resources,
        data_root=str(options.data_root.resolve()) if options.data_root else None,
        model_root=str(options.model_root.resolve()) if options.model_root else None,
        plugins=options.plugins,
        device="cuda" if inline and own_gpus else "cpu",
        save_adapter=options.save_adapters,
        command=command_line(),
    )

    def keep() -> None:
        """Leave beside the records what a report needs of the data, once it is sure that the run can begin."""
        if study.train:
            find_overlaps(study, workspace, loader.files, lambda: loader)

    failures = 0
    if not todo:
        keep()
    else:
        with ProgressDisplay(plan.hours(todo), console) as board:
            if inline:
                keep()
                outcomes = launch.run_inline(todo, around, workspace.results, board)
            else:
                pool = launch.Pool(
                    gpus=options.gpus,
                    cpus=options.cpus,
                    gpus_per_trial=study.resources.gpus_per_trial,
                    cpus_per_trial=study.resources.cpus_per_trial,
                    address=options.address,
                )
                order = plan.longest_first(todo)
                outcomes = launch.launch(order, around, pool, workspace.results, board, begin=keep)
        failed = [outcome.record for outcome in outcomes if outcome.record.status == "failed"]
        failures = len(failed)
        for one in failed:
            where = Store(workspace.results).failure_file(one.trial)
            console.print(f"failed: {one.trial_id}; the whole error is in {where}", soft_wrap=True)
    if failures < len(jobs):
        path = report(study, workspace, options.include_paths, [trial for trial, _ in jobs])
        if study.train:
            console.print(display.results_table(path.parent / "tables" / "main.csv"))
        for line in said_of_published(study, workspace):
            console.print(line, soft_wrap=True)
        console.print(f"report: {path}", soft_wrap=True)
    return 1 if failures else 0


def report(
    study: Study, workspace: Workspace, include_paths: tuple[Path, ...], trials: list[Trial] | None = None
) -> Path:
    """Compile the study's report from its records."""
    from mosld_bench.report.build import build_report

    files = TaskFiles.scan((workspace.tasks, *include_paths))
    tasks = {task: files.config(task) or {} for task in study.tasks}
    paper = Published.load(workspace.published) if study.published else None
    return build_report(
        study,
        trials if trials is not None else study.plan(workspace, include_paths),
        Store(workspace.results).sources(study, tasks, paper),
        workspace.reports / study.name,
    )


def find_overlaps(
    study: Study, workspace: Workspace, files: TaskFiles, loader: Callable[[], TaskLoader]
) -> tuple[Overlap, ...]:
    """What the study's evaluation sets share with its training sets: as noted, or found and noted now."""
    assert study.train is not None
    general = {study.general.task: max(study.general.items)} if study.general else {}
    return contamination.cached(
        Store(workspace.results),
        study.name,
        loader,
        files,
        train_on=study.in_domain + tuple(general),
        evaluated=study.in_domain + study.out_of_domain,
        most=dict.fromkeys(study.in_domain, study.train.task_items) | general,
        seed=study.train.split_seed,
        scored=study.evaluate,
    )


def missing(
    jobs: list[PlannedTrial],
    results: Path,
    overwrite: str,
    weights: Mapping[str, Mapping[str, str]] | None = None,
) -> list[PlannedTrial]:
    """The jobs to run. ``weights``: model -> where its weights are from (`models.weights_source`).

    Raises BenchError where --overwrite never finds a record, or a record was made with other weights.
    """
    if overwrite == "always":
        return jobs
    store = Store(results)
    todo: list[PlannedTrial] = []
    finished: list[PlannedTrial] = []
    for job in jobs:
        meta = store.finished(job)
        (todo if meta is None else finished).append(job)
        if meta is not None:
            _check_weights(job[0], meta.get("weights"), (weights or {}).get(job[0].model.name))
    if overwrite == "never" and finished:
        raise BenchError(
            f"--overwrite never, but {len(finished)} of {len(jobs)} trials have a record below {results}, the first "
            f"{finished[0][0].id}. Use --overwrite only-missing to run the others."
        )
    return todo


def _take(
    jobs: list[PlannedTrial], results: Path, weights: Mapping[str, Mapping[str, str]]
) -> tuple[list[PlannedTrial], Counter[str]]:
    """Take what other studies have of ``jobs``: the jobs that are left, and other study -> how many it had."""
    left: list[PlannedTrial] = []
    taken: Counter[str] = Counter()
    store = Store(results)
    for trial, fit in jobs:
        for made in store.elsewhere(PlannedTrial(trial, fit)):
            if not _other_weights(made.meta_info.get("weights"), weights.get(trial.model.name)):
                store.take(trial, made)
                taken[made.trial.study] += 1
                break
        else:
            left.append(PlannedTrial(trial, fit))
    return left, taken


def _other_weights(then: Mapping[str, str] | None, now: Mapping[str, str] | None) -> tuple[str, ...]:
    """What both weights are, in words, where they are not the same; nothing where they are, or one is unknown."""
    if not then or not now:
        return ()
    keys = ("sha256",) if "sha256" in then and "sha256" in now else ("source", "revision")
    if [then.get(key) for key in keys] == [now.get(key) for key in keys]:
        return ()
    return tuple(", ".join(f"{key} {one[key]}" for key in keys if one.get(key)) for one in (then, now))


def _check_weights(trial: Trial, then: Mapping[str, str] | None, now: Mapping[str, str] | None) -> None:
    """Raises BenchError where a record's weights are not those that the missing trials would start from."""
    if told := _other_weights(then, now):
        raise BenchError(
            f"The record {trial.id} was made with other weights of {trial.model.name} ({told[0]}) than are here now "
            f"({told[1]}); rows of both would not be comparable. Bring back the former weights, or make every trial "
            f"again by --overwrite always."
        )


def _check_memory(plan: Plan, gpus_per_trial: float) -> None:
    """Raises ResourceError where a trial is too large for its part of this machine's smallest GPU."""
    import torch

    sizes = [torch.cuda.get_device_properties(i).total_memory for i in range(torch.cuda.device_count())]
    refused = plan.refusals(min(sizes) * min(1.0, gpus_per_trial))
    if refused:
        raise ResourceError(" ".join(refused))


def _check_inputs(study: Study, folders: list[Path], options: Options) -> TaskLoader:
    """Load every task once and find the weights, so that what is missing is said before anything starts."""
    from mosld_bench.inputs.models import ensure_weights
    from mosld_bench.inputs.tasks import TaskLoader, examples

    loader = TaskLoader(folders, options.data_root, study.name)
    for task in study.tasks:
        loaded = loader.get(task)
        if task not in study.out_of_domain:
            examples(loaded, [0])
    for model in study.models if study.train else ():
        ensure_weights(model, options.model_root)
    return loader


def said_of_published(study: Study, workspace: Workspace) -> list[str]:
    """The slips of the printed tables that a study redoes."""
    if not study.published:
        return []
    found = [slip for slip in slips(Published.load(workspace.published)) if slip.name in study.published]
    return [f"slip in the paper: {slip.sentence}" for slip in found]
