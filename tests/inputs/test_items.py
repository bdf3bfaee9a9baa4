"""Items of a task: which are trained on, held out and scored."""

from __future__ import annotations

from pathlib import Path

import pytest

from mosld_bench.errors import DataError, ModelError
from mosld_bench.inputs.items import examples, passages, sample, split, training_docs
from mosld_bench.inputs.models import find
from mosld_bench.inputs.tasks import TaskLoader
from mosld_bench.spec.task_files import TaskFiles
from tests.conftest import REPOSITORY

pytestmark = pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::DeprecationWarning")


def test_held_out_items_and_samples_are_fixed(tiny: Path) -> None:
    loader = TaskLoader([tiny / "tasks"])
    task = loader.get("copy")
    found = examples(task)
    assert (found[0].context, found[0].answer) == ("ab0?", " a")
    train, held = split(20, "copy", fraction=0.1, seed=0)
    assert (len(train), len(held)) == (18, 2)
    assert sorted(train + held) == list(range(20))
    assert split(20, "copy", fraction=0.1, seed=0) == (train, held)
    assert split(20, "copy", fraction=0.1, seed=1) != (train, held)
    assert sample(task, None, 0) == list(range(20))
    assert sample(task, 5, 0) == sample(task, 5, 0) != sample(task, 5, 1)


def test_items_of_one_passage_are_held_out_together(tiny: Path) -> None:
    """Two of ten stories with four questions each: none of them is trained on."""
    stories = [i // 4 for i in range(40)]
    train, held = split(40, "copy", fraction=0.2, seed=0, groups=stories)
    assert (len(train), len(held)) == (32, 8)
    assert {stories[i] for i in train}.isdisjoint(stories[i] for i in held)
    assert train == sorted(train)
    assert held != sorted(held)  # so that the first few are a sample of all
    path = tiny / "tasks" / "copy.yaml"
    digest = TaskFiles.scan((tiny / "tasks",)).digest("copy")
    path.write_text(path.read_text().replace("metadata: {", "metadata: {group: question, "))
    task = TaskLoader([tiny / "tasks"]).get("copy")
    assert passages(task, [1, 0]) == [training_docs(task)[i]["question"] for i in (1, 0)]
    files = TaskFiles.scan((tiny / "tasks",))
    assert files.digest("copy") != digest  # other items are trained on
    path.write_text(path.read_text().replace("group: question", "group: story"))
    with pytest.raises(DataError, match=r"groups its items by 'story' .* only the columns id, question"):
        passages(TaskLoader([tiny / "tasks"]).get("copy"))


def test_a_missing_mirror_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="'allenai/openbookqa' of the task 'openbookqa' is not below --data-root"):
        TaskLoader([REPOSITORY / "tasks"], tmp_path).get("openbookqa")


def test_model_folders_are_checked(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"no config\.json"):
        find(str(tmp_path))
    with pytest.raises(ModelError, match="no model folder"):
        find("./nowhere")
    assert find("some/model") == "some/model"
