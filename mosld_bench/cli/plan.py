"""`mosld-bench plan`: what a study will run and what that will take."""

from __future__ import annotations

import json as jsonlib
import math
import shlex
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from mosld_bench import collector
from mosld_bench.cli.console import console, make_console, print_json, say
from mosld_bench.cli.examples import examples
from mosld_bench.cli.options import (
    AllowCode,
    DataRoot,
    Factors,
    GpusPerTrial,
    Include,
    Json,
    ModelRoot,
    Plugin,
    Root,
    RunOptions,
    StudyName,
    StudyOptions,
    compared,
    load_plugins,
    numbers,
    permit,
    running,
)
from mosld_bench.cli.probing import Places, measure
from mosld_bench.errors import BenchError
from mosld_bench.format import shortened
from mosld_bench.spec.search import FACTORS, SEEDS
from mosld_bench.spec.study import Study
from mosld_bench.spec.trial import Condition
from mosld_bench.spec.workspace import Workspace

if TYPE_CHECKING:
    from mosld_bench.cost import Probe
    from mosld_bench.reporting import Power
    from mosld_bench.scheduling import Plan, Search
    from mosld_bench.spec.block import Block

GPU_MEMORY_GB = 80.0  # of the GPU that a plan is made for
GPUS = 8  # that the hours of a plan are spread over


@examples(
    ("mosld-bench plan embedded", "every row of the default study, its size, and which differences it will find"),
    ("mosld-bench plan paper --gpus 8 --gpu-memory 80", "the hours of the paper's study on eight GPUs"),
    ("mosld-bench plan embedded --methods lora,mosld --mde 0.5", "how many seeds find half a point"),
    ("mosld-bench plan scaling --model NousResearch/Llama-2-70b-hf --gpus-per-trial 2", "70B spread over two GPUs"),
    ("mosld-bench plan embedded --probe", "hours and memory by a few steps of the largest trial, measured here"),
    ("mosld-bench plan embedded --json", "every trial, for programs"),
)
def plan(
    study: StudyName = "embedded",
    *,
    study_options: StudyOptions,
    model_root: ModelRoot = None,
    include_path: Include = None,
    plugin: Plugin = None,
    allow_code: AllowCode = False,
    gpus: Annotated[int, running(help="GPUs that the hours are spread over.", min=1)] = GPUS,
    gpu_memory: Annotated[float, running(help="GB of one; what needs more is refused.", min=0)] = GPU_MEMORY_GB,
    gpus_per_trial: GpusPerTrial = None,
    tune: Annotated[bool, compared("--tune", help="Of the search that `tune` makes for the study.")] = False,
    factors: Factors = None,
    mde: Annotated[
        str | None,
        compared(help="Points of difference to find: what they take in seeds."),
    ] = None,
    probe: Annotated[
        bool,
        running("--probe", help="Measure the largest trial in short, on this machine. Needs data and weights as run."),
    ] = False,
    data_root: DataRoot = None,
    json: Json = False,
    root: Root = None,
) -> None:
    """Price a study: trials, exact parameter counts, memory, estimated GPU-hours, and which differences it will find.

    Starts nothing and reads no data, unless --probe is given: then the largest trial runs for a few steps and scoring
    batches, and nothing is kept of it.
    """
    permit(allow_code)
    resources = RunOptions(gpus_per_trial=gpus_per_trial).overrides()
    overrides, wished, workspace = study_options.overrides() | resources, _points(mde), Workspace.find(root)
    search = None
    status = make_console(stderr=True).status(f"planning {study}: loading torch, counting parameters …")
    if tune:
        if mde is not None:
            raise BenchError("--mde is of the study, not of the search for its learning rates: leave out --tune.")
        with status:
            search = planned_search(
                study,
                overrides,
                factors,
                workspace=workspace,
                plugins=plugin,
                include_paths=include_path,
                model_root=model_root,
            )
        planned = search.whole
    elif factors is not None:
        raise BenchError("--factors are of a search: give --tune with it.")
    else:
        with status:
            planned = planned_study(
                study,
                overrides,
                workspace=workspace,
                plugins=plugin,
                include_paths=include_path,
                model_root=model_root,
            )
    if data_root is not None and not probe:
        raise BenchError("--data-root is of a probe, since a plan reads no data: give --probe with it.")
    places = Places(data_root, model_root, tuple(include_path or ()), tuple(plugin or ()))
    measured = measure(planned, workspace, places) if probe else None
    blocks, powers = ([], []) if search else _power(planned, workspace, include_path)
    if json:
        content = {
            "study": planned.study.model_dump(mode="json"),
            "trials": planned.rows(),
            "power": [power.as_data(wished) for power in powers],
            "probe": measured.as_data(planned.prices) if measured else None,
        }
        print_json(content)
        return
    print_plan(planned, gpus=gpus, gpu_memory_gb=gpu_memory, search=search, probe=measured)
    say_foreign_code(planned, workspace, include_path)
    if search:
        return
    from mosld_bench import display

    given: tuple[tuple[str, Sequence[object] | None], ...] = (
        ("--gpus-per-trial", [f"{gpus_per_trial:g}" if gpus_per_trial else None]),
        ("--root", [root]),
        ("--model-root", [model_root]),
        ("--include-path", include_path),
        ("--plugin", plugin),
    )
    rest = [
        word for option, values in given for value in values or () if value is not None for word in (option, str(value))
    ]
    rest += ["--allow-code"] if allow_code else []
    sentences = display.power_sentences(
        blocks,
        powers,
        wished=wished,
        hours=planned.hours(planned.planned),
        command=_run_command(study, study_options, planned.study, rest),
    )
    for sentence in sentences:
        say(sentence)


def say_foreign_code(planned: Plan, workspace: Workspace, include_paths: Sequence[Path] | None) -> None:
    """Say which code of task files a run would have to be allowed. None of it is run."""
    from mosld_bench.spec.task_files import TaskFiles

    files = TaskFiles.scan((workspace.tasks, *(include_paths or ())))
    found = {what: None for task in planned.study.tasks if task in files.paths for what in files.foreign_code(task)}
    if found:
        say(
            f"Its tasks run code that is neither of this package nor installed, for which `run` needs --allow-code: "
            f"{'; '.join(found)}."
        )


def _points(text: str | None) -> float | None:
    """The value of --mde. Raises BenchError for what is no number of points."""
    if text is None:
        return None
    try:
        points = float(text)
    except ValueError:
        points = math.nan
    if not 0 < points <= 100:
        raise BenchError(f"--mde takes points, above 0 and at most 100, such as 0.5; given: {shortened(text)!r}.")
    return points


@collector.seldom()
def _power(plan: Plan, workspace: Workspace, include_paths: Sequence[Path] | None) -> tuple[list[Block], list[Power]]:
    """The blocks of a plan, and what they find by the noise of records that there are."""
    from mosld_bench.records.pilots import find_pilots
    from mosld_bench.records.store import Store
    from mosld_bench.spec.block import blocks_of
    from mosld_bench.spec.task_files import TaskFiles

    blocks, store = blocks_of(plan.study, plan.trials), Store(workspace.results)
    pilots = find_pilots(plan.study, plan.trials, store) if blocks else []
    if not pilots:
        return blocks, []
    from mosld_bench.reporting import study_power  # here, since it brings scipy

    files = TaskFiles.scan((workspace.tasks, *(include_paths or ())))
    definitions = {task: files.config(task) or {} for task in plan.study.tasks}
    sizes = {task: size.test if size else None for task, size in plan.sizes.items()}
    return blocks, study_power(plan.study, blocks, pilots, store, definitions=definitions, sizes=sizes)


def _run_command(
    name: str, options: StudyOptions, study: Study, rest: Sequence[str]
) -> Callable[[Sequence[str], Sequence[int], Sequence[Condition]], str]:
    """What gives the command that runs recipes with seeds under some conditions of a plan, as it was asked for."""
    replaced = {"recipes", "seeds", "settings", "budgets", "parts"}

    def command(recipes: Sequence[str], seeds: Sequence[int], conditions: Sequence[Condition]) -> str:
        condition = conditions[0]
        assigned: dict[str, Any] = {}
        if len(study.models) > 1:
            model = next(model for model in study.models if model.name == condition.model)
            loaded = {"load": model.load} if model.load else {}
            assigned["models"] = [{"name": model.folder or model.name, "revision": model.revision, **loaded}]
        if study.general:
            assigned["general"] = {"task": study.general.task, "items": [condition.general]}
        if study.task_items:
            assigned["task_items"] = [condition.items]
        if any(part.rates != ("chosen",) for part in study.products()):
            assigned["rates"] = [condition.rate]
        kept = [text for text in options.set_ or () if text.partition("=")[0].strip() not in replaced | assigned.keys()]
        changed = replace(
            options,
            methods=",".join(recipes),
            seeds=",".join(map(str, seeds)),
            settings=condition.setting,
            budget=",".join(condition.budget for condition in conditions),
            set_=[*kept, *(f"{key}={jsonlib.dumps(value)}" for key, value in assigned.items())],
        )
        return shlex.join(["mosld-bench", "run", name, *changed.words(), *rest])

    return command


def planned_study(
    name: str,
    overrides: Mapping[str, Any],
    *,
    workspace: Workspace,
    plugins: Sequence[str] | None,
    include_paths: Sequence[Path] | None,
    model_root: Path | None,
) -> Plan:
    """The plan of the study called ``name``, with ``overrides`` on top of its file."""
    from mosld_bench.scheduling import make_plan

    study = Study.load(workspace.study_file(name), overrides)
    load_plugins(plugins)
    return make_plan(study, workspace, include_paths=tuple(include_paths or ()), model_root=model_root)


def planned_search(
    name: str,
    overrides: Mapping[str, Any],
    factors: str | None,
    *,
    workspace: Workspace,
    plugins: Sequence[str] | None,
    include_paths: Sequence[Path] | None,
    model_root: Path | None,
) -> Search:
    """The search for the learning rates of the study called ``name``, with ``overrides`` on top of its file.

    Seeds among them are those of the search; ``factors`` as the option gives them. What an earlier search found is not
    looked at.
    """
    from mosld_bench.scheduling import make_search

    seeds = overrides.get("seeds", SEEDS)
    study = Study.load(
        workspace.study_file(name),
        {key: value for key, value in overrides.items() if key != "seeds"} | {"tuning": None},
    )
    load_plugins(plugins)
    return make_search(
        study,
        workspace,
        factors=FACTORS if factors is None else numbers("--factors", factors),
        seeds=seeds,
        include_paths=tuple(include_paths or ()),
        model_root=model_root,
    )


def print_plan(
    plan: Plan,
    *,
    gpus: int = GPUS,
    gpu_memory_gb: float = GPU_MEMORY_GB,
    search: Search | None = None,
    probe: Probe | None = None,
) -> None:
    """Print the table and the sentences of a plan. Measures a core where this machine has no GPU.

    ``search``: the one that it is the whole grid of; ``probe``: what was measured of it.
    """
    import torch

    from mosld_bench import display
    from mosld_bench.trial.device import core_rate

    console.print(display.plan_table(plan, console.width))
    rate = None if torch.cuda.is_available() else core_rate
    sentences = display.plan_sentences(plan, gpus, gpu_memory_gb * 1e9, rate, probe)
    for sentence in sentences + (display.search_sentences(search) if search else []):
        say(sentence)
