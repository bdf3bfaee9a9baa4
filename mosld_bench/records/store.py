"""The store: the one owner of paths below results/ and of writing there, whole or not at all.

results/STUDY/TRIAL/record.json      the numbers, the trial, the provenance; there only when the trial finished
results/STUDY/TRIAL/items.parquet    per-item outcomes
results/STUDY/TRIAL/router.parquet   what its routers did, where it has any
results/STUDY/TRIAL/adapter/         if asked for, what it trained, with its tokenizer and a model card
results/STUDY/TRIAL/failure.json     the record of a failure, where the trial failed when it was last run
results/STUDY/TRIAL/.checkpoint.*    what a long training leaves from time to time; gone when there is a record
results/STUDY/SCORED/scored.json     what `mosld-bench score` found of a model or adapter, with items.parquet
results/STUDY/overlap.json           what evaluation sets share with training sets
results/STUDY/texts.parquet          the texts of the items that are scored
results/STUDY/profile.json           what `mosld-bench profile` measured
"""

from __future__ import annotations

import glob
import json
import os
import re
import shutil
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from pydantic import BaseModel, ValidationError

from mosld_bench import collector
from mosld_bench.errors import BadFileError, BenchError, first_line
from mosld_bench.records.items import read_items
from mosld_bench.records.lock import held
from mosld_bench.records.overlap import Overlap, Overlaps
from mosld_bench.records.parquet import parquet_bytes
from mosld_bench.records.profile import Profile
from mosld_bench.records.published import Published
from mosld_bench.records.record import Outcome, Record
from mosld_bench.records.router import read_router
from mosld_bench.records.scored import Scored, ScoredOutcome
from mosld_bench.records.texts import read_texts
from mosld_bench.scratch import Staged, replace_file, sweep
from mosld_bench.spec.plain_file import read_bytes_file, read_json, read_text_file
from mosld_bench.spec.trial import PlannedTrial, Trial
from mosld_bench.spec.tuning import TUNING_FILE, Tuning

if TYPE_CHECKING:
    import pandas as pd

    from mosld_bench.spec.study import Study


_Model = TypeVar("_Model", bound=BaseModel)

_MOST_OVERLAPS = 8  # choices of tasks and items whose overlaps a study keeps

#: What may lie beside a record: of its numbers, and of what was trained.
PARTS = ("items.parquet", "router.parquet", "adapter")


def no_items(trial: Trial) -> pd.DataFrame | None:
    """The items of a trial where none are at hand."""
    return None


def no_scored_items(record: Scored) -> pd.DataFrame | None:
    """The items of a scored record where none are at hand."""
    return None


def no_router(trial: Trial) -> pd.DataFrame | None:
    """What the routers of a trial did where that is not at hand."""
    return None


def no_texts() -> pd.DataFrame | None:
    """The texts of items where these are not at hand."""
    return None


@dataclass(frozen=True)
class Sources:
    """All that a report is made of beside the study and its plan.

    ``tasks``: task -> its resolved definition; ``failures``: trial id -> the last line of its error; ``tracebacks``:
    trial id -> the whole of it;
    ``other_overlaps``: whether overlaps are noted, but of other tasks or items than the study has now. ``outdated``:
    ids of trials whose record other code of its method made than is here now. ``items``: reads the items of a trial
    (`records/items.py`), ``router`` what its routers did (`records/router.py`), ``texts`` the texts of all items
    (`records/texts.py`); None where there is none. ``scored``: what was scored for the study without being trained
    here, and ``scored_items`` its items.
    """

    records: tuple[Record, ...] = ()
    tasks: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    failures: Mapping[str, str] = field(default_factory=dict)
    tracebacks: Mapping[str, str] = field(default_factory=dict)
    overlaps: tuple[Overlap, ...] = ()
    other_overlaps: bool = False
    profile: Profile | None = None
    published: Published | None = None
    outdated: frozenset[str] = frozenset()
    items: Callable[[Trial], pd.DataFrame | None] = no_items
    router: Callable[[Trial], pd.DataFrame | None] = no_router
    scored: tuple[Scored, ...] = ()
    scored_items: Callable[[Scored], pd.DataFrame | None] = no_scored_items
    texts: Callable[[], pd.DataFrame | None] = no_texts


class Store:
    """The records below a folder ``results``, and what else a study leaves there."""

    def __init__(self, results: Path) -> None:
        self.results = results

    def folder(self, trial: Trial) -> Path:
        """Where the files of a trial lie."""
        return self.results / trial.study / trial.id

    def failure_file(self, trial: Trial) -> Path:
        """Where the record of a failed trial lies, with its whole error."""
        return self.folder(trial) / "failure.json"

    def checkpoint_file(self, trial: Trial) -> Path:
        """Where the process that runs a trial leaves what it has come to, until there is a record."""
        return self.folder(trial) / ".checkpoint.safetensors"

    def profile_file(self, study: str) -> Path:
        """Where `mosld-bench profile` leaves what it measured, and where a report finds it."""
        return self.results / study / "profile.json"

    def _items_file(self, trial: Trial) -> Path:
        return self.folder(trial) / "items.parquet"

    def _router_file(self, trial: Trial) -> Path:
        return self.folder(trial) / "router.parquet"

    def _texts_file(self, study: str) -> Path:
        return self.results / study / "texts.parquet"

    def _overlap_file(self, study: str) -> Path:
        return self.results / study / "overlap.json"

    def write(self, outcome: Outcome) -> Path:
        """Write everything aside, rename ``record.json`` last. Returns the trial's folder.

        Where there is no room for it, what was there is still there.
        A finished or stopped record replaces what was there; a failed one leaves ``failure.json`` and touches nothing
        else.
        """
        record, trial = outcome.record, outcome.record.trial
        folder = self.folder(trial)
        new = not folder.exists()
        folder.mkdir(parents=True, exist_ok=True)
        text = record.model_dump_json(indent=1).encode()
        try:
            with Staged(folder) as staged:
                if record.status == "failed":
                    staged.add(folder / "failure.json", text)
                    staged.place()
                    return folder
                items, router = self._items_file(trial), self._router_file(trial)
                for path, frame in ((items, outcome.items), (router, outcome.router)):
                    if frame is not None:
                        staged.add(path, parquet_bytes(frame))
                for name, content in (outcome.adapter or {}).items():
                    staged.add(folder / "adapter" / name, content)
                staged.add(folder / "record.json", text)
                for path in (folder / "record.json", items, router):
                    path.unlink(missing_ok=True)  # of the record before
                shutil.rmtree(folder / "adapter", ignore_errors=True)
                if outcome.adapter:
                    (folder / "adapter").mkdir()
                staged.place()
        except BaseException:
            if new:
                with suppress(OSError):
                    folder.rmdir()
            raise
        (folder / "failure.json").unlink(missing_ok=True)
        for path in folder.glob(f"{self.checkpoint_file(trial).name}*"):  # and what was being written by who died
            path.unlink(missing_ok=True)
        return folder

    def finished(self, planned: PlannedTrial) -> dict[str, Any] | None:
        """The ``meta_info`` of the trial's record; None where it has none of the size that is planned now.

        A budget may be named after another recipe, and that recipe may have changed. The file is read as JSON to its
        end, but nothing is made of the rest, most of which is the training curve: a resumed run asks this of every
        trial.

        Raises BadFileError for a file that is no record.
        """
        path = self.folder(planned.trial) / "record.json"
        if not path.exists():
            return None
        head = _parsed(_Head, path)
        return head.meta_info if _is_size(planned, head.size.target, head.size.params) else None

    def has_adapter(self, trial: Trial) -> bool:
        """Whether what the trial trained lies beside its record."""
        return (self.folder(trial) / "adapter").is_dir()

    def by_name(self) -> dict[str, list[Path]]:
        """Name of a folder within a study -> all folders of that name, in the order of their studies.

        A trial's is its id. Each study's folder is listed once, so that many trials can be looked for.
        """
        folders: dict[str, list[Path]] = {}
        studies = sorted(path for path in self.results.iterdir() if path.is_dir()) if self.results.is_dir() else []
        for study in studies:
            for folder in study.iterdir():
                folders.setdefault(folder.name, []).append(folder)
        return folders

    def elsewhere(self, planned: PlannedTrial, folders: Mapping[str, Sequence[Path]] | None = None) -> Iterator[Record]:
        """Records of the same trial in other studies, at the size that is planned now.

        ``folders``: what `by_name` gives, for who asks of many trials. What cannot be read is left out: a run of the
        study that it belongs to reports it.
        """
        found = (self.by_name() if folders is None else folders).get(planned.trial.id, ())
        for path in (folder / "record.json" for folder in found):
            if not path.is_file():
                continue
            with suppress(BadFileError):
                record = read_record(path)
                size = record.size
                if record.trial.study != planned.trial.study and size and _is_size(planned, size.target, size.params):
                    yield record

    def take(self, trial: Trial, record: Record) -> None:
        """Copy ``record``, of the same trial in another study, and all that lies beside it to the folder of ``trial``.

        The copy notes the other study as ``taken_from``.
        """
        source, target = self.folder(record.trial), self.folder(trial)
        shutil.rmtree(target, ignore_errors=True)  # a failure, or a record of another size
        shutil.copytree(source, target, ignore=shutil.ignore_patterns("record.json", "failure.json", ".*"))
        meta = {"taken_from": record.trial.study, **record.meta_info}
        copied = record.model_copy(update={"trial": trial, "meta_info": meta})
        replace_file(target / "record.json", copied.model_dump_json(indent=1).encode())

    def records(self, study: str | None = None) -> Iterator[Record]:
        """Every finished record (of one study, if named), in the order of their folders.

        Raises BadFileError for a file that is no record.
        """
        for path in sorted(self.results.glob(f"{glob.escape(study) if study else '*'}/*/record.json")):
            yield read_record(path)

    def trial_folders(self, study: str | None = None) -> list[Path]:
        """The folders of all trials that were run (of one study, if named), whatever they came to, in their order."""
        pattern = f"{glob.escape(study) if study else '*'}/*/"
        files = [*self.results.glob(f"{pattern}record.json"), *self.results.glob(f"{pattern}failure.json")]
        return sorted({path.parent for path in files})

    @staticmethod
    def read(folder: Path) -> Record:
        """The record in the folder of a trial, or that of its failure where it has none.

        Raises BadFileError for a file that is no record, and for one that lies in another trial's folder.
        """
        path = folder / "record.json"
        record = read_record(path if path.exists() else folder / "failure.json")
        if not record.trial_id == record.trial.id == folder.name:
            raise BadFileError(f"{folder} holds the record of {record.trial.id}, of another trial or version.")
        return record

    def adopt(
        self,
        copies: Iterable[tuple[Record, Path | None, Mapping[str, Path]]],
        scored: Mapping[tuple[str, str], Path],
    ) -> None:
        """Copy folders of trials here: a record, the folder that has it, and parts (name -> path) to lie beside it.

        Without a folder the parts are put beside what is here. ``scored``: (study, id) -> a folder of what was scored
        without being trained here; what is here stays. All is copied aside before anything is put into its
        place, and each folder comes whole: what is broken off leaves the places that it did not reach as they were.
        """
        with tempfile.TemporaryDirectory(dir=self.results, prefix=".merging-") as name:  # two folders above any record
            aside, ready = Path(name), list[tuple[Path, Path]]()
            for record, folder, parts in copies:
                place = self.folder(record.trial)
                staged = aside / "new" / record.trial.study / record.trial.id
                if folder is not None:
                    _copy(folder, staged, without="failure.json" if record.status != "failed" else None)
                    ready.append((staged, place))
                for part, source in parts.items():
                    _copy(source, staged / part)
                    ready += [(staged / part, place / part)] if folder is None else []
            for (study, scored_id), folder in scored.items():
                place, staged = self.results / study / scored_id, aside / "new" / study / scored_id
                if not (place / "scored.json").exists():
                    _copy(folder, staged)
                    ready.append((staged, place))
            os.sync()
            for staged, place in ready:
                place.parent.mkdir(parents=True, exist_ok=True)
                _exchange(staged, place, aside)

    def add_texts(self, study: str, others: Iterable[pd.DataFrame]) -> None:
        """Note the texts of items that other folders have and this one has not."""
        import pandas as pd

        known = self.texts(study)
        every = pd.concat([*([] if known is None else [known]), *others])
        unique = every.drop_duplicates(["task", "doc_hash"])
        if known is None or len(unique) > len(known):
            self.write_texts(study, unique)

    def add_overlaps(self, study: str, others: Iterable[Overlaps]) -> None:
        """Note overlaps that another folder has and this one has not."""
        known = [entry.key for entry in self.overlaps(study)]
        for entry in others:
            if entry.key not in known:
                self.write_overlaps(study, entry)

    def trial_ids(self) -> dict[str, list[str]]:
        """Study -> ids of its finished trials, as their folders are named; no file is read."""
        ids: dict[str, list[str]] = {}
        for path in sorted(self.results.glob("*/*/record.json")):
            ids.setdefault(path.parts[-3], []).append(path.parts[-2])
        return ids

    def trial(self, study: str, trial_id: str) -> Trial:
        """What a record was asked for; the numbers behind it, most of the file, are not looked at.

        Raises BadFileError for a file that is no record, or not there.
        """
        path = self.results / study / trial_id / "record.json"
        try:
            text = read_text_file(path, needed="a record")
            key = re.search(r'"trial":\s*', text)
            return Trial.model_validate(json.JSONDecoder().raw_decode(text, key.end() if key else 0)[0])
        except (ValueError, RecursionError) as error:
            raise _no_record(path, first_line(error)) from error

    def items(self, trial: Trial) -> pd.DataFrame | None:
        """The outcome of every item of the trial, as `read_items` gives it; None where there is no file.

        Raises BadFileError for a file that holds no items.
        """
        path = self._items_file(trial)
        return read_items(path) if path.exists() else None

    def router(self, trial: Trial) -> pd.DataFrame | None:
        """What the routers of the trial did, as `read_router` gives it; None where there is no file.

        Raises BadFileError for a file of other content.
        """
        path = self._router_file(trial)
        return read_router(path) if path.exists() else None

    def texts(self, study: str) -> pd.DataFrame | None:
        """The texts of a study's items, as `read_texts` gives them; None where there is no file.

        Raises BadFileError for a file of other content.
        """
        path = self._texts_file(study)
        return read_texts(path) if path.exists() else None

    def write_texts(self, study: str, texts: pd.DataFrame) -> None:
        """Note the texts of a study's items, a row an item with the columns of `records.texts.COLUMNS`."""
        self._write(self._texts_file(study), parquet_bytes(texts))

    def record(self, trial: Trial) -> Record | None:
        """The record of a trial that finished or was stopped; None where there is none.

        Raises BadFileError for a file that is no record.
        """
        path = self.folder(trial) / "record.json"
        return read_record(path) if path.exists() else None

    def failures(self, study: str) -> dict[str, str]:
        """Trial id -> the last line of its error, of every trial that failed when it was last run.

        Raises BadFileError for a file that is no record.
        """
        return _last_lines(self.tracebacks(study))

    def tracebacks(self, study: str) -> dict[str, str]:
        """Trial id -> its whole error, of the same trials; empty where none was noted.

        Raises BadFileError for a file that is no record.
        """
        paths = sorted(self.results.glob(f"{glob.escape(study)}/*/failure.json"))
        return {path.parent.name: read_record(path).error or "" for path in paths}

    def overlaps(self, study: str) -> list[Overlaps]:
        """The overlaps of the study, the latest last: one entry a choice of tasks and items that was run.

        Raises BadFileError for a file without any.
        """
        path = self._overlap_file(study)
        if not path.is_file():
            return []
        try:
            content = read_json(path)
            return [Overlaps.model_validate(entry) for entry in (content if isinstance(content, list) else [content])]
        except (BadFileError, ValidationError) as error:
            reason = first_line(error).rstrip(".: ")
            raise BadFileError(f"{path} holds no overlaps ({reason}). Remove it; `run` makes it again.") from error

    def write_overlaps(self, study: str, overlaps: Overlaps) -> None:
        """Note the overlaps of a study beside those of other choices of tasks and items, whole or not at all."""
        others: list[Overlaps] = []
        with suppress(BadFileError):  # a damaged file is made anew
            others = [entry for entry in self.overlaps(study) if entry.key != overlaps.key]
        entries = [entry.model_dump(mode="json") for entry in [*others, overlaps][-_MOST_OVERLAPS:]]
        text = json.dumps(entries if len(entries) > 1 else entries[0], indent=1, ensure_ascii=False)
        self._write(self._overlap_file(study), f"{text}\n".encode())

    def write_tuning(self, tuning: Tuning, folder: Path) -> Path:
        """Write what a search found to ``folder``, whole or not at all. Returns the file."""
        path = folder / TUNING_FILE
        self._write(path, tuning.text().encode())
        return path

    def profile(self, study: str) -> Profile | None:
        """The study's profile; None where none was made. Raises BadFileError for a file that holds none."""
        path = self.profile_file(study)
        if not path.is_file():
            return None
        try:
            return Profile.model_validate_json(read_bytes_file(path, needed="a profile"))
        except (BadFileError, ValidationError) as error:
            raise BadFileError(
                f"{path} holds no profile ({type(error).__name__}). Remove it, or measure again with mosld-bench "
                f"profile."
            ) from error

    def write_profile(self, profile: Profile) -> Path:
        """Write the profile of its study, whole or not at all. Returns its file."""
        path = self.profile_file(profile.study)
        self._write(path, profile.model_dump_json(indent=1).encode())
        return path

    def sources(
        self,
        study: Study,
        tasks: Mapping[str, Mapping[str, Any]],
        published: Published | None = None,
        *,
        overlap_key: Mapping[str, Any] | None = None,
    ) -> Sources:
        """All that a report of ``study`` is made of.

        ``tasks``: task -> its resolved definition; ``published``: the tables that it is compared with;
        ``overlap_key``: what the overlaps must have been computed from (`overlap_cache.overlap_key`), None for the
        latest.

        Raises BadFileError for a file that is no record, profile or overlaps.
        """
        noted = self.overlaps(study.name)
        matching = [entry for entry in noted if overlap_key is None or entry.key == overlap_key]
        with collector.off():
            records = tuple(self.records(study.name))
        tracebacks = self.tracebacks(study.name)
        return Sources(
            records=records,
            tasks=tasks,
            failures=_last_lines(tracebacks),
            tracebacks=tracebacks,
            overlaps=matching[-1].overlaps if matching else (),
            other_overlaps=bool(noted) and not matching,
            profile=self.profile(study.name),
            published=published,
            items=self.items,
            router=self.router,
            scored=tuple(self.scored(study.name)),
            scored_items=self.scored_items,
            texts=partial(self.texts, study.name),
        )

    def write_scored(self, outcome: ScoredOutcome) -> Path:
        """Write a scored record and its items, ``scored.json`` last. Returns its folder."""
        folder = self.results / outcome.record.study / outcome.record.scored_id
        folder.mkdir(parents=True, exist_ok=True)
        replace_file(folder / "items.parquet", parquet_bytes(outcome.items))
        replace_file(folder / "scored.json", outcome.record.model_dump_json(indent=1).encode())
        return folder

    def scored(self, study: str) -> Iterator[Scored]:
        """What was scored under the name of ``study``, in the order of its folders.

        Raises BadFileError for a file that is no such record.
        """
        for path in sorted(self.results.glob(f"{glob.escape(study)}/*/scored.json")):
            try:
                yield Scored.model_validate_json(read_bytes_file(path, needed="a scored record"))
            except ValidationError as error:
                first = error.errors()[0]
                raise BadFileError(
                    f"{path} is no scored record of this version ({'.'.join(map(str, first['loc']))}: {first['msg']}). "
                    f"Move its folder away; `mosld-bench score` makes it again."
                ) from error

    def scored_items(self, record: Scored) -> pd.DataFrame | None:
        """The outcome of every item of a scored record; None where there is no file."""
        path = self.results / record.study / record.scored_id / "items.parquet"
        return read_items(path) if path.exists() else None

    @contextmanager
    def held(self, study: str, command: str, *, say: Callable[[str], None] = lambda line: None) -> Iterator[None]:
        """The folder of a study, for one run alone (`records.lock.held`), without what killed runs left there aside."""
        with held(self.results / study, command, say=say):
            sweep(self.results / study, deep=True)
            yield

    def check_writable(self, study: str) -> None:
        """Raises BenchError where records of ``study`` could not be written; leaves nothing there."""
        check_place(self.results / study)

    def _write(self, path: Path, content: bytes) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        replace_file(path, content)


def _copy(source: Path, target: Path, *, without: str | None = None) -> None:
    """Copy a file, or a folder without its hidden files and ``without``; contents alone, so that all can be moved."""
    target.parent.mkdir(parents=True, exist_ok=True)
    if source.is_file():
        shutil.copyfile(source, target)
        return
    target.mkdir()
    for path in source.iterdir():
        if path.name != without and not path.name.startswith("."):
            _copy(path, target / path.name)


def _exchange(staged: Path, place: Path, aside: Path) -> None:
    """Rename ``staged`` to ``place``; what is there goes to a folder in ``aside``, and back again where that fails."""
    if not place.exists():
        staged.rename(place)
        return
    with tempfile.TemporaryDirectory(dir=aside) as name:
        former = Path(name, place.name)
        place.rename(former)
        try:
            staged.rename(place)
        except BaseException:
            former.rename(place)
            raise


def check_writable(folder: Path) -> None:
    """Make ``folder`` if it is not there. Raises BenchError where that, or a file in it, cannot be written."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder, buffering=0) as file:
            file.write(b"0")
    except OSError as error:
        raise BenchError(
            f"Nothing can be written to {folder} ({error.strerror}). Make it writable, or work in another folder by "
            f"--root."
        ) from None


def check_place(folder: Path, needed_bytes: int = 0) -> None:
    """Raises BenchError where ``folder`` could not be made or written, or its disk has no room; leaves nothing there.

    ``needed_bytes``: what is about to be written.
    """
    there = next(path for path in (folder, *folder.absolute().parents) if os.path.lexists(path))
    if not there.is_dir():
        raise BenchError(f"Nothing can be written to {folder}: {there} is no folder. Move it away, or give another.")
    check_writable(there)
    free = shutil.disk_usage(there).free
    if free < needed_bytes:
        raise BenchError(
            f"The disk of {folder} has {_megabytes(free)} MB free, and about {_megabytes(needed_bytes)} MB are going "
            f"to be written. Free some room, or work in another folder by --root."
        )


def _megabytes(count: int) -> str:
    return f"{count / 1e6:,.1f}"


def _is_size(planned: PlannedTrial, target: int | None, params: dict[str, Any]) -> bool:
    """Whether a record's target and params are those that its trial is planned with."""
    return target == planned.fit.target and params == planned.fit.model_dump(mode="json")["params"]


def _last_lines(errors: Mapping[str, str]) -> dict[str, str]:
    return {trial: (error.strip().splitlines() or ["no error was noted"])[-1] for trial, error in errors.items()}


def _no_record(path: Path, reason: str) -> BadFileError:
    return BadFileError(
        f"{path} is no record of this version ({reason}). Move its folder away; `run` makes the trial again."
    )


class _HeadSize(BaseModel):
    """Of a record's size, what was planned."""

    target: int | None
    params: dict[str, Any]


class _Head(BaseModel):
    """What a resumed run asks of a record."""

    size: _HeadSize
    meta_info: dict[str, Any]


def read_record(path: Path) -> Record:
    """The record in a file. Raises BadFileError, with the first problem, where there is none."""
    return _parsed(Record, path)


def _parsed(model: type[_Model], path: Path) -> _Model:
    try:
        return model.model_validate_json(read_bytes_file(path, needed="a record"))
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))
        raise _no_record(path, f"{where}: {first['msg']}" if where else first["msg"]) from error
