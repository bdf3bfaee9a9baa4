"""`mosld-bench run`: train, score and report a study."""

from __future__ import annotations

from typing import Annotated

import typer

from mosld_bench.cli import completion
from mosld_bench.cli.again import interrupted
from mosld_bench.cli.console import console, make_console
from mosld_bench.cli.examples import examples
from mosld_bench.cli.options import STUDY_HELP, DryRun, Quiet, Root, RunOptions, StudyOptions, To, running
from mosld_bench.cli.plan import GPUS, planned_study, print_plan, say_foreign_code
from mosld_bench.cli.report import say_whose_place
from mosld_bench.spec.workspace import Workspace


@examples(
    ("mosld-bench run --methods all", "the ten methods of the paper on the embedded model: no GPU, no download"),
    ("mosld-bench run --methods lora,mosld --budget 30k,60k --seeds 0,1,2 --name mine", "a question of your own"),
    ("mosld-bench run smollm2 --model-root models --data-root data", "real tasks, from folders that `fetch` filled"),
    ("mosld-bench run paper --dry-run", "what it will take, and nothing else"),
)
def run(
    study: Annotated[
        str | None,
        typer.Argument(
            help=STUDY_HELP + " Default: embedded, or paper if --gpus asks for any.",
            autocompletion=completion.study_name,
        ),
    ] = None,
    *,
    study_options: StudyOptions,
    run_options: RunOptions,
    save_adapters: Annotated[bool, running("--save-adapters", help="Keep what each trial trained.")] = False,
    to: To = None,
    dry_run: DryRun = False,
    quiet: Quiet = False,
    root: Root = None,
) -> None:
    """Train, score and report a study: plan, run what is missing, compile the PDF.

    One seed of every row comes first. After it, after each further one and at Ctrl-C there is a report of what there
    is so far, marked preliminary.
    """
    out = make_console(quiet=True) if quiet else console
    with out.status("loading libraries …"):
        from mosld_bench import pipeline

    overrides = study_options.overrides() | run_options.overrides()
    run_options.check(starts=not dry_run)
    workspace = Workspace.find(root)
    name = study or ("paper" if run_options.gpus else "embedded")
    with out.status(f"planning {name}: loading torch, counting parameters …"):
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
        say_foreign_code(planned, workspace, run_options.include_path)
        return
    options = run_options.options(save_adapters=save_adapters, report_folder=to)
    try:
        status = pipeline.run(planned, workspace, out, options)
    except KeyboardInterrupt:
        interrupted(run_options.overwrite)
    if quiet:
        written = (to or workspace.reports / planned.study.name) / "report.pdf"
        if written.is_file():
            print(written)
    elif to is None:
        say_whose_place(planned.study, workspace.study_file(name), planned.trials, workspace, options.include_paths)
    raise typer.Exit(status)
