"""Items as they are read: files of every version give the columns of today, and what is no such file is told."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from mosld_bench.errors import BadFileError
from mosld_bench.records.items import COLUMNS, read_items
from mosld_bench.records.record import Outcome, Record
from mosld_bench.records.store import Store
from tests.conftest import REPOSITORY, tracked
from tests.support.recompute import one_by_one, probability, recomputed
from tests.support.synthetic import RECIPES, make_record, make_study, make_trials

KEPT = [REPOSITORY / path for path in tracked("results") if path.endswith("/items.parquet")]
OLD = ("task", "item", "doc", "doc_hash", "prediction", "target", "score", "correct", "logliks")


def logliks(values: Sequence[float]) -> np.ndarray[Any, Any]:
    """As they are written."""
    return np.array(values, dtype=np.float32)


def old(**changes: Any) -> pd.DataFrame:
    """Four items as files had them first; ``changes`` are columns."""
    columns: dict[str, Any] = {
        "task": ["t"] * 4, "item": list("abcd"), "doc": range(4), "doc_hash": list("abcd"),
        "prediction": ["0", "1", "0", "2"], "target": ["0", "1", "2", "0"], "score": [1.0, 1.0, 0.0, 0.0],
        "correct": [True, True, False, False],
        "logliks": [logliks(values) for values in ([-1, -2, -3], [-4, -1, -9], [-1, -1.5, -1.1], [-7, -7, -2])],
    }  # fmt: skip
    return pd.DataFrame(columns | changes)


def written(frame: pd.DataFrame, folder: Path) -> Path:
    """A file of these rows."""
    frame.to_parquet(folder / "items.parquet", index=False, compression="zstd")
    return folder / "items.parquet"


def in_old_form(path: Path, folder: Path) -> Path:
    """A file of the same items as it was written first."""
    return written(pd.read_parquet(path)[list(OLD)], folder)


kept_files = pytest.mark.parametrize("path", KEPT, ids=lambda path: "/".join(path.parts[-3:-1]))


@kept_files
def test_every_number_of_a_kept_record_follows_from_its_items(path: Path) -> None:
    items, record = read_items(path), json.loads(path.with_name("record.json").read_text(encoding="utf-8"))
    assert len(record["metrics"]) > 2
    for metric in record["metrics"]:
        value, _ = recomputed(items[items["task"] == metric["task"]], metric["metric"])
        assert value == metric["value"], metric


@kept_files
def test_the_accuracies_and_probabilities_of_a_kept_file_follow_from_its_old_form(path: Path, tmp_path: Path) -> None:
    items, derived = read_items(path), read_items(in_old_form(path, tmp_path))
    # Those were derived of what the file holds; these were noted before log-likelihoods were rounded to float32.
    rel = 1e-5 if path.parts[-3] == "ablation-smollm2" else 1e-12
    for row in one_by_one(items[:: max(1, len(items) // 200)]):
        assert row.probability == pytest.approx(probability(row.target, row.logliks), rel=rel)
    assert derived["probability"].to_numpy() == pytest.approx(items["probability"].to_numpy(), rel=rel)
    same = [*OLD, "acc,none"]
    pd.testing.assert_frame_equal(derived[same], items[same])


def test_the_kept_files_have_the_columns_of_today() -> None:
    assert len(KEPT) > 30
    for path in KEPT:
        assert list(pd.read_parquet(path).columns) == [*COLUMNS, "acc,none", "acc_norm,none"], path


def test_what_an_old_file_lacks_and_nothing_tells_is_missing(tmp_path: Path) -> None:
    items = read_items(written(old(), tmp_path))
    assert items[["group", "option_lengths", "words", "bytes", "acc_norm,none"]].isna().all(axis=None)
    assert items["acc,none"].tolist() == [1, 1, 0, 0]
    assert items["probability"].tolist() == pytest.approx(
        [probability(row.target, row.logliks) for row in one_by_one(items)]
    )
    assert items.dtypes[["doc", "score", "probability", "acc,none"]].tolist() == [np.int64, *[np.float64] * 3]
    assert items["correct"].dtype == "boolean"


TARGETS: dict[str, tuple[dict[str, Any], list[bool]]] = {
    "several right": ({"target": ["[0, 1]", "[1]", "[2, 1]", "[0, 1, 0]"]}, [True] * 4),
    "none that is there": ({"target": ["0", "1", "3", "-1"]}, [True, True, False, False]),
    "a list without any": ({"target": ["0", "1", "[]", "0"]}, [True, True, False, True]),
    "huge numbers": ({"target": ["0", "1", "9" * 30, "007"]}, [True, True, False, False]),
    "texts of options": ({"target": ["ham", "saw", "1", "0"]}, [False] * 4),
    "numbers that are texts of options": ({"target": ["1", "2", "3", "1"]}, [False] * 4),
    "nobody knows what is right": ({"correct": [None] * 4, "score": [None] * 4}, [False] * 4),
    "log-likelihoods without number": (
        {"logliks": [logliks([-1, math.nan, -2])] + [logliks([-1, -2, -3])] * 2 + [logliks([-math.inf] * 3)]},
        [False, True, True, False],
    ),
    "an option that is impossible": ({"logliks": [logliks([-1, -math.inf, -2])] * 4}, [True] * 4),
    "written": (
        {"correct": [None] * 4, "prediction": list("abca"), "target": list("abcd"), "logliks": [logliks([])] * 4},
        [False] * 4,
    ),
    "one text each": (
        {"correct": [None] * 4, "prediction": [None] * 4, "target": list("1234"), "logliks": [logliks([-9])] * 4},
        [False] * 4,
    ),
}


@pytest.mark.parametrize("name", TARGETS)
def test_a_probability_is_derived_where_the_right_option_is_known(name: str, tmp_path: Path) -> None:
    changes, known = TARGETS[name]
    items = read_items(written(old(**changes), tmp_path))
    assert items["probability"].notna().tolist() == known
    for row in one_by_one(items[known]):
        assert row.probability == pytest.approx(probability(row.target, row.logliks), rel=1e-12)


@pytest.mark.parametrize(
    "changes",
    [
        {"prediction": ["1", "1", "0", "2"], "target": ["1", "1", "2", "0"]},  # another metric's pick
        {"score": [1.0, 1.0, 0.0, 0.5]},
        {"target": ["ham", "saw", "1", "0"]},
        {"correct": [None] * 4},
    ],
)
def test_a_score_that_may_be_no_accuracy_is_not_taken_for_one(changes: dict[str, Any], tmp_path: Path) -> None:
    assert read_items(written(old(**changes), tmp_path))["acc,none"].isna().all()


def test_tasks_of_one_file_are_told_apart(tmp_path: Path) -> None:
    """What is wrong with one is not said of the other."""
    odd = old(task=["u"] * 4, target=["1", "2", "3", "1"])
    items = read_items(written(pd.concat([old(), odd]), tmp_path)).groupby("task")
    assert items[["probability", "acc,none"]].count().to_numpy().tolist() == [[4, 4], [0, 0]]


def test_a_file_of_today_is_read_as_it_is(tmp_path: Path) -> None:
    """Nothing is derived; a column of a later version is left aside."""
    today = read_items(written(old(), tmp_path))
    today["group"], today["rouge1,none"] = list("xxyy"), [0.5, 0.25, math.nan, 1.0]
    today["option_lengths"] = pd.Series([np.array([3, 4, 5], dtype=np.int32)] * 4)
    today.loc[0, ["probability", "acc,none"]] = math.nan
    again = read_items(written(today.assign(mood="good"), tmp_path))
    pd.testing.assert_frame_equal(again, today)


def test_a_trial_without_items_has_a_file_all_the_same(tmp_path: Path) -> None:
    items = read_items(written(old().iloc[:0], tmp_path))
    assert (len(items), list(items.columns)[:3]) == (0, ["task", "item", "doc"])


def test_the_store_gives_the_items_of_a_trial(tmp_path: Path) -> None:
    study = make_study(seeds=(0,))
    trial, store = make_trials(study, [RECIPES["lora"]])[0], Store(tmp_path)
    assert store.items(trial) is None
    store.write(Outcome(make_record(trial, study), old()))
    items = store.items(trial)
    assert items is not None
    assert items["item"].tolist() == list("abcd")
    store.write(Outcome(Record(trial=trial, trial_id=trial.id, status="failed", error="no"), None))
    assert store.items(trial) is not None


def _truncated(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-100])


def _overwritten(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[8:200] = b"\xff" * 192
    path.write_bytes(content)


def _no_utf8(path: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    table = pa.Table.from_pandas(old())
    item = pa.array([b"\xff\xfe"] * 4, pa.binary()).view(pa.string())
    pq.write_table(table.set_column(1, "item", item), path)


def _twice(path: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    table = pa.Table.from_pandas(old())
    pq.write_table(table.append_column("score", table["score"]), path)


def _folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


def _with(**changes: Any) -> Callable[[Path], Any]:
    return lambda path: old(**changes).to_parquet(path)


HOSTILE: dict[str, tuple[Callable[[Path], Any], str]] = {
    "empty": (lambda path: path.write_bytes(b""), "file size is 0 bytes"),
    "a text": (lambda path: path.write_text("task,item\nt,1\n" * 20), "magic bytes not found"),
    "truncated": (_truncated, "magic bytes not found"),
    "overwritten": (_overwritten, "holds"),
    "no text": (_no_utf8, "(?i)utf-?8"),
    "a column twice": (_twice, "it has several columns of one name"),
    "another table": (
        lambda path: pd.DataFrame({"task": ["t"], "value": [1.0]}).to_parquet(path),
        "it has no column item and no doc and no doc_hash and no prediction and no target and no score and no correct "
        "and no logliks",
    ),
    "numbers for texts": (_with(target=[0, 1, 2, 0]), "its column target holds int64 where texts are expected"),
    "texts for numbers": (_with(score=list("abcd")), "its column score holds .* where numbers are expected"),
    "texts of log-likelihoods": (
        _with(logliks=[["a"]] * 4), "its column logliks holds list<element: string> where lists of numbers are expected"
    ),
    "fractions for places": (_with(doc=[0.5, 1, 2, 3]), "its column doc holds double where integers are expected"),
    "a metric in words": (
        lambda path: old().assign(**{"acc,none": "good"}).to_parquet(path),
        "its column acc,none holds .* where numbers are expected",
    ),
    "gaps": (_with(task=["t", None, "t", "t"]), "its column task has gaps"),
    "gaps in a list": (_with(logliks=[None, *[logliks([-1])] * 3]), "its column logliks has gaps"),
    "a folder": (_folder, "is a folder"),
}  # fmt: skip


@pytest.mark.parametrize("name", HOSTILE)
def test_what_holds_no_items_is_told_in_a_sentence(name: str, tmp_path: Path) -> None:
    make, reason = HOSTILE[name]
    path = written(old(), tmp_path)
    make(path)
    with pytest.raises(BadFileError, match=reason) as caught:
        read_items(path)
    text = str(caught.value)
    assert text.startswith(f"{path} holds no items of a trial (")
    assert text.endswith("Move its folder away; `run` makes it again.")
    assert "\n" not in text


def test_fifteen_thousand_items_take_well_below_a_tenth_of_a_second(tmp_path: Path) -> None:
    """Of an old file, where most is derived."""
    path = written(pd.concat([pd.read_parquet(path)[list(OLD)] for path in KEPT[1:6]]), tmp_path)
    times = []
    for _ in range(5):
        start = time.process_time()
        items = read_items(path)
        times.append(time.process_time() - start)
    assert len(items) == 15_000
    assert min(times) < 0.08
