"""`mosld-bench plan`: what a study will run and what that will take."""

from __future__ import annotations

import json as jsonlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mosld_bench.cli.console import console, say
from mosld_bench.cli.options import (
    Factors,
    Include,
    ModelRoot,
    Plugin,
    Root,
    StudyName,
    StudyOptions,
    load_plugins,
    numbers,
)
from mosld_bench.errors import BenchError
from mosld_bench.spec.search import FACTORS, SEEDS
from mosld_bench.spec.study import Study
from mosld_bench.spec.workspace import Workspace

if TYPE_CHECKING:
    from mosld_bench.run import Plan, Search

GPU_MEMORY_GB = 80.0  # of the GPU that a plan is made for
GPUS = 8  # that the hours of a plan are spread over


def plan(
    study: StudyName = "embedded",
    *,
    study_options: StudyOptions,
    model_root: ModelRoot = None,
    include_path: Include = None,
    plugin: Plugin = None,
    gpus: Annotated[int, typer.Option(help="GPUs that the hours are spread over.", min=1)] = GPUS,
    gpu_memory: Annotated[float, typer.Option(help="GB of one; what needs more is refused.", min=0)] = GPU_MEMORY_GB,
    tune: Annotated[bool, typer.Option("--tune", help="Of the search that `tune` makes for the study.")] = False,
    factors: Factors = None,
    json: Annotated[bool, typer.Option("--json", help="Every trial, for programs.")] = False,
    root: Root = None,
) -> None:
    """Price a study: trials, exact parameter counts, memory, estimated GPU-hours. Starts nothing, reads no data."""
    overrides, workspace, search = study_options.overrides(), Workspace.find(root), None
    if tune:
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
        planned = planned_study(
            study,
            overrides,
            workspace=workspace,
            plugins=plugin,
            include_paths=include_path,
            model_root=model_root,
        )
    if json:
        print(jsonlib.dumps({"study": planned.study.model_dump(mode="json"), "trials": planned.rows()}, indent=1))
    else:
        print_plan(planned, gpus=gpus, gpu_memory_gb=gpu_memory, search=search)


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
    from mosld_bench.run import make_plan

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
    from mosld_bench.run import make_search

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
    plan: Plan, *, gpus: int = GPUS, gpu_memory_gb: float = GPU_MEMORY_GB, search: Search | None = None
) -> None:
    """Print the table and the sentences of a plan. Measures a core where this machine has no GPU.

    ``search``: the one that it is the whole grid of.
    """
    import torch

    from mosld_bench import display
    from mosld_bench.trial.device import core_rate

    console.print(display.plan_table(plan, console.width))
    rate = None if torch.cuda.is_available() else core_rate
    sentences = display.plan_sentences(plan, gpus, gpu_memory_gb * 1e9, rate)
    for sentence in sentences + (display.search_sentences(search) if search else []):
        say(sentence)
