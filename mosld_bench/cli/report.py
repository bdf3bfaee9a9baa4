"""`mosld-bench report`: a study's PDF, tables and figures from its records."""

from __future__ import annotations

from mosld_bench.cli.console import say
from mosld_bench.cli.options import Include, Root, StudyName, StudyOptions, To
from mosld_bench.spec.study import Study
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
    declared = Study.load(workspace.study_file(study), overrides)
    say(f"report: {pipeline.report(declared, workspace, tuple(include_path or ()), to=to)}")
