"""`mosld-bench tune`: search for the learning rate of every recipe of a study."""

from __future__ import annotations

import os
from pathlib import Path

import typer

from mosld_bench.cli.again import interrupted
from mosld_bench.cli.console import console, make_console, say
from mosld_bench.cli.examples import examples
from mosld_bench.cli.options import DryRun, Factors, Quiet, Root, RunOptions, StudyName, StudyOptions
from mosld_bench.cli.plan import GPUS, planned_search, print_plan
from mosld_bench.spec.tuning import TUNING_FILE
from mosld_bench.spec.workspace import Workspace
from mosld_bench.spec.yaml_file import read_including


@examples(
    ("mosld-bench tune embedded --dry-run", "which rates are tried, and what that takes"),
    ("mosld-bench tune embedded --methods lora,mosld --factors 0.5,1,2", "two recipes at three rates"),
)
def tune(
    study: StudyName = "embedded",
    *,
    study_options: StudyOptions,
    run_options: RunOptions,
    factors: Factors = None,
    dry_run: DryRun = False,
    quiet: Quiet = False,
    root: Root = None,
) -> None:
    """Search for the learning rate of every recipe of a study, on held-out items: writes reports/STUDY/tuning.yaml.

    --seeds are those of the search, which the study must not have. Repeating the command runs what is missing.
    """
    out = make_console(quiet=True) if quiet else console
    with out.status("loading libraries …"):
        from mosld_bench import pipeline

    overrides = study_options.overrides() | run_options.overrides()
    run_options.check(starts=not dry_run)
    workspace = Workspace.find(root)
    with out.status(f"planning the search of {study}: loading torch, counting parameters …"):
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
        status = pipeline.tune(search, workspace, out, run_options.options())
    except KeyboardInterrupt:
        interrupted(run_options.overwrite)
    found = workspace.reports / search.study.name / TUNING_FILE
    if not quiet:
        _say_how_it_is_taken_in(workspace.study_file(study), found)
    elif found.is_file():
        print(found)
    raise typer.Exit(status)


def _say_how_it_is_taken_in(study_file: Path, found: Path) -> None:
    """Say which line the study needs, unless it has one."""
    if not found.is_file() or "tuning" in read_including(study_file, ()):
        return
    path = Path(os.path.relpath(found, study_file.parent)).as_posix()
    say(f"The study takes it in by a line in {study_file}: tuning: {path}")
