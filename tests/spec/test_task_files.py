"""Task files: includes, folders that define the same task, digests, and who can be trained on."""

from __future__ import annotations

import hashlib
import json
import re
from importlib.metadata import version
from pathlib import Path

import pytest
import yaml

from mosld_bench.errors import BadFileError, DataError
from mosld_bench.spec.task_files import TaskFiles
from tests.conftest import REPOSITORY, write_task


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
    assert files.digest("hellaswag") == f"lm-eval {version('lm-eval')}, wording 2"


def test_python_beside_a_definition_is_regular_files_alone(tmp_path: Path) -> None:
    """An editor locks what it edits by a link to nothing of nearly the same name."""
    write_task(tmp_path, "copy", [{"x": 1}])
    (tmp_path / "child.yaml").write_text("include: copy.yaml\ntask: child\ndoc_to_text: !function helper.text\n")
    (tmp_path / "helper.py").write_text("def text(doc): return doc['x']\n")
    files = TaskFiles.scan((tmp_path,))
    before = files.digest("child"), files.files_of("child")
    (tmp_path / ".#helper.py").symlink_to("somebody@machine.4711:1790000000")
    (tmp_path / "folder.py").mkdir()
    assert (files.digest("child"), files.files_of("child")) == before


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
    with pytest.raises(BadFileError, match=r"child\.yaml and .*copy\.yaml both define the task 'copy'"):
        TaskFiles.scan((tmp_path / "a",)).config("copy")


def test_a_file_that_cannot_be_read_stops_what_asks_for_its_task_alone(tmp_path: Path) -> None:
    """It takes the place of a file of an earlier folder; one of a later folder takes its own."""
    for folder in ("a", "b"):
        write_task(tmp_path / folder, "good", [{"x": 1}])
    write_task(tmp_path / "a", "copy", [{"x": 1}])
    (tmp_path / "b" / "copy.yaml").write_text("task: 'copy'\n bad: [\n")
    (tmp_path / "b" / "torn.yaml").write_bytes(b"\xff\xfe: [")
    (tmp_path / "b" / "spaced.yaml").write_text("task: ' spaced'\n")
    files = TaskFiles.scan((tmp_path / "a", tmp_path / "b"))
    assert set(files.paths) == {"good"}
    assert {file.path.name: file.task for file in files.unreadable} == {
        "copy.yaml": "copy", "torn.yaml": None, "spaced.yaml": " spaced"
    }  # fmt: skip
    assert (files.config("good") or {})["task"] == "good"
    for ask in (files.config, files.digest, files.check_trainable, files.check_named):
        with pytest.raises(BadFileError, match=r"The task 'copy' cannot be used: .*copy\.yaml is not YAML"):
            ask("copy")
    assert set(TaskFiles.scan((tmp_path / "b", tmp_path / "a")).paths) == {"good", "copy"}
    assert TaskFiles.scan((tmp_path / "b", tmp_path / "a")).config("copy") is not None


def test_every_task_of_ours_can_be_read() -> None:
    assert TaskFiles.scan((REPOSITORY / "tasks",)).unreadable == ()


def test_a_definition_says_what_version_1_2_of_yaml_says(tmp_path: Path) -> None:
    write_task(tmp_path, "copy", [{"x": 1}])
    (tmp_path / "child.yaml").write_text(
        "include: copy.yaml\ntask: child\ndoc_to_choice: [yes, no, on]\ngeneration_kwargs: {temperature: 1e-3}\n"
        "num_fewshot: 010\n"
    )
    child = TaskFiles.scan((tmp_path,)).config("child")
    assert child is not None
    assert child["doc_to_choice"] == ["yes", "no", "on"]
    assert (child["generation_kwargs"]["temperature"], child["num_fewshot"]) == (0.001, 10)


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("doc_to_target: a\ndoc_to_target: b", r"line \d+, doc_to_target: the key 'doc_to_target' stands twice"),
        ("metric_list: [{metric: acc, higher_is_better: no}]", r"higher_is_better: takes true or false; .* word 'no'"),
        ("generation_kwargs: {do_sample: 'off'}", r"do_sample: takes true or false"),
        ("x: !!set {a}", r"x: the tag !!set is not read"),
        ("task: &a [*a]", r"\*a stands within"),
    ],
)
def test_a_definition_that_is_read_in_two_ways_is_refused(text: str, problem: str, tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text(f"task: mine\n{text}\n" if "task" not in text else text)
    (unreadable,) = TaskFiles.scan((tmp_path,)).unreadable
    assert re.search(rf"mine\.yaml, {problem}|mine\.yaml, line \d.*{problem}", unreadable.reason)


@pytest.mark.parametrize(
    ("include", "problem"),
    [
        ("folder", r"folder is a folder"),
        ("mine.yaml", r"mine\.yaml includes mine\.yaml, which includes it in turn, or is the file itself"),
        ("./../here/mine.yaml", r"includes it in turn, or is the file itself"),
        ("back.yaml", r"back\.yaml includes mine\.yaml, which includes it in turn"),
        ("[back.yaml]", r"back\.yaml includes mine\.yaml, which includes it in turn"),
        ("gone.yaml", r"gone\.yaml is included by a task definition but does not exist \(.*mine\.yaml\)"),
        ("x" * 5000, r"is included by a task definition but does not exist"),
        ("{a: b}", r"mine\.yaml, include: takes a file or a list of files"),
        ("[1]", r"mine\.yaml, include: takes a file or a list of files"),
        ("wide0.yaml", r"more than 100 files by its includes"),
        ("metadata.yaml", r"metadata: must be a mapping"),
    ],
)
def test_includes_come_to_an_end(include: str, problem: str, tmp_path: Path) -> None:
    folder = tmp_path / "here"
    (folder / "folder").mkdir(parents=True)
    (folder / "back.yaml").write_text("include: mine.yaml\n")
    (folder / "metadata.yaml").write_text("metadata: a text\n")
    for level in range(20):  # two to the power of twenty reads
        (folder / f"wide{level}.yaml").write_text(f"include: [wide{level + 1}.yaml, wide{level + 1}.yaml]\n")
    (folder / "wide20.yaml").write_text("a: 1\n")
    (folder / "mine.yaml").write_text(f"task: mine\ninclude: {include}\n")
    files = TaskFiles.scan((folder,))
    for ask in (files.config, files.digest):
        with pytest.raises(BadFileError, match=problem):
            ask("mine")


def test_several_files_are_included_in_their_order(tmp_path: Path) -> None:
    for name, text in (("a", "x: 1\ny: 1"), ("b", "y: 2\nz: 2\ntask_list: [1]"), ("c", "include: [a.yaml, b.yaml]")):
        (tmp_path / f"{name}.yaml").write_text(f"{text}\n")
    (tmp_path / "mine.yaml").write_text("include: c.yaml\ntask: mine\nz: 3\n")
    assert TaskFiles.scan((tmp_path,)).config("mine") == {"x": 1, "y": 2, "z": 3, "task": "mine"}


def test_copies_that_an_editor_left_are_no_tasks(tmp_path: Path) -> None:
    write_task(tmp_path, "copy", [{"x": 1}])
    write_task(tmp_path / ".ipynb_checkpoints", "copy", [{"x": 1}])
    assert TaskFiles.scan((tmp_path,)).paths == {"copy": tmp_path / "copy.yaml"}


@pytest.mark.parametrize(
    "more",
    [
        {"gen_prefix": "It is"},
        {"num_fewshot": 2},
        {"description": "About {{topic}}."},
        {"description": "topic"},
        {"output_type": "loglikelihood"},
        {"dataset_path": "csv"},
    ],
)
def test_what_is_worded_otherwise_than_before_has_another_digest(more: dict[str, object], tmp_path: Path) -> None:
    """A record of the former text is not taken for one of the new; of all other definitions the digest is as it was."""
    plain: dict[str, object] = {"task": "asked", "dataset_path": "json", "description": "Answer in one word."}
    for content, same in ((plain, True), (plain | more, False)):
        (tmp_path / "asked.yaml").write_text(json.dumps(content))
        before = hashlib.sha256(yaml.safe_dump(content, sort_keys=True).encode()).hexdigest()[:8]
        assert (TaskFiles.scan((tmp_path,)).digest("asked") == before) == same
