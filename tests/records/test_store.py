"""The store: what is written, when, and what is read back of it."""

from __future__ import annotations

import json
import os
import re
import resource
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from mosld_bench.errors import BadFileError, BenchError
from mosld_bench.records.frame import load
from mosld_bench.records.overlap import Overlap, Overlaps
from mosld_bench.records.record import Judgement, Outcome, Record
from mosld_bench.records.store import Store, check_place
from mosld_bench.scratch import replace_file
from mosld_bench.spec.trial import Fit, PlannedTrial, Trial
from tests.conftest import REPOSITORY
from tests.support.synthetic import RECIPES, make_record, make_records, make_study, make_trials

STUDY = make_study(seeds=(0,))
TRIAL = make_trials(STUDY, [RECIPES["lora"]])[0]
KEPT = sorted((REPOSITORY / "results" / "smollm2").glob("*/record.json"))


def finished(trial: Trial = TRIAL) -> Record:
    return make_record(trial, STUDY)


def failed(error: str, trial: Trial = TRIAL) -> Outcome:
    return Outcome(Record(trial=trial, trial_id=trial.id, status="failed", error=error))


def size_of(record: Record) -> Fit:
    assert record.size is not None
    return record.size


def names_in(folder: Path) -> list[str]:
    """Every file in and below a folder, hidden ones too."""
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


def items(scores: Sequence[float]) -> pd.DataFrame:
    return pd.DataFrame({"item": [str(index) for index in range(len(scores))], "score": list(scores)})


def test_a_finished_trial_leaves_its_record_its_items_and_its_adapter(tmp_path: Path) -> None:
    record, store = finished(), Store(tmp_path)
    adapter = {"adapter_config.json": b"{}", "adapter_model.safetensors": b"weights"}
    folder = store.write(Outcome(record, items([0.0, 1.0]), adapter))
    assert folder == tmp_path / STUDY.name / TRIAL.id == store.folder(TRIAL)
    assert names_in(folder) == [*(f"adapter/{name}" for name in sorted(adapter)), "items.parquet", "record.json"]
    assert list(store.records(STUDY.name)) == [record]
    assert pd.read_parquet(folder / "items.parquet").equals(items([0.0, 1.0]))
    assert (folder / "record.json").stat().st_mode & 0o777 == 0o644
    # A new record takes the place of all of it; what it does not bring and nobody asked for again goes.
    store.write(Outcome(record, items([1.0, 1.0])))
    assert names_in(folder) == ["items.parquet", "record.json"]


def test_a_stopped_trial_has_a_record_and_no_items(tmp_path: Path) -> None:
    """Nothing is left of a record before it that had some."""
    record, store = finished(), Store(tmp_path)
    assert store.record(TRIAL) is None
    store.write(Outcome(record, items([0.0, 1.0])))
    assert store.record(TRIAL) == record
    assert record.train_info is not None
    info = record.train_info.model_copy(update={"judged": (Judgement(step=4, loss=2.0, rivals=(1.0,), goes_on=False),)})
    stopped = record.model_copy(update={"status": "stopped", "metrics": (), "train_info": info})
    folder = store.write(Outcome(stopped))
    assert names_in(folder) == ["record.json"]
    assert store.record(TRIAL) == stopped


def test_the_record_is_placed_last(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What stops in between leaves no record, so that the trial counts as one that is still to run."""
    store, placed = Store(tmp_path), []
    replace = Path.replace

    def stopped(aside: Path, path: Path) -> Path:
        if path.name == "record.json":
            raise KeyboardInterrupt
        placed.append(path.name)
        return replace(aside, path)

    for outcome in (Outcome(finished()), None):  # with a record of before, and without
        if outcome:
            store.write(outcome)
        monkeypatch.setattr(Path, "replace", stopped)
        with pytest.raises(KeyboardInterrupt):
            store.write(Outcome(finished(), items([1.0]), {"adapter_config.json": b"{}"}))
        monkeypatch.undo()
        assert placed[-2:] == ["items.parquet", "adapter_config.json"]
        assert list(store.records()) == []
        assert store.finished(PlannedTrial(TRIAL, size_of(finished()))) is None
        assert not [path for path in tmp_path.rglob("*") if path.name.startswith(".")]


@contextmanager
def full_disk(limit: int) -> Iterator[None]:
    """A system that lets no file have more than ``limit`` bytes."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def content(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("limit", [0, 300, 1100])
@pytest.mark.parametrize("before", [False, True])
def test_where_there_is_no_room_all_is_as_it_was(tmp_path: Path, limit: int, before: bool) -> None:
    """The first file does not fit, or one of the next."""
    store, adapter = Store(tmp_path), {"adapter_model.safetensors": b"0" * 1000, "README.md": b"1" * 5000}
    if before:
        store.write(Outcome(finished(), items([0.0]), {"adapter_model.safetensors": b"before"}))
    there = content(tmp_path)
    with full_disk(limit), pytest.raises(OSError, match="File too large") as caught:
        store.write(Outcome(finished(), items([1.0]), adapter))
    assert Path(str(caught.value.filename)).is_relative_to(store.folder(TRIAL))
    assert content(tmp_path) == there
    assert store.folder(TRIAL).exists() == before
    store.write(Outcome(finished(), items([1.0]), adapter))
    assert len(content(tmp_path)) == 4


def test_a_file_is_replaced_whole_or_not_at_all(tmp_path: Path) -> None:
    path = tmp_path / "record.json"
    replace_file(path, b"before")
    with full_disk(3), pytest.raises(OSError, match="File too large"):
        replace_file(path, b"after")
    assert path.read_bytes() == b"before"
    assert names_in(tmp_path) == ["record.json"]
    replace_file(path, b"after")
    assert path.read_bytes() == b"after"
    path.unlink()
    path.mkdir()
    with pytest.raises(IsADirectoryError) as caught:
        replace_file(path, b"after")
    assert caught.value.filename == str(path)
    assert names_in(tmp_path) == []


@pytest.mark.parametrize("mask", [0o022, 0o077, 0o002])
def test_a_file_is_for_whom_the_umask_says(tmp_path: Path, mask: int) -> None:
    before = os.umask(mask)
    try:
        replace_file(tmp_path / "record.json", b"")
    finally:
        os.umask(before)
    assert (tmp_path / "record.json").stat().st_mode & 0o777 == 0o666 & ~mask


def test_a_place_is_looked_at_and_left_as_it_is(tmp_path: Path) -> None:
    check_place(tmp_path / "not" / "there", 1000)
    assert names_in(tmp_path) == []
    (tmp_path / "file").write_text("")
    for folder in (tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(BenchError, match=rf"Nothing can be written to {folder}: {tmp_path}/file is no folder"):
            check_place(folder)
    (tmp_path / "loop").symlink_to("loop")
    with pytest.raises(BenchError, match="is no folder"):
        check_place(tmp_path / "loop")
    with pytest.raises(BenchError, match=r"The disk of .* has [\d,.]+ MB free, and about 1,000,000,000.0 MB are going"):
        check_place(tmp_path / "x", 10**15)
    with full_disk(0), pytest.raises(BenchError, match=r"Nothing can be written to .* \(File too large\)"):
        check_place(tmp_path / "x")


def test_a_failure_stands_beside_a_finished_record_until_the_trial_succeeds(tmp_path: Path) -> None:
    record, store = finished(), Store(tmp_path)
    store.write(Outcome(record))
    store.write(failed("Traceback:\n  ...\nValueError: no luck\n"))
    assert names_in(store.folder(TRIAL)) == ["failure.json", "record.json"]
    assert list(store.records(STUDY.name)) == [record]
    assert store.failures(STUDY.name) == {TRIAL.id: "ValueError: no luck"}
    assert "Traceback" in store.failure_file(TRIAL).read_text()
    store.write(Outcome(record))
    assert names_in(store.folder(TRIAL)) == ["record.json"]
    assert store.failures(STUDY.name) == {}


def test_a_failure_without_a_word_is_reported_all_the_same(tmp_path: Path) -> None:
    store = Store(tmp_path)
    store.write(failed(""))
    assert store.failures(STUDY.name) == {TRIAL.id: "no error was noted"}
    assert store.failures("another") == {}


def test_a_trial_is_finished_at_the_size_that_is_planned(tmp_path: Path) -> None:
    record, store = finished(), Store(tmp_path)
    size = size_of(record)
    assert store.finished(PlannedTrial(TRIAL, size)) is None
    store.write(Outcome(record))
    assert store.finished(PlannedTrial(TRIAL, size)) == record.meta_info
    assert size.target is not None
    for changes in ({"target": size.target + 1}, {"target": None}, {"params": {**size.params, "r": 9}}):
        assert store.finished(PlannedTrial(TRIAL, size.model_copy(update=changes))) is None, changes
    # What the solver expects of the built model is no part of the question.
    assert store.finished(PlannedTrial(TRIAL, size.model_copy(update={"trainable": 1}))) == record.meta_info


def test_records_of_other_studies_are_offered_at_the_planned_size(tmp_path: Path) -> None:
    record, store = finished(), Store(tmp_path)
    size = size_of(record)
    others = [TRIAL.model_copy(update={"study": name}) for name in ("zebra", "apple", "mango")]
    assert {trial.id for trial in others} == {TRIAL.id}
    for trial in others:
        store.write(Outcome(finished(trial)))
    store.write(Outcome(record))
    planned = PlannedTrial(TRIAL, size)
    assert [offer.trial.study for offer in store.elsewhere(planned)] == ["apple", "mango", "zebra"]
    larger = size.model_copy(update={"params": {**size.params, "r": 9}})
    store.write(Outcome(finished(others[1]).model_copy(update={"size": larger})))
    (store.folder(others[2]) / "record.json").write_text("{")
    assert [offer.trial.study for offer in store.elsewhere(planned)] == ["zebra"]


def test_a_record_is_taken_with_all_that_lies_beside_it(tmp_path: Path) -> None:
    store, other = Store(tmp_path), TRIAL.model_copy(update={"study": "other"})
    record = finished(other)
    source = store.write(Outcome(record, items([1.0]), {"adapter_config.json": b"{}"}))
    store.write(failed("OutOfMemoryError", other))
    store.write(failed("ValueError"))
    store.take(TRIAL, record)
    assert names_in(store.folder(TRIAL)) == ["adapter/adapter_config.json", "items.parquet", "record.json"]
    (copy,) = store.records(STUDY.name)
    assert copy.trial == TRIAL
    assert copy.meta_info == {"taken_from": "other", **record.meta_info}
    assert copy.model_copy(update={"trial": other, "meta_info": record.meta_info}) == record
    assert names_in(source) == ["adapter/adapter_config.json", "failure.json", "items.parquet", "record.json"]


def test_sources_hold_what_a_report_is_made_of(tmp_path: Path) -> None:
    study, trials = make_records(tmp_path, recipes=("base", "lora"), seeds=(0, 1), skip=1)
    store = Store(tmp_path / "results")
    assert store.overlaps(study.name) == []
    assert store.profile(study.name) is None
    store.write(failed("ValueError: no luck", trials[-1]))
    first, second = study.in_domain[:2]
    noted = [Overlaps(key={"limit": n}, overlaps=(overlap(first, second, n),)) for n in (5, 8)]
    for entry in noted:
        store.write_overlaps(study.name, entry)
    assert store.overlaps(study.name) == noted
    tasks = {first: {"task": first}}
    sources = store.sources(study, tasks)
    assert {record.trial_id for record in sources.records} == {trial.id for trial in trials[:-1]}
    assert sources.failures == {trials[-1].id: "ValueError: no luck"}
    assert sources.overlaps == noted[1].overlaps
    of_five = store.sources(study, tasks, overlap_key={"limit": 5})
    assert (of_five.overlaps, of_five.other_overlaps) == (noted[0].overlaps, False)
    of_none = store.sources(study, tasks, overlap_key={"limit": 6})
    assert (of_none.overlaps, of_none.other_overlaps) == ((), True)
    assert (sources.tasks, sources.profile, sources.published) == (tasks, None, None)
    assert Store(tmp_path / "nowhere").sources(study, {}).records == ()


def overlap(train: str, evaluated: str, items: int) -> Overlap:
    return Overlap(train=train, evaluated=evaluated, n=13, train_items=9, items=items, shared=2, exact=1)


def test_files_of_a_study_that_hold_something_else_are_named(tmp_path: Path) -> None:
    store = Store(tmp_path)
    (tmp_path / "some").mkdir()
    (tmp_path / "some" / "overlap.json").write_text("{}")
    with pytest.raises(BadFileError, match=r"overlap\.json holds no overlaps"):
        store.overlaps("some")
    store.profile_file("some").write_text("{}")
    with pytest.raises(BadFileError, match=r"profile\.json holds no profile .*measure again with mosld-bench profile"):
        store.profile("some")


def test_a_file_that_is_no_record_is_named(tmp_path: Path) -> None:
    _, trials = make_records(tmp_path, ("lora", "mosld"))
    path = tmp_path / "results" / trials[0].study / trials[0].id / "record.json"
    content: dict[str, Any] = json.loads(path.read_text())
    for broken, reason in (
        (path.read_text()[:100], "Invalid JSON"),
        (json.dumps({**content, "schema_version": 2}), "schema_version: Input should be 1"),
        (json.dumps({**content, "trial_id": None}), "trial_id: Input should be a valid string"),
    ):
        path.write_text(broken)
        with pytest.raises(BadFileError, match=rf"record\.json is no record of this version \({re.escape(reason)}"):
            load(tmp_path / "results")
    path.write_text("{")
    with pytest.raises(BadFileError, match=r"record\.json is no record of this version \(Invalid JSON"):
        Store(tmp_path / "results").finished(PlannedTrial(trials[0], size_of(finished(trials[0]))))


def test_records_are_read_in_one_pass_and_nothing_beside_them_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    study, trials = make_records(tmp_path, recipes=("base", "lora", "mosld"))
    paths = sorted((tmp_path / "results").glob("*/*/record.json"))
    for path in paths:
        (path.parent / "items.parquet").write_bytes(b"not to be read")
    opened: list[Path] = []
    open_path = Path.open

    def noting_open(path: Path, *arguments: Any, **options: Any) -> Any:
        opened.append(path)
        return open_path(path, *arguments, **options)

    monkeypatch.setattr(Path, "open", noting_open)
    frame = load(tmp_path / "results", study.name)
    monkeypatch.undo()
    assert frame["trial"].nunique() == len(trials)
    assert opened == paths
    for path, record in zip(opened, frame.drop_duplicates("trial")["record"], strict=True):  # nothing is lost
        assert (Store(tmp_path / "copy").write(Outcome(record)) / "record.json").read_bytes() == path.read_bytes()


def test_the_frame_has_a_row_a_metric_and_one_for_a_trial_without(tmp_path: Path) -> None:
    assert load(tmp_path).empty
    record, store = finished(), Store(tmp_path)
    store.write(Outcome(record))
    counted = TRIAL.model_copy(update={"setting": "counted", "train_on": ()})
    bare = record.model_copy(
        update={"trial": counted, "trial_id": counted.id, "metrics": (), "train_info": None, "eval_info": None}
    )
    store.write(Outcome(bare))
    frame = load(tmp_path, STUDY.name)
    rows = frame[frame["setting"] == "mixture"]
    assert list(zip(rows["task"], rows["metric"], rows["value"], strict=True)) == [
        (metric.task, metric.metric, metric.value) for metric in record.metrics
    ]
    assert set(rows["role"]) == {"in_domain", "out_of_domain"}
    assert rows["trainable_parameters"].nunique() == 1
    assert set(zip(rows["split"], rows["rate"], rows["learning_rate_scale"], strict=True)) == {("test", "chosen", 1.0)}
    (row,) = frame[frame["setting"] == "counted"].to_dict("records")
    assert pd.isna(row["task"])
    assert pd.isna(row["train_seconds"])


@pytest.mark.parametrize("path", KEPT[:: max(1, len(KEPT) // 5)], ids=lambda path: path.parent.name)
def test_a_kept_record_says_the_same_when_it_is_written_again(path: Path, tmp_path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    record = Record.model_validate_json(text)
    assert json.loads(record.model_dump_json(indent=1)) == json.loads(text)
    assert record.trial.id == record.trial_id == path.parent.name
    assert (Store(tmp_path).write(Outcome(record)) / "record.json").read_text(encoding="utf-8") == text


def test_there_are_kept_records() -> None:
    assert len(KEPT) > 30


def test_a_folder_that_cannot_be_written_is_said_before_work(tmp_path: Path) -> None:
    (tmp_path / "results").write_text("no folder")
    with pytest.raises(BenchError, match=r"Nothing can be written to .*results/some: .*results is no folder\. Move it"):
        Store(tmp_path / "results").check_writable("some")
    Store(tmp_path / "other").check_writable("some")
    assert not (tmp_path / "other").exists(), "looking makes no folder"


def test_a_study_whose_name_is_a_pattern_has_its_own_records_alone(tmp_path: Path) -> None:
    store = Store(tmp_path)
    for name in ("[ab]", "a", "b"):
        store.write(Outcome(finished(TRIAL.model_copy(update={"study": name}))))
    assert [record.trial.study for record in store.records("[ab]")] == ["[ab]"]
