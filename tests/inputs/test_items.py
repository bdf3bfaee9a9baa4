"""Items of a task: which are trained on, held out and scored, and their token ids."""

from __future__ import annotations

from pathlib import Path

import pytest
from transformers import AutoTokenizer

from mosld_bench.embedded import MODEL_DIR
from mosld_bench.errors import DataError
from mosld_bench.inputs.items import (
    draw,
    encode,
    examples,
    passages,
    sample,
    split,
    training_docs,
)
from mosld_bench.inputs.tasks import TaskLoader
from mosld_bench.spec.task_files import TaskFiles
from mosld_bench.spec.trial import TrainSpec
from tests.conftest import REPOSITORY
from tests.support.miniature import ITEMS
from tests.support.models import tokenizer

pytestmark = pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::DeprecationWarning")


def test_held_out_items_and_samples_are_fixed(tiny: Path) -> None:
    loader = TaskLoader([tiny / "tasks"])
    task = loader.get("copy")
    first = examples(task)[0]
    assert (first.context, first.answer) == ("ab0?", " a")
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


def test_a_larger_draw_holds_the_smaller(tiny: Path) -> None:
    task = TaskLoader([tiny / "tasks"]).get("copy")
    three, seven = draw(task, 3, 0), draw(task, 7, 0)
    assert three is not None
    assert seven is not None
    assert set(three) < set(seven)
    assert (three, seven) == (sorted(three), sorted(seven))
    assert draw(task, 3, 1) != three
    assert draw(task, 20, 0) is draw(task, None, 0) is None


def test_generated_answers_are_trained_with_an_end_and_options_without(miniature: Path) -> None:
    loader, words = TaskLoader([REPOSITORY / "tasks"], miniature), AutoTokenizer.from_pretrained(MODEL_DIR)
    spec = TrainSpec(steps=1, max_length=256)
    for name, ends in (("gsm8k", True), ("dialogsum", True), ("openorca", True), ("race_letters", False)):
        items = encode(loader.get(name), words, spec, None)
        assert len(items) == ITEMS
        assert all((item.ids[-1] == words.eos_token_id) == ends for item in items), name
    assert {item.answer for item in items} == {len(words(" A")["input_ids"])}


def test_a_long_item_loses_the_beginning_of_its_prompt(tiny: Path) -> None:
    """Questions such as ab0? with the answer " a", cut to 5 tokens (a study allows 9 at least)."""
    task = TaskLoader([tiny / "tasks"]).get("copy")
    whole = encode(task, tokenizer(), TrainSpec(steps=1, max_length=64), None)
    cut = encode(task, tokenizer(), TrainSpec.model_construct(max_length=5, split_seed=0), None)
    assert [item.ids for item in cut] == [item.ids[-5:] for item in whole]
    assert [item.answer for item in cut] == [item.answer for item in whole] == [2] * len(whole)
