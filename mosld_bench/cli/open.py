"""`mosld-bench open`: a study's page in the browser, or from a plain server on this machine."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from mosld_bench.cli.console import say
from mosld_bench.cli.examples import examples
from mosld_bench.cli.options import Include, Root, running
from mosld_bench.errors import BenchError, UnknownNameError
from mosld_bench.interruption import take_interruption
from mosld_bench.reporting.explorer import PAGE
from mosld_bench.spec.workspace import Workspace

_PORT = 8642


@examples(
    ("mosld-bench open embedded", "the default study's page, in the browser"),
    ("mosld-bench open --serve --port 0", "the page over all studies, from a server on this machine alone"),
)
def open_page(
    study: Annotated[
        str | None, typer.Argument(help="A study's name or a study.yaml; without one, the page over all studies.")
    ] = None,
    *,
    serve: Annotated[bool, running("--serve", help="Serve all pages on this machine until Ctrl-C.")] = False,
    port: Annotated[int, running(help="Of the server; 0 for a free one.", min=0, max=65535)] = _PORT,
    include_path: Include = None,
    root: Root = None,
) -> None:
    """Open a study's page: scores, differences to any row, costs, curves, items and records.

    It is made of the records where there is none yet; nothing is trained.
    """
    import webbrowser

    workspace = Workspace.find(root)
    page = _study_page(study, workspace, tuple(include_path or ())) if study else _index(workspace)
    if serve:
        _serve(workspace.reports, page, port)
        return
    say(f"page: {page}")
    if not webbrowser.open(page.resolve().as_uri()):
        say("No browser could be opened; any will open that file, and --serve hands it out on this machine.")


def _study_page(name: str, workspace: Workspace, include_paths: tuple[Path, ...]) -> Path:
    """The page of a study, made if it is not there yet. Raises BenchError for another name, or without records."""
    existing = workspace.reports / name / PAGE
    if name in _written(workspace):
        return existing
    known = workspace.studies()
    if name not in known and not Path(name).exists():
        hint = "A study is a folder reports/NAME with a study.yaml, or one that a run has left by --name."
        raise UnknownNameError("study", name, {*known, *_written(workspace)}, hint)
    from mosld_bench import pipeline
    from mosld_bench.spec.study import Study

    study = Study.load(workspace.study_file(name))
    page = workspace.reports / study.name / PAGE
    return page if page.is_file() else pipeline.page(study, workspace, include_paths)


def _written(workspace: Workspace) -> set[str]:
    """The studies that have a page."""
    return {path.parent.name for path in workspace.reports.glob(f"*/{PAGE}")}


def _index(workspace: Workspace) -> Path:
    """The page over all studies, made anew. Raises BenchError where no study has a report."""
    from mosld_bench.reporting.explorer.overview import write_index

    if not _written(workspace) and not any(workspace.reports.glob("*/report.pdf")):
        raise BenchError(f"No study has a report in {workspace.reports}; `mosld-bench run STUDY` makes the first.")
    return write_index(workspace.reports)


def _serve(reports: Path, page: Path, port: int) -> None:
    from mosld_bench.cli.server import address, reports_server

    with reports_server(reports, port) as server:
        path = page.resolve().relative_to(reports.resolve()).as_posix()
        say(f"{address(server)}/{path}")
        say("Served on this machine alone until Ctrl-C.")
        try:
            server.serve_forever()
        except KeyboardInterrupt:
            take_interruption()
            say("The server has ended.")
