"""`mosld-bench run`: train, score and report a study."""

from __future__ import annotations

import sys
from typing import Annotated, NoReturn

import typer

from mosld_bench.cli.console import console
from mosld_bench.cli.options import STUDY_HELP, Root, RunOptions, StudyOptions, To
from mosld_bench.cli.plan import GPUS, planned_study, print_plan
from mosld_bench.cli.report import say_whose_place
from mosld_bench.spec.workspace import Workspace


def run(
    study: Annotated[
        str | None, typer.Argument(help=STUDY_HELP + " Default: embedded, or paper if --gpus asks for any.")
    ] = None,
    *,
    study_options: StudyOptions,
    run_options: RunOptions,
    save_adapters: Annotated[bool, typer.Option("--save-adapters", help="Keep what each trial trained.")] = False,
    to: To = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print the plan and stop.")] = False,
    root: Root = None,
) -> None:
    """Train, score and report a study: plan, run what is missing, compile the PDF."""
    from mosld_bench import pipeline

    overrides = study_options.overrides() | run_options.overrides()
    run_options.check(starts=not dry_run)
    workspace = Workspace.find(root)
    name = study or ("paper" if run_options.gpus else "embedded")
    planned = planned_study(
        name,
        overrides,
        workspace=workspace,
        plugins=run_options.plugin,
        include_paths=run_options.include_path,
        model_root=run_options.model_root,
    )
    if dry_run:
        print_plan(planned, gpus=run_options.gpus or GPUS)
        return
    options = run_options.options(save_adapters=save_adapters, report_folder=to)
    try:
        status = pipeline.run(planned, workspace, console, options)
    except KeyboardInterrupt:
        interrupted()
    if to is None:
        say_whose_place(planned.study, workspace.study_file(name), planned.trials, workspace, options.include_paths)
    raise typer.Exit(status)


def interrupted() -> NoReturn:
    """Say what an interruption leaves, and end with the exit code of one."""
    print("mosld-bench: interrupted; finished trials are kept, the same command runs the rest.", file=sys.stderr)
    raise typer.Exit(130) from None
