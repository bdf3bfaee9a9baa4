"""`run` and `report`: a study's answers as tables, figures and sentences."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from mosld_bench import pipeline
from mosld_bench.api import html
from mosld_bench.api.places import Place, paths, study_of, words, workspace_of
from mosld_bench.api.plans import plan
from mosld_bench.errors import BenchError
from mosld_bench.records.store import Store
from mosld_bench.reporting.explorer import PAGE
from mosld_bench.scheduling import Options
from mosld_bench.spec import foreign_code
from mosld_bench.spec.study import Study
from mosld_bench.spec.trial import Trial
from mosld_bench.spec.workspace import Workspace

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure
    from rich.console import Console

    from mosld_bench.reporting import Analysis


@dataclass(frozen=True)
class Report:
    """What the records of a study say. A notebook shows its answers and the table of results.

    It is of the records as they are when it is first asked for something. ``folder`` is where its files lie.
    """

    study: Study
    trials: Sequence[Trial]
    folder: Path
    _workspace: Workspace
    _include_paths: tuple[Path, ...] = ()

    @cached_property
    def _analysis(self) -> Analysis:
        return pipeline.analysed(self.study, self._workspace, self._include_paths, list(self.trials))

    @cached_property
    def frame(self) -> pd.DataFrame:
        """A tidy row a trial, task and metric, of the records that count: the columns of `mosld_bench.load`."""
        from mosld_bench.records.frame import frame_of

        return frame_of(self._analysis.records)

    @cached_property
    def tables(self) -> dict[str, pd.DataFrame]:
        """Name -> table of the report as numbers, the same as in ``tables/NAME.csv``; ``main`` is that of results."""
        from mosld_bench.reporting import tables_of

        return tables_of(self._analysis)

    @cached_property
    def figures(self) -> dict[str, Figure]:
        """Name -> figure of the report, as a figure of matplotlib to be shown or changed."""
        from mosld_bench.reporting import figures_of

        return figures_of(self._analysis)

    @cached_property
    def answers(self) -> list[str]:
        """How the report opens: a sentence or some to each question of the study, after the question."""
        from mosld_bench.reporting import answer_lines

        return answer_lines(self._analysis)

    @property
    def missing(self) -> list[str]:
        """Ids of planned trials without a record."""
        return [trial.id for trial in self._analysis.missing]

    @property
    def failures(self) -> dict[str, str]:
        """Id of a trial that failed -> the last line of its error."""
        return {trial.id: error for trial, error in self._analysis.failures}

    @property
    def pdf(self) -> Path | None:
        """The report as a file; None where it has not been written."""
        return _existing(self.folder / "report.pdf")

    @property
    def page(self) -> Path | None:
        """The report as a page to look around in; None where it has not been written."""
        return _existing(self.folder / PAGE)

    def write(self) -> Path:
        """Write PDF, tables and figures to ``folder``, as `mosld-bench report` does. Returns the PDF."""
        return pipeline.write(self._analysis, self.folder)

    def __repr__(self) -> str:
        return f"<report of {self.study.name}: {len(self.trials)} trials, {self.folder}>"

    def _repr_html_(self) -> str:
        from mosld_bench import display
        from mosld_bench.reporting import main_notes, main_rows

        analysis = self._analysis
        results = display.results_table(main_rows(analysis), main_notes(analysis)) if self.study.trains else None
        files = [str(path) for path in (self.pdf, self.page) if path]
        return html.whole(
            html.heading(self.study.question),
            html.bullets(self.answers),
            html.table(results) if results else "",
            html.bullets(f"{trial} failed: {error}" for trial, error in self.failures.items()),
            html.paragraph("\n".join(files)) if files else "",
        )


def report(
    study: Study | Place = "embedded",
    *,
    root: Place | None = None,
    to: Place | None = None,
    include_paths: Sequence[Place] = (),
    write: bool = True,
) -> Report:
    """The report of ``study`` from its records, written as `mosld-bench report` writes it. Runs nothing.

    ``study``: as it is or by its name, folder or file; ``root``: the workspace, by default the one around; ``to``: the
    folder for its files, by default that of the study in reports/. Without ``write`` no file is made.

    Raises BenchError where the study has no finished trial.
    """
    workspace = workspace_of(root)
    asked = study_of(study, workspace)
    folders = paths(include_paths)
    made = Report(asked, asked.plan(workspace, folders), _folder(to, workspace, asked), workspace, folders)
    _ = made._analysis  # an error is told here, and not where a notebook shows the report
    if write:
        made.write()
    return made


def run(
    study: Study | Place = "embedded",
    *,
    root: Place | None = None,
    executor: Literal["ray", "inline"] = "ray",
    gpus: int | None = None,
    cpus: int | None = None,
    ray_address: str | None = None,
    data_root: Place | None = None,
    model_root: Place | None = None,
    include_paths: Sequence[Place] = (),
    plugins: Sequence[str] = (),
    allow_code: bool = False,
    save_adapters: bool = False,
    overwrite: Literal["only-missing", "always", "never"] = "only-missing",
    checkpoint_minutes: float = 10,
    time_limit: float | None = None,
    memory_limit: float | None = None,
    retries: int = 1,
    report_to: str | Sequence[str] = (),
    to: Place | None = None,
    progress: bool = True,
) -> Report:
    """Train and score what ``study`` has no record of, and report it, as `mosld-bench run` does.

    ``study``: as it is or by its name, folder or file; ``root``: the workspace, by default the one around.
    ``executor``: trials side by side on Ray, or one after another in this process; ``gpus`` and ``cpus``: how many to
    use, by default all; ``ray_address``: of a running cluster. ``data_root``, ``model_root``: folders of data sets and
    models, without which they come from the hub. ``include_paths``: folders of more lm-eval task definitions;
    ``plugins``: modules that register methods. ``allow_code``: let code run that task files and recipes name and that
    is not installed. ``save_adapters``: keep what each trial trained. ``overwrite``: run what is missing, everything,
    or refuse a study that has records. ``checkpoint_minutes``, ``time_limit`` (minutes), ``memory_limit`` (gigabytes)
    and ``retries``: as the options of `mosld-bench run`. ``report_to``: trackers that each trial is a run of. ``to``:
    folder of the report. Without ``progress`` nothing is printed.

    A trial that fails is among the `Report.failures`; the same call runs it again. An interruption keeps what has
    finished.

    Raises BenchError before anything starts for what cannot be run, and in the end where every trial failed.
    """
    options = Options(
        gpus=gpus,
        cpus=cpus,
        address=ray_address,
        executor=executor,
        data_root=None if data_root is None else Path(data_root),
        model_root=None if model_root is None else Path(model_root),
        include_paths=paths(include_paths),
        plugins=words(plugins),
        save_adapters=save_adapters,
        overwrite=overwrite,
        checkpoint_minutes=checkpoint_minutes,
        time_limit=time_limit,
        memory_limit=memory_limit,
        retries=retries,
        report_folder=None if to is None else Path(to),
        report_to=words(report_to),
        command=f"mosld_bench.run({getattr(study, 'name', str(study))!r})",
    )
    workspace = workspace_of(root)
    with foreign_code.allowed(allow_code):
        made = plan(study, root=root, include_paths=include_paths, model_root=model_root, plugins=plugins)
        asked = made.study
        status = pipeline.run(made.plan, workspace, _console(progress), options)
    trials = made.plan.reported
    if status:
        _check_any(asked, trials, Store(workspace.results))
    return Report(asked, trials, _folder(to, workspace, asked), workspace, options.include_paths)


def _check_any(study: Study, trials: Sequence[Trial], store: Store) -> None:
    """Raises BenchError where no trial has a record, so that there is nothing to report."""
    if any(store.record(trial) for trial in trials):
        return
    failed = store.failures(study.name)
    first = next(trial for trial in trials if trial.id in failed)
    raise BenchError(
        f"Every trial of {study.name!r} failed, the first with: {failed[first.id]} The whole error is in "
        f"{store.failure_file(first)}."
    )


def _console(progress: bool) -> Console:
    """Where progress goes: a notebook's cell, a terminal, or lines as long as those of a log."""
    from rich.console import Console

    console = Console(highlight=False, markup=False, emoji=False, quiet=not progress)
    if not console.is_terminal and not console.is_jupyter:
        console.width = 160
    return console


def _folder(to: Place | None, workspace: Workspace, study: Study) -> Path:
    return workspace.reports / study.name if to is None else Path(to)


def _existing(path: Path) -> Path | None:
    return path if path.is_file() else None
