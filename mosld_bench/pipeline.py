"""From a plan to a report: check the inputs, run what is missing, write each outcome, compile, say where it is.

`tune` goes the same way wave by wave, to the file of a search in place of a report.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console

from mosld_bench import display
from mosld_bench.background import BackgroundCall
from mosld_bench.errors import LostError, first_line
from mosld_bench.inputs.overlap_cache import OverlapSearch, cached_overlaps
from mosld_bench.interruption import noting_interruptions, raise_if_interrupted, saving
from mosld_bench.records.method_code import differing_code
from mosld_bench.records.overlap import Overlap
from mosld_bench.records.provenance import command_line
from mosld_bench.records.published import Published
from mosld_bench.records.record import Outcome, Record
from mosld_bench.records.slips import slips
from mosld_bench.records.store import Store, check_writable
from mosld_bench.scheduling import (
    InterimReports,
    Options,
    Plan,
    ProgressDisplay,
    Rounds,
    Search,
    check,
    check_items,
    check_places,
    make_executor,
    missing,
)
from mosld_bench.scheduling.reuse import Weights
from mosld_bench.scratch import sweep, sweep_temporary
from mosld_bench.spec.study import Study
from mosld_bench.spec.task_files import TaskFiles
from mosld_bench.spec.trial import PlannedTrial, Trial
from mosld_bench.spec.workspace import Workspace
from mosld_bench.tracking import Tracking, make_trackers
from mosld_bench.trial.execute import failed

if TYPE_CHECKING:
    from mosld_bench.inputs.tasks import TaskLoader
    from mosld_bench.reporting import Analysis

__all__ = ["Options", "analysed", "find_overlaps", "page", "printed_slips", "report", "run", "tune", "write"]


@noting_interruptions()
def run(plan: Plan, workspace: Workspace, console: Console, options: Options) -> int:
    """Run the trials of a plan that have no record, and build the study's report. Returns the exit code.

    It is 1 where a trial failed; the others are recorded all the same, and the same call runs those that failed again.
    Raises BenchError, before anything starts, for what `scheduling.check`, `scheduling.missing` and
    `scheduling.check_items` refuse, and where another run holds the study's folder; LostError for what a run that had
    begun cannot go on without.
    """
    store = Store(workspace.results)
    report_folder = options.report_folder or workspace.reports / plan.study.name
    with _alone(plan, store, report_folder, console, options):
        return _run(plan, workspace, store, report_folder, console, options)


@contextmanager
def _alone(plan: Plan, store: Store, report_folder: Path, console: Console, options: Options) -> Iterator[None]:
    """The folder of a plan's records for this run alone, and places for all that is going to be written."""
    check_places(plan, store, report_folder, options)
    with store.held(plan.study.name, options.command or command_line(), say=console.print):
        sweep(report_folder, deep=True)
        sweep_temporary()
        yield


def _run(
    plan: Plan, workspace: Workspace, store: Store, report_folder: Path, console: Console, options: Options
) -> int:
    from mosld_bench.inputs.item_texts import note_texts

    study = plan.study
    folders = (workspace.tasks, *options.include_paths)
    trackers = make_trackers(options.report_to, study.name, report_folder)
    with console.status("loading tasks and weights …"):
        inputs = check(plan, folders, options)
    todo = missing(plan.planned, store, overwrite=options.overwrite, weights=inputs.weights)
    _say(display.run_sentences(plan, todo), console)
    if options.save_adapters:
        _say(display.without_adapter_sentences(plan, todo, store), console)
    if todo.planned:
        with display.checking(console) as watch:
            found = check_items(plan, todo.planned, inputs, options, watch=watch, say=console.print)
        _say(display.data_notes(found), console)
        store.check_writable(study.name)
    check_writable(report_folder)
    executor = make_executor(study, folders, options, gpus=inputs.gpus, results=workspace.results)
    order = plan.in_rounds(todo.planned)
    for trial, reason in plan.left_out:  # so that a report says why they are missing
        store.write(failed(trial, reason, {}))
    kept = _Kept()
    so_far = _ReportSoFar(plan, workspace, options, report_folder, len(plan.planned) - len(todo.planned))
    try:
        with (
            ProgressDisplay(plan.hours(order), console) as progress,
            Tracking(progress, trackers, order) as tracking,
            closing(executor),
            so_far.after_rounds(todo.planned, progress.say) as interim,
        ):
            outcomes = executor.run(order, tracking)
            if study.trains:  # a report needs the overlaps; they are searched while the workers get ready
                find_overlaps(study, workspace, inputs.loader.files, lambda: inputs.loader)
                note_texts(store, study, inputs.loader)
            try:
                for outcome in outcomes:
                    _keep(outcome, store, kept)
                    tracking.finish(outcome.record)
                    so_far_of = so_far.of(kept.finished)
                    interim.ended(outcome.record.trial_id, of=so_far_of, seconds_left=progress.seconds_left())
                    raise_if_interrupted()
            except KeyboardInterrupt:
                with suppress(LostError):  # the end of a cluster's job may have ended its workers as well
                    for outcome in executor.ended():
                        _keep(outcome, store, kept)
                raise
    except (KeyboardInterrupt, LostError) as error:
        so_far.at_end(kept.finished, console, again=isinstance(error, KeyboardInterrupt))
        raise
    _say(display.failure_sentences(kept.failures, store), _heard(console))
    if len(kept.failures) < len(plan.planned):
        _report_and_print(plan, workspace, options, report_folder, console)
    return 1 if kept.failures else 0


@dataclass
class _Kept:
    """What a run has come to: how many trials finished, and those that failed.

    No other record is kept: of a hundred thousand, they would fill the memory.
    """

    finished: int = 0
    failures: list[Record] = field(default_factory=list)


def _keep(outcome: Outcome, store: Store, kept: _Kept) -> None:
    """Write an outcome and count it; an interruption waits for that.

    Raises LostError where there is no place for it any more.
    """
    with saving():
        try:
            store.write(outcome)
        except OSError as error:
            raise LostError(
                f"{error.filename or store.results} cannot be written any more ({error.strerror}), so that "
                f"{outcome.record.trial_id} has no record. What was recorded before is kept: mend that, and the same "
                f"command runs the rest."
            ) from error
        kept.finished += outcome.record.status == "finished"
        kept.failures += [outcome.record] if outcome.record.status == "failed" else []


class _ReportSoFar:
    """The report of a run that goes on, or was interrupted: marked preliminary, in the place of the final one."""

    def __init__(self, plan: Plan, workspace: Workspace, options: Options, folder: Path, recorded: int) -> None:
        """``folder``: of the report; ``recorded``: how many trials of the plan had a record when the run began."""
        self._plan, self._recorded, self._trials, self._folder = plan, recorded, plan.reported, folder
        words = (plan.study, workspace, options.include_paths)
        self._make = partial(report, *words, trials=self._trials, to=self._folder, preliminary=True)

    def of(self, finished: int) -> str:
        """What a report is of that is made after so many trials of the run have ``finished``."""
        return f"{self._recorded + finished} of {len(self._trials)} trials"

    def after_rounds(self, todo: Sequence[PlannedTrial], say: Callable[[str], None]) -> InterimReports:
        """Has one made after every round but the last, while trials go on."""

        def begin(done: Callable[[str | None], None]) -> BackgroundCall:
            return BackgroundCall(self._make, done=done)

        return InterimReports(Rounds(self._plan.rounds, todo), begin, say=say, where=self._folder / "report.pdf")

    def at_end(self, finished: int, console: Console, *, again: bool) -> None:
        """Make one here and now, if the run has come to anything: so many trials that ``finished``.

        ``again``: whether it was Ctrl-C that ended the run.
        """
        if not self._plan.study.trains or not finished:
            return
        which = "Ctrl-C again" if again else "Ctrl-C"
        console.print(f"making a report of {self.of(finished)}; {which} leaves it out", soft_wrap=True)
        try:
            path = self._make()
        except Exception as error:  # the records count, and what has ended the run is what is to be told
            console.print(f"no report: {first_line(error)}", soft_wrap=True)
        else:
            console.print(f"report so far, of {self.of(finished)}: {path}", soft_wrap=True)


@noting_interruptions()
def tune(search: Search, workspace: Workspace, console: Console, options: Options) -> int:
    """Search for the learning rates of a study, as far as there are no records, and write its tuning.yaml.

    Returns the exit code: 1 where a trial failed, after which the same call goes on, or a recipe has no rate. Raises
    what `run` raises.
    """
    store, report_folder = Store(workspace.results), workspace.reports / search.study.name
    with _alone(search.plan, store, report_folder, console, options):
        return _tune(search, workspace, store, report_folder, console, options)


def _tune(
    search: Search, workspace: Workspace, store: Store, report_folder: Path, console: Console, options: Options
) -> int:
    plan = search.plan
    folders = (workspace.tasks, *options.include_paths)
    trackers = make_trackers(options.report_to, plan.study.name, report_folder)
    with console.status("loading tasks and weights …"):
        inputs = check(plan, folders, options)
    if options.overwrite == "never":
        missing(search.planned(search.start), store, overwrite="never", weights=inputs.weights)
    driver = _SearchDriver(search, store, options, inputs.weights)
    todo = driver.next_trials()
    if todo:
        with display.checking(console) as watch:
            found = check_items(plan, todo, inputs, options, watch=watch, say=console.print)
        _say(display.data_notes(found), console)
        store.check_writable(plan.study.name)
    check_writable(report_folder)
    executor = make_executor(plan.study, folders, options, gpus=inputs.gpus, results=workspace.results)
    kept = _Kept()
    with (
        ProgressDisplay(search.hours(todo), console) as progress,
        Tracking(progress, trackers, todo) as tracking,
        closing(executor),
    ):
        if todo:
            progress.say(driver.told())
        for outcome in executor.run(todo, tracking, most=len(plan.planned) * max(map(len, search.waves))):
            _keep(outcome, store, kept)
            tracking.finish(outcome.record)
            if driver.ended(outcome.record) and not kept.failures and (more := driver.next_trials()):
                progress.say(driver.told())
                progress.expect(search.hours(more))
                tracking.expect(more)
                todo += more  # the executor goes on with them
    _say(display.failure_sentences(kept.failures, store), _heard(console))
    if kept.failures:
        console.print("The same command runs these again and goes on; until then there is nothing to choose from.")
        return 1
    tuning = search.tuning()
    path = store.write_tuning(tuning, report_folder)
    console.print(display.tuning_table(tuning, console.width))
    _say((*display.tuning_sentences(tuning, search), f"tuning: {path}"), console)
    return 1 if search.without_rate() else 0


class _SearchDriver:
    """Has a search go on: from what is recorded to the trials that are to run, wave by wave."""

    def __init__(self, search: Search, store: Store, options: Options, weights: Mapping[str, Weights]) -> None:
        self._search, self._store, self._options, self._weights = search, store, options, weights
        self._open: set[str] = set()  # trials of the wave that are running
        self._ran: set[str] = set()

    def next_trials(self) -> list[PlannedTrial]:
        """The trials that have to run before the search can go on; none where it is over."""
        while wave := self._search.wave():
            new = [member for member in wave if member.trial.id not in self._ran]
            absent = missing(new, self._store, overwrite=self._options.overwrite, weights=self._weights).planned
            absent_ids = {trial.id for trial, _ in absent}
            runs = {
                trial.id: None if trial.id in absent_ids else self._search.run_of(member, self._store.record(trial))
                for member in wave
                for trial in [member.trial]
            }
            todo = [member for member in wave if runs[member.trial.id] is None]
            if todo:
                self._open = {trial.id for trial, _ in todo}
                self._ran |= self._open
                return self._search.of(todo).longest_first(todo)
            self._search.settle({trial: run for trial, run in runs.items() if run is not None})
        return []

    def ended(self, record: Record) -> bool:
        """Note that a trial ended. Whether it was the last one of its wave."""
        self._open.discard(record.trial_id)
        return not self._open

    def told(self) -> str:
        """What runs now, as a line."""
        return display.wave_sentence(self._search.current, self._search.start, len(self._open))


def report(
    study: Study,
    workspace: Workspace,
    include_paths: tuple[Path, ...] = (),
    *,
    trials: list[Trial] | None = None,
    to: Path | None = None,
    preliminary: bool = False,
) -> Path:
    """Compile the study's report from its records. Returns the PDF; tables and figures are beside it.

    ``trials``: the plan that the report is of; by default that of ``study``. ``to``: the folder of the report; by
    default that of the study in reports/. ``preliminary``: whether it says on its face that others are still to be run.
    """
    planned = study.plan(workspace, include_paths) if trials is None else trials
    analysis = replace(analysed(study, workspace, include_paths, planned), preliminary=preliminary)
    return write(analysis, to or workspace.reports / study.name)


def write(analysis: Analysis, folder: Path) -> Path:
    """Write the report of an analysis to ``folder``. Returns the PDF. Raises BenchError where that cannot be done."""
    from mosld_bench.reporting import write_report

    check_writable(folder)
    return write_report(analysis, folder)


def page(study: Study, workspace: Workspace, include_paths: tuple[Path, ...] = ()) -> Path:
    """Write the study's page from its records, without the PDF, into its folder of reports/. Returns the page.

    Raises BenchError where there is no record of it.
    """
    from mosld_bench.reporting.explorer.page import write_page

    analysis = analysed(study, workspace, include_paths, study.plan(workspace, include_paths))
    folder = workspace.reports / study.name
    check_writable(folder)
    return write_page(analysis, folder)


def analysed(study: Study, workspace: Workspace, include_paths: tuple[Path, ...], trials: list[Trial]) -> Analysis:
    """What the records of ``trials``, the plan of a study, say. Raises BenchError where none has finished."""
    from mosld_bench.reporting import analyse

    files = TaskFiles.scan((workspace.tasks, *include_paths))
    tasks = {task: files.config(task) or {} for task in study.tasks}
    paper = Published.load(workspace.published) if study.published else None
    key = OverlapSearch.of(study).key(files) if study.trains else None
    sources = Store(workspace.results).sources(study, tasks, paper, overlap_key=key)
    return analyse(study, trials, replace(sources, outdated=_outdated(sources.records)))


def _outdated(records: Sequence[Record]) -> frozenset[str]:
    """The trials whose record other code of its method made than is here now, as far as that is known."""
    from mosld_bench.methods.registry import code_now

    outdated = set()
    for record in records:
        then = record.meta_info.get("method")
        now = code_now(record.trial.recipe, record.trial.train, then)
        if now is not None and differing_code(then, now):
            outdated.add(record.trial_id)
    return frozenset(outdated)


def find_overlaps(
    study: Study, workspace: Workspace, files: TaskFiles, loader: Callable[[], TaskLoader]
) -> tuple[Overlap, ...]:
    """What the evaluation sets of a study that trains share with its training sets: as recorded, or searched now.

    ``loader`` is called only where they are searched.
    """
    return cached_overlaps(Store(workspace.results), study.name, OverlapSearch.of(study), files, loader)


def printed_slips(study: Study, published: Published | None) -> list[str]:
    """A line for each slip in those of the paper's tables ``published`` that a study redoes."""
    printed = slips(published) if published else []
    return [f"slip in the paper: {slip.sentence}" for slip in printed if slip.name in study.published]


def _say(sentences: Iterable[str], console: Console) -> None:
    for sentence in sentences:
        console.print(sentence, soft_wrap=True)


def _heard(console: Console) -> Console:
    """The console, or where it is a quiet one, one on stderr: failures are heard."""
    return Console(stderr=True, highlight=False, markup=False, emoji=False) if console.quiet else console


def _report_and_print(plan: Plan, workspace: Workspace, options: Options, folder: Path, console: Console) -> None:
    """Compile the report into ``folder``; print its main table, answers, the slips of the paper's tables, its place."""
    from mosld_bench.reporting import answer_lines, main_notes, main_rows
    from mosld_bench.reporting.explorer import PAGE

    study = plan.study
    with console.status("making the report …"):
        analysis = analysed(study, workspace, options.include_paths, plan.reported)
        path = write(analysis, folder)
    if study.trains:
        console.print(display.results_table(main_rows(analysis), main_notes(analysis)))
    for line in answer_lines(analysis):
        console.print(line)
    _say((*printed_slips(study, analysis.published), f"page: {path.with_name(PAGE)}", f"report: {path}"), console)
