"""`mosld-bench report`: a study's PDF, tables and figures from its records."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from mosld_bench.cli.console import say
from mosld_bench.cli.options import Include, Root, StudyName, StudyOptions, To
from mosld_bench.errors import BenchError
from mosld_bench.format import counted
from mosld_bench.spec.study import Study
from mosld_bench.spec.trial import Trial
from mosld_bench.spec.workspace import Workspace


def report(
    study: StudyName = "embedded",
    *,
    study_options: StudyOptions,
    to: To = None,
    include_path: Include = None,
    root: Root = None,
) -> None:
    """Rebuild a study's PDF, tables and figures from its records, without torch or Ray.

    Of the study as its file says; with --methods, --budget, --set and so on of the trials that these ask for.
    """
    from mosld_bench import pipeline

    overrides = study_options.overrides()
    workspace = Workspace.find(root)
    file, folders = workspace.study_file(study), tuple(include_path or ())
    declared = Study.load(file, overrides)
    trials = declared.plan(workspace, folders)
    path = pipeline.report(declared, workspace, folders, trials=trials, to=to)
    say(f"page: {path.with_name('index.html')}")
    say(f"report: {path}")
    if to is None:
        say_whose_place(declared, file, trials, workspace, folders)


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
