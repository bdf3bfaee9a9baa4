"""Sources: records that are analysed together, of a study with its plan or of a folder without one."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mosld_bench import collector
from mosld_bench.errors import BenchError
from mosld_bench.format import counted, listed
from mosld_bench.records.items import read_items
from mosld_bench.records.record import Record
from mosld_bench.records.store import Sources, Store, read_record
from mosld_bench.reporting.analysis import Analysis, analyse
from mosld_bench.reporting.comparing.unlike import trials_differ
from mosld_bench.reporting.rows import Row
from mosld_bench.spec.study import Study
from mosld_bench.spec.task_files import TaskFiles
from mosld_bench.spec.trial import Trial
from mosld_bench.spec.workspace import Workspace

if TYPE_CHECKING:
    import pandas as pd

_MOST_NAMED = 4  # fields, or studies, that a sentence names


@dataclass(frozen=True, eq=False)
class Source:
    """Records that are analysed together.

    ``name``: what they are of, as a sentence names it. ``notes``: what of them does not count, in sentences.
    """

    name: str
    analysis: Analysis
    notes: tuple[str, ...] = ()
    _items: dict[str, dict[str, pd.DataFrame] | None] = field(default_factory=dict, repr=False)

    def items(self, record: Record) -> dict[str, pd.DataFrame] | None:
        """Task -> its items in the file beside a record, as `read_items` gives them; None where there is no file.

        Raises BadFileError for a file that holds no items.
        """
        if record.trial_id not in self._items:
            frame = self.analysis.evidence.items(record.trial)
            self._items[record.trial_id] = None if frame is None else {str(t): f for t, f in frame.groupby("task")}
        return self._items[record.trial_id]

    def rows_of(self, recipe: str) -> tuple[Row, ...]:
        """The rows of a recipe that have a record."""
        return tuple(row for row in self.analysis.rows if row.recipe.name == recipe and row.records)


def read_study(file: Path, workspace: Workspace, include_paths: tuple[Path, ...] = ()) -> Source:
    """A study as its file says, with the records of the trials that it plans.

    Raises BenchError where nothing is scored in it, or nothing is recorded yet.
    """
    study, store = Study.load(file), Store(workspace.results)
    if not study.trains:
        raise BenchError(f"The study {study.name!r} counts parameters and scores nothing; there is nothing to compare.")
    trials = study.plan(workspace, include_paths)
    with collector.off():
        records = tuple(store.records(study.name))
    if not {record.trial_id for record in records} & {trial.id for trial in trials}:
        advice = f"run `mosld-bench run {study.name}` first."
        if records:
            advice += (
                f" {counted(len(records), 'record').capitalize()} of other conditions in "
                f"{workspace.results / study.name}: as a folder it is read without a plan."
            )
        recorded = sorted({path.parents[1].name for path in workspace.results.glob("*/*/record.json")} - {study.name})
        advice += f" Other studies with records: {listed(recorded)}." if recorded else ""
        raise BenchError(f"There is no finished trial of the study {study.name!r} as its file asks for it; {advice}")
    tasks = _definitions(study.tasks, workspace, include_paths)
    sources = Sources(records=records, tasks=tasks, items=_read_once(store.items))
    return Source(f"the study {study.name}", analyse(study, trials, sources))


def read_folder(folder: Path, workspace: Workspace, include_paths: tuple[Path, ...] = ()) -> Source:
    """The records of a trial's folder or of a study's, also of another machine, without the study's file or plan.

    Of several protocols for one base model that of the most records counts, of several records of one recipe, block and
    seed the latest.

    Raises BenchError where there is no record, or none with a score, and BadFileError for a file that is no record.
    """
    with collector.off():
        found = {path: read_record(path) for path in record_files(folder)}
    scored = {record.trial.id: record for record in found.values() if record.metrics}
    if not scored:
        raise BenchError(f"No record in {folder} has a score: its trials only count parameters.")
    files = {record.trial.id: path.with_name("items.parquet") for path, record in found.items()}
    kept, notes = _of_one_protocol(list(scored.values()), folder)
    latest = _latest(kept)
    if len(latest) < len(kept):
        notes += [
            f"Of {folder}, {counted(len(kept) - len(latest), 'record')} of a recipe, block and seed that has a later "
            "one left out."
        ]
    latest.sort(key=_place)
    study = _study_of(latest)

    def items(trial: Trial) -> pd.DataFrame | None:
        file = files[trial.id]
        return read_items(file) if file.exists() else None

    tasks = _definitions(study.tasks, workspace, include_paths)
    sources = Sources(records=tuple(latest), tasks=tasks, items=_read_once(items))
    return Source(str(folder), analyse(study, [record.trial for record in latest], sources), tuple(notes))


def record_files(folder: Path) -> list[Path]:
    """The ``record.json`` of a trial's folder, or those of a study's. Raises BenchError where there is none."""
    own = folder / "record.json"
    paths = [own] if own.is_file() else sorted(folder.glob("*/record.json"))
    if paths:
        return paths
    studies = sorted({path.parents[1].name for path in folder.glob("*/*/record.json")})
    if studies:
        more = f" and {len(studies) - _MOST_NAMED} more" if len(studies) > _MOST_NAMED else ""
        raise BenchError(
            f"{folder} holds several folders of records ({', '.join(studies[:_MOST_NAMED])}{more}); give one of them, "
            f"such as {folder / studies[0]}."
        )
    failed = [*folder.glob("failure.json"), *folder.glob("*/failure.json")]
    why = f"; {counted(len(failed), 'trial')} failed there" if failed else ""
    raise BenchError(
        f"{folder} holds no record of a finished trial{why}. Give a trial's folder (with a record.json) or a folder of "
        "such, as results/STUDY is."
    )


def _read_once(read: Callable[[Trial], pd.DataFrame | None]) -> Callable[[Trial], pd.DataFrame | None]:
    frames: dict[str, pd.DataFrame | None] = {}

    def items(trial: Trial) -> pd.DataFrame | None:
        if trial.id not in frames:
            frames[trial.id] = read(trial)
        return frames[trial.id]

    return items


def _definitions(
    tasks: Iterable[str], workspace: Workspace, include_paths: tuple[Path, ...]
) -> Mapping[str, Mapping[str, Any]]:
    """Task -> its definition here, empty where there is none: for titles, and scales that it states."""
    files = TaskFiles.scan((workspace.tasks, *include_paths))
    return {task: files.config(task) or {} for task in tasks}


def _of_one_protocol(records: Sequence[Record], folder: Path) -> tuple[list[Record], list[str]]:
    """Of every base model, with and without general data, the records of the protocol that has the most; and a note."""
    groups: dict[tuple[str, bool], dict[str, list[Record]]] = {}
    for record in records:
        trial = record.trial
        of_model = groups.setdefault((trial.model.name, trial.general is not None), {})
        of_model.setdefault(trial.protocol, []).append(record)
    kept, notes = [], []
    for protocols in groups.values():
        most = max(protocols.values(), key=lambda group: (len(group), max(map(_started, group))))
        kept += most
        left = [group for group in protocols.values() if group is not most]
        if left:
            fields = {field.name for group in left for field in trials_differ(most[0].trial, group[0].trial)}
            named = listed(sorted(fields)[:_MOST_NAMED]) if fields else "protocol"
            notes.append(
                f"Of {folder}, {counted(len(most), 'record')} of one protocol count; {sum(map(len, left))} of "
                f"{counted(len(left), 'other')} are left out, which differ in {named}. A trial's own folder names one."
            )
    return kept, notes


def _latest(records: Sequence[Record]) -> list[Record]:
    """Of records of one recipe, block, seed and task trained on, the one that was started last."""
    latest: dict[Any, Record] = {}
    for record in sorted(records, key=_started):
        trial = record.trial
        latest[trial.recipe.name, trial.condition, trial.seed, trial.setting == "single" and trial.train_on] = record
    return list(latest.values())


def _place(record: Record) -> tuple[Any, ...]:
    """As a study orders its rows."""
    trial, size = record.trial, record.size
    return (
        trial.recipe.order,
        trial.recipe.name,
        trial.setting,
        (size and size.target) or 0,
        trial.seed,
        record.trial_id,
    )


def _started(record: Record) -> tuple[str, str]:
    return str(record.meta_info.get("started", "")), record.trial_id


def _study_of(records: Sequence[Record]) -> Study:
    """A study that these records could be of: with their tasks and models, and the protocol of the first."""
    trials = [record.trial for record in records]
    return Study(
        name=trials[0].study,
        question="What do these records say?",
        models=tuple({trial.model.name: trial.model for trial in trials}.values()),
        in_domain=_each_once(task for trial in trials for task in trial.in_domain),
        out_of_domain=_each_once(task for trial in trials for task in trial.out_of_domain),
        train=trials[0].train,
        evaluate=trials[0].evaluate,
    )


def _each_once(tasks: Iterable[str]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(tasks))
