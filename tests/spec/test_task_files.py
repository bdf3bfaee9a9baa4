"""Task files: includes, folders that define the same task, digests, and who can be trained on."""

from __future__ import annotations

from importlib.metadata import version
from pathlib import Path

import pytest

from mosld_bench.errors import BadFileError, DataError
from mosld_bench.spec.task_files import TaskFiles
from tests.conftest import write_task


def test_task_files_follow_includes_and_the_later_folder_wins(tmp_path: Path) -> None:
    write_task(tmp_path / "a", "copy", [{"x": 1}])
    write_task(tmp_path / "b", "copy", [{"x": 2}])
    (tmp_path / "a" / "child.yaml").write_text("include: copy.yaml\ntask: child\ndoc_to_text: !function helper.text\n")
    files = TaskFiles.scan((tmp_path / "a", tmp_path / "b"))
    assert files.paths["copy"].parent.name == "b"
    child = files.config("child")
    assert child is not None
    assert (child["task"], child["training_split"], child["doc_to_text"]) == (
        "child",
        "train",
        "!function helper.text",
    )
    before = files.digest("child")
    (tmp_path / "a" / "helper.py").write_text("def text(doc): return doc['x']\n")
    assert files.digest("child") != before
    assert files.digest("hellaswag") == f"lm-eval {version('lm-eval')}"


def test_a_digest_follows_the_data_and_not_the_title(tmp_path: Path) -> None:
    write_task(tmp_path, "copy", [{"x": 1}])
    files = TaskFiles.scan((tmp_path,))
    before = files.digest("copy")
    path = tmp_path / "copy.yaml"
    path.write_text(path.read_text().replace("title: Toy copy", "title: Another"))
    assert files.digest("copy") == before
    (tmp_path / "copy.jsonl").write_text('{"x": 2}\n')
    assert files.digest("copy") != before


def test_files_that_cannot_be_used_are_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="gone is not a folder"):
        TaskFiles.scan((tmp_path / "gone",))
    write_task(tmp_path / "a", "copy", [{"x": 1}], trains=False)
    files = TaskFiles.scan((tmp_path / "a",))
    assert files.config("hellaswag") is None
    with pytest.raises(DataError, match=r"'copy' .* has no training_split"):
        files.check_trainable("copy")
    files.check_trainable("hellaswag")  # of lm-eval's own tasks the files tell nothing
    (tmp_path / "a" / "child.yaml").write_text("include: gone.yaml\ntask: child\n")
    with pytest.raises(BadFileError, match=r"gone\.yaml is included by a task definition but does not exist"):
        TaskFiles.scan((tmp_path / "a",)).config("child")
    (tmp_path / "a" / "child.yaml").write_text("task: copy\n")
    with pytest.raises(DataError, match=r"child\.yaml and .*copy\.yaml both define the task 'copy'"):
        TaskFiles.scan((tmp_path / "a",))
