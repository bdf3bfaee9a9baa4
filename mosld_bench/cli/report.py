"""`mosld-bench report`: a study's PDF, tables and figures from its records."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mosld_bench.cli.console import console, make_console, print_json, say
from mosld_bench.cli.examples import examples
from mosld_bench.cli.options import Include, Json, Quiet, Root, StudyName, StudyOptions, To
from mosld_bench.errors import BenchError
from mosld_bench.format import counted
from mosld_bench.reporting.explorer import PAGE
from mosld_bench.spec.study import Study
from mosld_bench.spec.trial import Trial
from mosld_bench.spec.workspace import Workspace


@examples(
    ("mosld-bench report embedded", "the default study's report, made anew from its records"),
    ("mosld-bench report smollm2 --methods lora,mosld --to two-of-them", "of two recipes alone, elsewhere"),
    ("mosld-bench report smollm2 --to there --json", "with the paths of all that was written, for programs"),
)
def report(
    study: StudyName = "embedded",
    *,
    study_options: StudyOptions,
    to: To = None,
    quiet: Quiet = False,
    json: Json = False,
    include_path: Include = None,
    root: Root = None,
) -> None:
    """Rebuild a study's PDF, tables and figures from its records, without torch or Ray.

    Of the study as its file says; with --methods, --budget, --set and so on of the trials that these ask for.
    """
    out = make_console(stderr=True, quiet=quiet) if quiet or json else console
    with out.status("loading libraries …"):
        from mosld_bench import pipeline

    overrides = study_options.overrides()
    workspace = Workspace.find(root)
    file, folders = workspace.study_file(study), tuple(include_path or ())
    declared = Study.load(file, overrides)
    trials = declared.plan(workspace, folders)
    with out.status(f"making the report of {declared.name} …"):
        path = pipeline.report(declared, workspace, folders, trials=trials, to=to)
    if json:
        print_json(_written(path))
    elif quiet:
        print(path)
    else:
        say(f"page: {path.with_name(PAGE)}")
        say(f"report: {path}")
    if to is None and not (quiet or json):
        say_whose_place(declared, file, trials, workspace, folders)


def _written(path: Path) -> dict[str, Any]:
    """What --json prints: the report, and the tables and figures beside it."""
    beside = {name: sorted(map(str, (path.parent / name).iterdir())) for name in ("tables", "figures")}
    return {"report": str(path), **beside}


def say_whose_place(
    declared: Study, file: Path, trials: Sequence[Trial], workspace: Workspace, include_paths: tuple[Path, ...]
) -> None:
    """Say where a report of ``trials`` has taken the place of another: that of the whole study as its ``file`` says."""
    whole = Study.load(file)
    if whole == declared or whole.name != declared.name:  # known without a plan, which reads all local data
        return
    try:
        planned = {trial.id for trial in whole.plan(workspace, include_paths)}
    except BenchError:  # as where only the options make the rates of a search fit, and there is no report of the whole
        return
    if planned != {trial.id for trial in trials}:
        say(
            f"It is of {counted(len(trials), 'trial')} that the options ask for, and stands where that of the whole "
            f"study does: --to DIR or --name NAME keeps them apart."
        )
