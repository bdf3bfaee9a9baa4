"""`mosld-bench tune`: search for the learning rate of every recipe of a study."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer

from mosld_bench.cli.console import console, say
from mosld_bench.cli.options import Factors, Root, RunOptions, StudyName, StudyOptions
from mosld_bench.cli.plan import GPUS, planned_search, print_plan
from mosld_bench.cli.run import interrupted
from mosld_bench.spec.tuning import TUNING_FILE
from mosld_bench.spec.workspace import Workspace
from mosld_bench.spec.yaml_file import read_including


def tune(
    study: StudyName = "embedded",
    *,
    study_options: StudyOptions,
    run_options: RunOptions,
    factors: Factors = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print the plan and stop.")] = False,
    root: Root = None,
) -> None:
    """Search for the learning rate of every recipe of a study, on held-out items: writes reports/STUDY/tuning.yaml.

    --seeds are those of the search, which the study must not have. Repeating the command runs what is missing.
    """
    from mosld_bench import pipeline

    overrides = study_options.overrides() | run_options.overrides()
    run_options.check(starts=not dry_run)
    workspace = Workspace.find(root)
    search = planned_search(
        study,
        overrides,
        factors,
        workspace=workspace,
        plugins=run_options.plugin,
        include_paths=run_options.include_path,
        model_root=run_options.model_root,
    )
    if dry_run:
        print_plan(search.whole, gpus=run_options.gpus or GPUS, search=search)
        return
    try:
        status = pipeline.tune(search, workspace, console, run_options.options())
    except KeyboardInterrupt:
        interrupted()
    _say_how_it_is_taken_in(workspace.study_file(study), workspace.reports / search.study.name / TUNING_FILE)
    raise typer.Exit(status)


def _say_how_it_is_taken_in(study_file: Path, found: Path) -> None:
    """Say which line the study needs, unless it has one."""
    if not found.is_file() or "tuning" in read_including(study_file, ()):
        return
    path = Path(os.path.relpath(found, study_file.parent)).as_posix()
    say(f"The study takes it in by a line in {study_file}: tuning: {path}")
