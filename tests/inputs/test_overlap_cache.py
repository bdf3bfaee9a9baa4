"""The overlap search of a study is done once, and again where tasks or items change."""

from __future__ import annotations

from pathlib import Path

import pytest

from mosld_bench.errors import BadFileError
from mosld_bench.inputs.overlap_cache import OverlapSearch, cached_overlaps
from mosld_bench.inputs.tasks import TaskLoader
from mosld_bench.records.overlap import Overlap
from mosld_bench.records.store import Store
from mosld_bench.spec.task_files import TaskFiles
from mosld_bench.spec.trial import EvaluateSpec
from tests.support.texts import define_tasks, sentence


class Search:
    """The overlap of the task ``train`` with the task ``evaluated``, kept in a store; counts the loaders it made."""

    def __init__(self, root: Path) -> None:
        self.tasks, self.store = root / "tasks", Store(root / "results")
        self.loaders = 0

    def __call__(self, scored: EvaluateSpec | None = None) -> Overlap:
        search = OverlapSearch(train_on=["train"], evaluated=["evaluated"], scored=scored or EvaluateSpec())
        (row,) = cached_overlaps(self.store, "study", search, TaskFiles.scan((self.tasks,)), self._loader)
        return row

    def _loader(self) -> TaskLoader:
        self.loaders += 1
        return TaskLoader([self.tasks])


def test_it_is_kept_as_long_as_the_tasks_are_the_same(tmp_path: Path) -> None:
    texts, search = [sentence(f"e{i}") for i in range(4)], Search(tmp_path)
    define_tasks(search.tasks, train=texts[:1], evaluated=texts)
    first = search()
    assert first.shared == 1
    assert search() == first
    (kept,) = search.store.overlaps("study")
    assert kept.overlaps == (first,)
    assert search.loaders == 1, "an unchanged study is not computed again"
    define_tasks(search.tasks, train=texts[:3])
    assert search().shared == 3, "other data, other overlap"
    assert search(scored=EvaluateSpec(limit=2)).items == 2
    assert search.loaders == 3
    (tmp_path / "results" / "study" / "overlap.json").write_text("{")
    assert search().shared == 3, "a broken file is written anew"
    assert search().shared == 3
    assert search.loaders == 4


def test_other_items_are_other_overlaps(tmp_path: Path) -> None:
    search = Search(tmp_path)
    texts = [sentence(f"e{i}") for i in range(40)]
    define_tasks(search.tasks, train=texts, evaluated=texts)
    few = EvaluateSpec(limit=10, sample_seed=3)
    assert search(scored=few).items == 10
    assert search().items == 40
    assert search(scored=few).items == 10
    assert search.loaders == 2, "the overlaps of both stay"


def test_a_file_that_holds_no_overlaps_is_named(tmp_path: Path) -> None:
    store = Store(tmp_path)
    assert store.overlaps("study") == []
    (tmp_path / "study").mkdir()
    (tmp_path / "study" / "overlap.json").write_text('["?"]')
    with pytest.raises(BadFileError, match=r"overlap\.json holds no overlaps"):
        store.overlaps("study")
