"""The texts of items: those that a model reads, noted once a study."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from mosld_bench.errors import BadFileError
from mosld_bench.inputs import item_texts
from mosld_bench.inputs.item_texts import item_text, note_texts
from mosld_bench.inputs.items import sample
from mosld_bench.inputs.rendering import BadItemError, requests
from mosld_bench.inputs.tasks import TaskLoader
from mosld_bench.records.store import Store
from mosld_bench.records.texts import COLUMNS
from mosld_bench.spec.trial import EvaluateSpec, TrainSpec
from tests.conftest import items, write_task
from tests.support.synthetic import make_study

FIVE = EvaluateSpec(limit=5)


@pytest.fixture
def loader(tmp_path: Path) -> TaskLoader:
    for name, letters in (("copy", "abcdefg"), ("count", "hijklmn")):
        write_task(tmp_path / "tasks", name, items(20, letters))
    shown = (tmp_path / "tasks" / "count.yaml").read_text() + "description: 'Letters.\\n\\n'\nnum_fewshot: 2\n"
    (tmp_path / "tasks" / "count.yaml").write_text(shown)
    return TaskLoader([tmp_path / "tasks"])


def studied(**changes: Any) -> Any:
    return make_study(**{"in_domain": ("copy",), "out_of_domain": ("count",), "evaluate": FIVE, **changes})


def test_every_item_that_is_scored_is_noted_once(loader: TaskLoader, tmp_path: Path) -> None:
    store = Store(tmp_path / "results")
    assert store.texts("synthetic") is None
    note_texts(store, studied(), loader)
    texts = store.texts("synthetic")
    assert texts is not None
    assert list(texts.columns) == list(COLUMNS)
    assert texts.groupby("task").size().to_dict() == {"copy": 5, "count": 5}
    first = texts.iloc[0]
    doc = loader.get("copy").eval_docs[first["doc"]]
    assert first["prompt"] == f"{doc['question']}?"
    assert list(first["options"]) == [f" {option}" for option in doc["options"]]
    before = (tmp_path / "results" / "synthetic" / "texts.parquet").stat().st_mtime_ns
    note_texts(store, studied(), loader)
    assert (tmp_path / "results" / "synthetic" / "texts.parquet").stat().st_mtime_ns == before
    note_texts(store, studied(evaluate=EvaluateSpec(limit=8)), loader)
    more = store.texts("synthetic")
    assert more is not None
    assert not more.duplicated(["task", "doc_hash"]).any()
    assert set(more["doc_hash"]) > set(texts["doc_hash"])


def test_an_item_that_cannot_be_rendered_is_left_out_alone(
    loader: TaskLoader, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    task = loader.get("copy")
    second = task.eval_docs[sample(task, 5, FIVE.sample_seed)[1]]

    def rendered(task: Any, doc: dict[str, Any]) -> tuple[str, list[str]]:
        if doc == second:
            raise BadItemError("copy", "doc_to_choice", "it has no options", "")
        return item_text(task, doc)

    monkeypatch.setattr(item_texts, "item_text", rendered)
    note_texts(Store(tmp_path / "results"), studied(), loader)
    texts = Store(tmp_path / "results").texts("synthetic")
    assert texts is not None
    assert texts.groupby("task").size().to_dict() == {"copy": 4, "count": 5}


def test_what_items_share_is_left_out_of_a_prompt(loader: TaskLoader) -> None:
    task = loader.get("count")
    doc = task.eval_docs[3]
    whole = requests(task, doc)[0][0]
    prompt, options = item_text(task, doc)
    assert whole.startswith("Letters.")
    assert whole.count("?") == 3
    assert prompt.strip() == f"{doc['question']}?"
    assert len(options) == 3


def test_held_out_training_items_are_not_noted(loader: TaskLoader, tmp_path: Path) -> None:
    study = studied(out_of_domain=(), evaluate=EvaluateSpec(split="validation"), train=TrainSpec(steps=2))
    note_texts(Store(tmp_path / "results"), study, loader)
    assert Store(tmp_path / "results").texts("synthetic") is None


def test_a_damaged_file_is_made_again_and_a_task_that_cannot_be_had_left_out(
    loader: TaskLoader, tmp_path: Path
) -> None:
    store, path = Store(tmp_path / "results"), tmp_path / "results" / "synthetic" / "texts.parquet"
    path.parent.mkdir(parents=True)
    path.write_text("no parquet")
    with pytest.raises(BadFileError, match="holds no texts of items"):
        store.texts("synthetic")
    (tmp_path / "tasks" / "count.jsonl").write_text("")
    note_texts(store, studied(), loader)
    texts = store.texts("synthetic")
    assert texts is not None
    assert set(texts["task"]) == {"copy"}
    texts.drop(columns=["options"]).to_parquet(path)
    with pytest.raises(BadFileError, match="no column options"):
        store.texts("synthetic")
