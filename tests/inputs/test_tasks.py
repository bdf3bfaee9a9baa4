"""The loader of tasks: whose data it reads, and what it refuses."""

from __future__ import annotations

import shutil
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from mosld_bench.errors import DataError
from mosld_bench.inputs.items import examples, training_docs
from mosld_bench.inputs.source_note import write_note
from mosld_bench.inputs.tasks import TaskLoader
from mosld_bench.spec.task_files import TaskFiles
from tests.conftest import REPOSITORY, write_task
from tests.support.miniature import ITEMS

FOLDER = REPOSITORY / "tasks"


def test_a_data_set_without_its_training_split_is_scored_and_not_trained_on(miniature: Path, tmp_path: Path) -> None:
    shutil.copytree(miniature / "knkarthick", tmp_path / "knkarthick")
    folder = tmp_path / "knkarthick" / "dialogsum"
    next(folder.glob("data/train-*")).unlink()
    card = (folder / "README.md").read_text()
    (folder / "README.md").write_text(card.replace("  - split: train\n    path: data/train-*\n", ""))
    task = TaskLoader([FOLDER], tmp_path).get("dialogsum")
    assert len(task.eval_docs) == ITEMS
    with pytest.raises(DataError, match="'dialogsum' has no split 'train', only validation and test, so nothing can"):
        examples(task)


def test_a_data_root_gives_its_own_rows_as_they_are_now(miniature: Path, tmp_path: Path) -> None:
    """``datasets`` alone takes folders of one name and README for the same."""
    shutil.copytree(miniature / "openai", tmp_path / "openai")
    file = next((tmp_path / "openai").rglob("train-*.parquet"))
    sizes = [len(training_docs(TaskLoader([FOLDER], miniature).get("gsm8k")))]
    for rows in (5, 4):
        pq.write_table(pq.read_table(file).slice(0, rows), file)
        sizes.append(len(training_docs(TaskLoader([FOLDER], tmp_path).get("gsm8k"))))
    assert sizes == [ITEMS, 5, 4]


def test_two_definitions_of_one_task_in_a_folder_are_refused(tmp_path: Path) -> None:
    """lm-eval would run the first one it finds and say nothing."""
    first, second = tmp_path / "first", tmp_path / "second"
    for path in (first / "a.yaml", second / "a.yaml"):
        path.parent.mkdir()
        path.write_text("task: a\n")
    assert TaskFiles.scan((first, second)).paths == {"a": second / "a.yaml"}  # a later folder wins
    (first / "deep").mkdir()
    (first / "deep" / "b.yaml").write_text("task: a\n")
    with pytest.raises(DataError, match=r"a\.yaml and .*b\.yaml both define the task 'a'"):
        TaskFiles.scan((first, second))


def test_a_data_root_of_another_revision_is_refused(miniature: Path, tmp_path: Path) -> None:
    shutil.copytree(miniature / "openai", tmp_path / "openai")
    definition = TaskFiles.scan((FOLDER,)).config("gsm8k")
    assert definition is not None
    folder, pinned = tmp_path / definition["dataset_path"], definition["dataset_kwargs"]["revision"]
    write_note(folder, {"source": "hub:datasets/openai/gsm8k", "revision": pinned})
    assert len(training_docs(TaskLoader([FOLDER], tmp_path).get("gsm8k"))) == ITEMS
    write_note(folder, {"source": "hub:datasets/openai/gsm8k", "revision": "main"})
    with pytest.raises(DataError, match=f"holds the revision 'main', but '{pinned}' is asked for"):
        TaskLoader([FOLDER], tmp_path).get("gsm8k")


def test_a_missing_mirror_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="'allenai/openbookqa' of the task 'openbookqa' is not below --data-root"):
        TaskLoader([FOLDER], tmp_path).get("openbookqa")


def test_the_digest_is_over_what_changes_numbers(tmp_path: Path) -> None:
    write_task(tmp_path, "copy", [{"x": 1}])
    path = tmp_path / "copy.yaml"
    before = TaskFiles.scan((tmp_path,)).digest("copy")
    path.write_text(path.read_text().replace("Toy copy", "Another title"))
    assert TaskFiles.scan((tmp_path,)).digest("copy") == before
    path.write_text(path.read_text().replace("}}?", "}}!"))
    assert TaskFiles.scan((tmp_path,)).digest("copy") != before


def test_a_definition_reaches_lm_eval_as_it_was_read(tmp_path: Path) -> None:
    """lm-eval's own reader would take the two words for truth values, and the temperature for text."""
    write_task(tmp_path, "copy", [{"question": "q", "answer": 1}])
    (tmp_path / "helper.py").write_text("def text(doc):\n    return doc['question'] + '!'\n")
    (tmp_path / "mine.yaml").write_text(
        "include: copy.yaml\ntask: mine/words\ndoc_to_choice: [yes, no]\ndoc_to_text: !function helper.text\n"
        "generation_kwargs: {temperature: 1e-3}\ndescription: 2024-99-99\n"
    )
    task = TaskLoader([tmp_path]).get("mine/words")
    (doc,) = task.test_docs()
    assert task.doc_to_choice(doc) == ["yes", "no"]
    assert task.doc_to_text(doc) == "q!"
    assert task.config.generation_kwargs["temperature"] == 0.001
    assert task.config.description == "2024-99-99"


def test_a_function_that_is_not_there_is_named(tmp_path: Path) -> None:
    write_task(tmp_path, "copy", [{"question": "q", "answer": 1}])
    path = tmp_path / "copy.yaml"
    path.write_text(path.read_text() + "process_docs: !function gone_gone.docs\n")
    with pytest.raises(DataError, match=r"'copy' \(.*copy\.yaml\) names a !function that cannot be had \(ImportError"):
        TaskLoader([tmp_path]).get("copy")


@pytest.mark.parametrize("below", ["x", "x/y"])
def test_a_cache_that_cannot_be_written_is_named(below: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_task(tmp_path / "tasks", "copy", [{"question": "q", "answer": 1}])
    (tmp_path / "file").write_text("no folder")
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "file" / below)
    with pytest.raises(DataError, match=r"'copy' cannot be loaded, since the cache .*file/x.* Set HF_DATASETS_CACHE"):
        TaskLoader([tmp_path / "tasks"]).get("copy")
