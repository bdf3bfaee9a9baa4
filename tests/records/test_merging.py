"""Folders of results put together: what is one record, what contradicts, and that nothing is lost on the way."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from mosld_bench.errors import BenchError
from mosld_bench.records.merging import Merge, check_conflicts, plan_merge, write_merge
from mosld_bench.records.numbers import differences
from mosld_bench.records.overlap import Overlaps
from mosld_bench.records.record import Metric, Outcome, Record
from mosld_bench.records.store import Store
from mosld_bench.spec.trial import Trial
from tests.support.synthetic import RECIPES, items_of, make_failure, make_record, make_study, make_trials

STUDY = make_study(recipes=("lora", "mosl"), seeds=(0, 1))
TRIALS = make_trials(STUDY, [RECIPES["lora"], RECIPES["mosl"]])


def record_of(trial: Trial, *, gpu: str | None = None, started: str = "2026-01-01", **changes: Any) -> Record:
    """The trial's record, as another machine makes it: other times, the same numbers."""
    record = make_record(trial, STUDY)
    hardware = {**record.meta_info["hardware"], "gpu": gpu}
    meta = {**record.meta_info, "hardware": hardware, "started": started, "seconds": 3.0 if gpu else 11.0}
    return record.model_copy(update={"meta_info": meta, "peak_memory_bytes": 7 if gpu else 9, **changes})


def other_score(record: Record, by: float = 0.1) -> Record:
    first, *rest = record.metrics
    changed: Metric = first.model_copy(update={"value": first.value + by})
    return record.model_copy(update={"metrics": (changed, *rest)})


def lab(root: Path, *outcomes: Record | Outcome) -> Path:
    store = Store(root)
    for outcome in outcomes:
        store.write(outcome if isinstance(outcome, Outcome) else Outcome(outcome))
    return root


def merged(target: Path, *folders: Path, **options: Any) -> Merge:
    merge = plan_merge(folders, target, **options)
    write_merge(merge)
    return merge


def content(folder: Path) -> dict[str, bytes]:
    """Every file below a folder."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def test_records_of_two_labs_lie_side_by_side_and_the_same_numbers_are_one(tmp_path: Path) -> None:
    a = lab(tmp_path / "a", *(record_of(trial) for trial in TRIALS[:3]))
    b = lab(tmp_path / "b", *(record_of(trial, gpu="H200") for trial in TRIALS[1:]))
    before = content(a), content(b)
    merge = merged(tmp_path / "out", a, b)
    assert {path.name for path in Store(tmp_path / "out").trial_folders()} == {trial.id for trial in TRIALS}
    assert content(tmp_path / "out") == {**before[1], **before[0]}, "byte for byte, the first of equals"
    assert (content(a), content(b)) == before
    assert dict(merge.counts[a, "synthetic"]) == {"trials": 3, "copied": 3}
    assert dict(merge.counts[b, "synthetic"]) == {"trials": len(TRIALS) - 1, "copied": len(TRIALS) - 3, "same": 2}


def test_merging_again_changes_nothing(tmp_path: Path) -> None:
    a, b = lab(tmp_path / "a", record_of(TRIALS[0])), lab(tmp_path / "b", record_of(TRIALS[1]))
    merged(tmp_path / "out", a, b)
    stamps = {path: path.stat().st_mtime_ns for path in (tmp_path / "out").rglob("*")}
    again = merged(tmp_path / "out", b, a, tmp_path / "out", a)
    assert again.copies == []
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "out").rglob("*") if path in stamps} == stamps


def test_other_numbers_are_a_conflict_with_fields_and_machines_and_nothing_is_written(tmp_path: Path) -> None:
    record = record_of(TRIALS[1])
    a = lab(tmp_path / "a", record, record_of(TRIALS[2]))
    b = lab(tmp_path / "b", other_score(record_of(TRIALS[1], gpu="H200", started="2026-02-03")))
    metric = record.metrics[0]
    with pytest.raises(BenchError) as error:
        merged(tmp_path / "out", a, b)
    told = (
        f"synthetic/{TRIALS[1].id}: {metric.task} acc,none is {metric.value} in {a} (Example CPU @ 2.5 GHz, "
        f"2026-01-01), {metric.value + 0.1} in {b} (H200, 2026-02-03)"
    )
    assert told in str(error.value)
    assert "--keep newest" in str(error.value)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(("keep", "kept"), [("first", 0), ("newest", 1)])
def test_a_conflict_is_resolved_by_what_is_asked_for_alone(tmp_path: Path, keep: str, kept: int) -> None:
    records = record_of(TRIALS[0]), other_score(record_of(TRIALS[0], started="2026-02-03"))
    a, b = lab(tmp_path / "a", records[0]), lab(tmp_path / "b", records[1])
    for _ in range(2):
        merged(tmp_path / "out", a, b, keep=keep)
        assert list(Store(tmp_path / "out").records()) == [records[kept]]
    merged(tmp_path / "out", b, a, keep="first")
    assert list(Store(tmp_path / "out").records()) == [records[kept]], "what is there already is first"


def test_a_finished_trial_goes_before_one_that_failed(tmp_path: Path) -> None:
    a = lab(tmp_path / "a", make_failure(TRIALS[0], "no memory"), make_failure(TRIALS[1], "no memory"))
    b = lab(tmp_path / "b", record_of(TRIALS[0]), make_failure(TRIALS[1], "no disk"))
    out = lab(tmp_path / "out", make_failure(TRIALS[0], "no time"))
    merge = merged(out, a, b)
    store = Store(out)
    assert [record.trial_id for record in store.records()] == [TRIALS[0].id]
    assert store.failures("synthetic") == {TRIALS[1].id: "no memory"}
    assert not store.failure_file(TRIALS[0]).exists()
    assert merge.counts[a, "synthetic"]["passed over"] == 1


def test_items_routers_and_adapters_come_along_and_complete_each_other(tmp_path: Path) -> None:
    record = record_of(TRIALS[0])
    a = lab(tmp_path / "a", Outcome(record, items_of(record)))
    b = lab(tmp_path / "b", Outcome(record_of(TRIALS[0], gpu="H200"), adapter={"adapter_config.json": b"{}"}))
    merge = merged(tmp_path / "out", a, b)
    names = ["adapter/adapter_config.json", "items.parquet", "record.json"]
    folder = Store(tmp_path / "out").folder(TRIALS[0])
    assert sorted(content(folder)) == names
    assert Store.read(folder) == record
    assert merged(tmp_path / "other", a).copies[0].parts == {}
    late = merged(tmp_path / "other", b)
    assert (late.copies[0].of, set(late.copies[0].parts)) == (None, {"adapter"})
    assert sorted(content(Store(tmp_path / "other").folder(TRIALS[0]))) == names
    assert merge.counts[b, "synthetic"]["same"] == 1


def test_what_cannot_be_read_is_named_and_the_rest_is_merged(tmp_path: Path) -> None:
    a = lab(tmp_path / "a", *map(record_of, TRIALS[:3]))
    broken, elsewhere = Store(a).folder(TRIALS[0]), Store(a).folder(TRIALS[1])
    (broken / "record.json").write_text("{")
    elsewhere.rename(elsewhere.with_name("other"))
    out = lab(tmp_path / "out", record_of(TRIALS[2]))
    own = Store(out).folder(TRIALS[3])
    own.mkdir()
    (own / "record.json").write_text("not ours to throw away")
    b = lab(tmp_path / "b", record_of(TRIALS[3]))
    merge = merged(out, a, b)
    assert {lost.folder for lost in merge.unreadable} == {broken, elsewhere.with_name("other"), own}
    assert all(str(lost.folder) in lost.reason for lost in merge.unreadable)
    assert (own / "record.json").read_text() == "not ours to throw away"


@pytest.mark.parametrize("named", [lambda root: root, lambda root: root.parent, lambda root: root / "synthetic"])
def test_a_workspace_its_results_and_a_study_of_them_are_folders_to_merge(
    tmp_path: Path, named: Callable[[Path], Path]
) -> None:
    results = lab(tmp_path / "lab" / "results", record_of(TRIALS[0]))
    merged(tmp_path / "out", named(results))
    assert [record.trial_id for record in Store(tmp_path / "out").records("synthetic")] == [TRIALS[0].id]


def test_what_is_no_folder_of_results_is_refused(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    for name, told in (("absent", "There is no folder"), ("empty", "holds no trial")):
        with pytest.raises(BenchError, match=told):
            plan_merge([tmp_path / name], tmp_path / "out")


def test_overlaps_of_both_are_kept(tmp_path: Path) -> None:
    for name in "ab":
        folder = lab(tmp_path / name, record_of(TRIALS[0]))
        Store(folder).write_overlaps("synthetic", Overlaps(key={"made by": name}, overlaps=()))
    merged(tmp_path / "out", tmp_path / "a", tmp_path / "b")
    assert [entry.key for entry in Store(tmp_path / "out").overlaps("synthetic")] == [
        {"made by": "a"},
        {"made by": "b"},
    ]


def test_texts_of_items_and_what_was_scored_come_along(tmp_path: Path) -> None:
    def texts(*prompts: str) -> pd.DataFrame:
        rows = [{"task": "t", "doc": i, "doc_hash": p, "prompt": p, "options": ["a"]} for i, p in enumerate(prompts)]
        return pd.DataFrame(rows)

    for name, prompts, trial in (("a", ("x", "y"), TRIALS[0]), ("b", ("y", "z"), TRIALS[1])):
        store = Store(lab(tmp_path / name, record_of(trial)))
        store.write_texts("synthetic", texts(*prompts))
        for study in ("synthetic", "scored"):
            folder = tmp_path / name / study / f"scored-{name}"
            folder.mkdir(parents=True)
            (folder / "scored.json").write_text(name)
    merged(tmp_path / "out", tmp_path / "a", tmp_path / "b")
    together = Store(tmp_path / "out").texts("synthetic")
    assert together is not None
    assert list(together["prompt"]) == ["x", "y", "z"]
    kept = {str(file.relative_to(tmp_path / "out")): file.read_text() for file in tmp_path.glob("out/*/*/scored.json")}
    assert kept == {f"{study}/scored-{name}/scored.json": name for study in ("synthetic", "scored") for name in "ab"}


def test_a_merge_that_is_broken_off_leaves_what_was_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    a = lab(tmp_path / "a", *map(record_of, TRIALS))
    out = lab(tmp_path / "out", *(make_failure(trial, "before") for trial in TRIALS))
    before, rename, done = content(out), Path.rename, []

    def breaking(self: Path, target: Path) -> Path:
        done.append(target)
        if len(done) == 4:  # the second trial's new folder, whose old one has just been put aside
            raise OSError("the disk is gone")
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", breaking)
    with pytest.raises(OSError, match="the disk is gone"):
        merged(out, a)
    monkeypatch.undo()
    now = content(out)
    assert len(list(Store(out).records())) == 1
    assert {name: text for name, text in now.items() if name in before}.items() <= before.items()
    assert len(now) == len(before), "each trial is as it was, or whole and new"
    assert not [path for path in out.iterdir() if path.name.startswith(".")]


def test_what_a_version_did_not_note_is_no_difference() -> None:
    record = record_of(TRIALS[1])
    assert differences(record, record.model_copy(update={"parameters": None})) == []
    curve = record.train_info.curve if record.train_info else ()
    assert curve
    train = record.train_info.model_copy(update={"seconds": 1.0, "curve": curve[:-1]}) if record.train_info else None
    (last, validation) = differences(record, record.model_copy(update={"train_info": train}))
    assert (last.field, last.ours, last.theirs) == (f"loss at step {curve[-1].step}", curve[-1].loss, None)
    assert validation.field == f"validation_loss at step {curve[-1].step}"


def test_all_conflicts_are_counted(tmp_path: Path) -> None:
    records = [record_of(trial) for trial in TRIALS]
    a, b = lab(tmp_path / "a", *records), lab(tmp_path / "b", *map(other_score, records))
    with pytest.raises(BenchError, match=f"{len(TRIALS)} pairs of records have one id and different numbers"):
        check_conflicts(plan_merge([a, b], tmp_path / "out"))
