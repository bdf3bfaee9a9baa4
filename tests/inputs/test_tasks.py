"""The loader of tasks: whose data it reads, and what it refuses."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import yaml

from mosld_bench.errors import BadFileError, BenchError, DataError
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
    with pytest.raises(BadFileError, match=r"a\.yaml and .*b\.yaml both define the task 'a'"):
        TaskLoader((second, first)).get("a")


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


@pytest.mark.usefixtures("code_allowed")
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


@pytest.mark.usefixtures("code_allowed")
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


ROWS = [{"question": f"{word}?", "options": ["yes", "no"], "answer": 0} for word in ("one", "two", "three")]


def write_rows(file: Path, rows: Sequence[Mapping[str, object]]) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))


def define(folder: Path, **changes: object) -> TaskLoader:
    """The task ``asked`` in ``folder``; None leaves a key out."""
    content = {
        "task": "asked", "dataset_path": "json", "training_split": "train", "test_split": "test",
        "output_type": "multiple_choice", "doc_to_text": "{{question}}", "doc_to_choice": "options",
        "doc_to_target": "answer",
        "metric_list": [{"metric": "acc", "aggregation": "mean", "higher_is_better": True}], **changes,
    }  # fmt: skip
    folder.mkdir(parents=True, exist_ok=True)
    given = {key: value for key, value in content.items() if value is not None}
    (folder / "asked.yaml").write_text(json.dumps(given))  # JSON is YAML
    return TaskLoader([folder])


FILES = {"train": "data/train-*.jsonl", "test": "data/test-0.jsonl"}
SINGLE = {"train": "data/train-0.jsonl", "test": "data/test-0.jsonl"}


@pytest.mark.parametrize("folder", ["plain", "brackets [v2]", "stars *"])
@pytest.mark.parametrize(
    "named",
    [
        {"dataset_kwargs": {"data_files": FILES}},
        {"dataset_kwargs": {"data_files": {"train": ["data/train-0.jsonl", "data/train-1*"], "test": "data/test-*"}}},
        {"dataset_kwargs": {"data_dir": "data"}},
        {"dataset_kwargs": {"data_dir": "data", "data_files": {"train": "train-?.jsonl", "test": "test-0.jsonl"}}},
        {"dataset_path": "data"},
    ],
    ids=["pattern", "list", "folder", "pattern in a folder", "data set"],
)
def test_data_are_found_from_the_definition_on_and_are_all_in_the_digest(
    named: dict[str, object], folder: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    base = tmp_path / folder
    for name, rows in (("train-0", ROWS), ("train-1", ROWS[:2]), ("test-0", ROWS[:1])):
        write_rows(base / "data" / f"{name}.jsonl", rows)
    loader = define(base, **named)
    task, before = loader.get("asked"), loader.files.digest("asked")
    assert (len(task.training_docs()), len(task.eval_docs)) == (5, 1)
    changed = [{**row, "answer": 1} for row in ROWS[:2]]
    file = base / "data" / "train-1.jsonl"
    times = file.stat()
    write_rows(file, changed)  # as many bytes
    os.utime(file, ns=(times.st_atime_ns, times.st_mtime_ns))  # as a copy that keeps the time
    loader = TaskLoader([base])
    assert loader.files.digest("asked") != before
    assert [row["answer"] for row in loader.get("asked").training_docs()] == [0, 0, 0, 1, 1]


def test_a_pattern_may_stand_in_a_folder_with_brackets(tmp_path: Path) -> None:
    for name, rows in (("train-0", ROWS), ("train-1", ROWS[:2]), ("test", ROWS[:1])):
        write_rows(tmp_path / "data v[1]" / f"{name}.jsonl", rows)
    files = {"train": "data v[1]/train-*.jsonl", "test": f"{tmp_path}/data v[1]/t?st.jsonl"}
    task = define(tmp_path, dataset_kwargs={"data_files": files}).get("asked")
    assert (len(task.training_docs()), len(task.eval_docs)) == (5, 1)


def test_a_file_of_the_name_goes_before_the_pattern(tmp_path: Path) -> None:
    write_rows(tmp_path / "a[1].jsonl", ROWS)
    write_rows(tmp_path / "a1.jsonl", ROWS[:1])
    loader = define(tmp_path, dataset_kwargs={"data_files": {"train": "a[1].jsonl", "test": "a1.jsonl"}})
    task = loader.get("asked")
    assert (len(task.training_docs()), len(task.eval_docs)) == (3, 1)


def test_the_digest_of_single_files_is_that_of_before(tmp_path: Path) -> None:
    """Over the definition and the bytes of its files, one after another: ids of trials go by it."""
    for split, file in SINGLE.items():
        write_rows(tmp_path / file, ROWS if split == "train" else ROWS[:1])
    files = define(tmp_path, dataset_kwargs={"data_files": SINGLE}).files
    content = hashlib.sha256(yaml.safe_dump(files.config("asked"), sort_keys=True).encode())
    for file in SINGLE.values():
        content.update((tmp_path / file).read_bytes())
    assert files.digest("asked") == content.hexdigest()[:8]


@pytest.mark.parametrize("path", ["data/none-*.jsonl", "gone.jsonl", "empty_folder"])
def test_a_path_that_names_nothing_is_named(path: str, tmp_path: Path) -> None:
    write_rows(tmp_path / "test.jsonl", ROWS)
    (tmp_path / "empty_folder").mkdir()
    loader = define(tmp_path, dataset_kwargs={"data_files": {"train": path, "test": "test.jsonl"}})
    with pytest.raises(DataError, match=re.escape(f"reads {path!r} (data_files), but no file is there")):
        loader.get("asked")


def test_words_of_a_csv_stay_words(tmp_path: Path) -> None:
    words = ["NA", "null", "None", "nan", "N/A", ""]
    rows = "".join(f"{word},0\n" for word in words)
    for folder in ("plain", "asked"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "rows.csv").write_text(f"sign,answer\nhere,0\n{rows}")
    files = {"data_files": {"train": "rows.csv", "test": "rows.csv"}}
    csv: dict[str, object] = {"dataset_path": "csv", "doc_to_text": "{{sign}}", "doc_to_choice": ["yes", "no"]}
    plain = define(tmp_path / "plain", **csv, dataset_kwargs=files).get("asked")
    assert list(plain.training_docs()["sign"]) == ["here", *words[:-1], None]
    asked = define(tmp_path / "asked", **csv, dataset_kwargs={**files, "keep_default_na": True, "na_values": None})
    assert set(asked.get("asked").training_docs()["sign"]) == {"here", None}


WRONG: dict[str, tuple[dict[str, object], str]] = {
    "metadata": ({"metadata": "words"}, "metadata"),
    "description": ({"description": 3}, "description: must be a text, not 3"),
    "no options": ({"doc_to_choice": None}, "doc_to_choice: is missing; it says what the options are"),
    "unknown key": ({"doc_to_txt": "{{question}}"}, "has the key 'doc_to_txt'.* Did you mean doc_to_text"),
    "column": ({"doc_to_text": "{{qestion}}"}, r"in 1 of 1 items doc_to_text raises UndefinedError .*'qestion' is"),
    "choice column": ({"doc_to_choice": "optons"}, r"doc_to_choice raises"),
    "split": ({"test_split": "dev"}, "names the split 'dev' .test_split., but its data has only train and test"),
    "nothing to score": ({"test_split": None}, "names no test_split and no validation_split"),
    "metric": ({"metric_list": [{"metric": "no_such_metric"}]}, "none of lm-eval's own"),
    "output type": ({"output_type": "guess"}, "does not take its definition"),
    "endless": ({"doc_to_text": "{% for i in range(10**12) %}a{% endfor %}"}, "OverflowError"),
    "template": ({"doc_to_text": "{% if %}"}, "TemplateSyntaxError"),
}


@pytest.mark.parametrize("kind", WRONG)
def test_what_is_wrong_with_a_definition_is_said(kind: str, tmp_path: Path) -> None:
    changes, words = WRONG[kind]
    for split, file in SINGLE.items():
        write_rows(tmp_path / file, ROWS if split == "train" else ROWS[:1])
    with pytest.raises(BenchError, match=words) as refused:
        define(tmp_path, dataset_kwargs={"data_files": SINGLE}, **changes).get("asked")
    assert "fetch" not in str(refused.value)
    assert "asked" in str(refused.value)


def test_rows_that_cannot_be_read_are_no_reason_to_fetch(tmp_path: Path) -> None:
    for split, file in SINGLE.items():
        write_rows(tmp_path / file, ROWS if split == "train" else ROWS[:1])
    (tmp_path / SINGLE["train"]).write_text('{"question": "one?", \n')
    with pytest.raises(DataError, match="has data that cannot be read") as refused:
        define(tmp_path, dataset_kwargs={"data_files": SINGLE}).get("asked")
    assert "fetch" not in str(refused.value)


def test_files_with_unlike_columns_are_told(tmp_path: Path) -> None:
    write_rows(tmp_path / SINGLE["train"], ROWS)
    write_rows(tmp_path / SINGLE["test"], [{**ROWS[0], "note": "odd"}])
    with pytest.raises(DataError, match=r"reads files with unlike columns or kinds of value \(note\)"):
        define(tmp_path, dataset_kwargs={"data_files": SINGLE}).get("asked")


def test_a_data_set_that_is_nowhere_is_to_be_fetched(tmp_path: Path) -> None:
    with pytest.raises(
        DataError, match=r"The data of the task 'asked' cannot be reached: of nobody/nothing, .*mosld-bench fetch"
    ):
        define(tmp_path, dataset_path="nobody/nothing").get("asked")


@pytest.mark.usefixtures("code_allowed")
def test_a_process_docs_that_returns_a_list_is_said(tmp_path: Path) -> None:
    for file in SINGLE.values():
        write_rows(tmp_path / file, ROWS)
    define(tmp_path, dataset_kwargs={"data_files": SINGLE})
    (tmp_path / "helper.py").write_text("def docs(data):\n    return list(data)\n")
    path = tmp_path / "asked.yaml"
    path.write_text(path.read_text().removesuffix("}") + ', "process_docs": !function helper.docs}')
    with pytest.raises(DataError, match="has a process_docs that returns a list; lm-eval needs a Dataset"):
        TaskLoader([tmp_path]).get("asked")
