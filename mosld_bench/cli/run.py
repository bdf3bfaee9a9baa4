"""`mosld-bench run`: train, score and report a study."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Annotated

import typer

from mosld_bench.cli.console import console
from mosld_bench.cli.options import STUDY_HELP, DataRoot, Include, ModelRoot, Plugin, Root, StudyOptions, To
from mosld_bench.cli.plan import GPUS, planned_study, print_plan
from mosld_bench.cli.report import say_whose_place
from mosld_bench.errors import BenchError, UnknownNameError
from mosld_bench.spec.workspace import Workspace


def run(
    study: Annotated[
        str | None, typer.Argument(help=STUDY_HELP + " Default: embedded, or paper if --gpus asks for any.")
    ] = None,
    *,
    study_options: StudyOptions,
    gpus: Annotated[int | None, typer.Option(help="GPUs to use; default: all there are.")] = None,
    gpus_per_trial: Annotated[float | None, typer.Option(help="0.25 packs four trials on a GPU.")] = None,
    cpus: Annotated[int | None, typer.Option(help="CPU cores to use; default: all there are.")] = None,
    cpus_per_trial: Annotated[float | None, typer.Option(help="Cores a trial.")] = None,
    ray_address: Annotated[str | None, typer.Option(help="Join this Ray cluster ('auto' finds it).")] = None,
    executor: Annotated[str, typer.Option(help="ray, or inline: one after another in this process.")] = "ray",
    data_root: DataRoot = None,
    model_root: ModelRoot = None,
    include_path: Include = None,
    plugin: Plugin = None,
    save_adapters: Annotated[bool, typer.Option("--save-adapters", help="Keep what each trial trained.")] = False,
    overwrite: Annotated[str, typer.Option(help="only-missing, always, or never.")] = "only-missing",
    to: To = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print the plan and stop.")] = False,
    root: Root = None,
) -> None:
    """Train, score and report a study: plan, run what is missing, compile the PDF."""
    from mosld_bench import pipeline
    from mosld_bench.run.ray_places import check_address

    overrides = study_options.overrides()
    _check_choice("--executor", executor, ("ray", "inline"))
    _check_choice("--overwrite", overwrite, ("only-missing", "always", "never"))
    _check_least("--gpus", gpus, 0)
    _check_least("--cpus", cpus, 1)
    if ray_address is not None and executor == "ray" and not dry_run:
        check_address(ray_address)  # before a plan is made of what may take minutes
    for key, share in (("gpus_per_trial", gpus_per_trial), ("cpus_per_trial", cpus_per_trial)):
        if share is not None:
            overrides[f"resources.{key}"] = share
    workspace = Workspace.find(root)
    name = study or ("paper" if gpus else "embedded")
    planned = planned_study(
        name,
        overrides,
        workspace=workspace,
        plugins=plugin,
        include_paths=include_path,
        model_root=model_root,
    )
    if dry_run:
        print_plan(planned, gpus=gpus or GPUS)
        return
    options = pipeline.Options(
        gpus=gpus,
        cpus=cpus,
        address=ray_address,
        executor=executor,
        data_root=data_root,
        model_root=model_root,
        include_paths=tuple(include_path or ()),
        plugins=tuple(plugin or ()),
        save_adapters=save_adapters,
        overwrite=overwrite,
        report_folder=to,
    )
    try:
        status = pipeline.run(planned, workspace, console, options)
    except KeyboardInterrupt:
        print("mosld-bench: interrupted; finished trials are kept, the same command runs the rest.", file=sys.stderr)
        raise typer.Exit(130) from None
    if to is None:
        say_whose_place(planned.study, workspace.study_file(name), planned.trials, workspace, options.include_paths)
    raise typer.Exit(status)


def _check_choice(option: str, value: str, allowed: Sequence[str]) -> None:
    if value not in allowed:
        raise UnknownNameError(f"value of {option}", value, allowed)


def _check_least(option: str, number: int | None, least: int) -> None:
    if number is not None and number < least:
        raise BenchError(f"{option} takes {least} or more; given: {number}.")
