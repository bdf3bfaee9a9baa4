"""The embedded items: what ships is what the generator makes, and it keeps its promises."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest
import yaml

from mosld_bench.embedded import items, world
from tests.embedded.shipped import SPLITS, shipped

IN_DOMAIN = [name for name, task in items.TASKS.items() if task.train]
KNOWLEDGE = ["emb_tools", "emb_foods", "emb_animals", "emb_world"]
TASK_DIR = items.DATA_DIR.parent


def key(row: items.Row) -> tuple[str, str, frozenset[str]]:
    """What makes two items the same."""
    return row["story"], row["question"], frozenset(row["choices"])


@pytest.mark.parametrize(("name", "split"), SPLITS)
def test_items_are_what_the_generator_makes(name: str, split: str) -> None:
    assert shipped(name, split) == items.rows(name, split)


@pytest.mark.parametrize(("name", "split"), SPLITS)
def test_items_are_sound(name: str, split: str) -> None:
    rows, task = shipped(name, split), items.TASKS[name]
    assert len(rows) == (task.train if split == "train" else task.test)
    assert len({row["id"] for row in rows}) == len({key(row) for row in rows}) == len(rows)
    assert all(len(set(row["choices"])) == task.options for row in rows)
    positions = Counter(row["answer"] for row in rows)
    assert set(positions) == set(range(task.options))
    assert max(positions.values()) - min(positions.values()) <= 1


@pytest.mark.parametrize("name", items.TASKS)
def test_the_definition_tells_the_size_of_what_ships(name: str) -> None:
    """Of which `plan` makes hours; tokens are the nearest whole number."""
    from transformers import AutoTokenizer

    from mosld_bench.embedded import MODEL_DIR

    told = yaml.safe_load((TASK_DIR / f"{name}.yaml").read_text(encoding="utf-8"))["metadata"]["size"]
    task, tokenizer = items.TASKS[name], AutoTokenizer.from_pretrained(MODEL_DIR)
    assert (told["train"], told["test"]) == (task.train, task.test)
    rows = shipped(name, "train" if task.train else "test")
    texts = [f"{row['story']} Question: {row['question']} Answer: {row['choices'][row['answer']]}" for row in rows]
    mean = sum(map(len, tokenizer(texts)["input_ids"])) / len(texts)
    assert told["tokens"] == pytest.approx(mean, abs=2)


@pytest.mark.parametrize("name", IN_DOMAIN)
def test_train_and_test_share_no_item(name: str) -> None:
    assert not {key(row) for row in shipped(name, "train")} & {key(row) for row in shipped(name, "test")}


@pytest.mark.parametrize("name", KNOWLEDGE)
def test_knowledge_tasks_share_no_entity(name: str) -> None:
    assert not {row["entity"] for row in shipped(name, "train")} & {row["entity"] for row in shipped(name, "test")}


def test_a_country_stays_with_its_capital() -> None:
    train = " ".join(row["question"] for row in shipped("emb_world", "train")).lower()
    for country in world.members("countries", "test"):
        assert country not in train
        assert world.COUNTRIES[country]["capital"] not in train


def test_stories_are_not_shared() -> None:
    for name in ("emb_story", "emb_trip"):
        assert not {row["story"] for row in shipped(name, "train")} & {row["story"] for row in shipped(name, "test")}


def test_task_files_fit_the_data() -> None:
    for name, task in items.TASKS.items():
        config = yaml.safe_load((TASK_DIR / f"{name}.yaml").read_text())
        assert config["task"] == name
        assert config["include"] == "_embedded.yaml"
        assert config.get("training_split") == ("train" if task.train else None)
        files = config["dataset_kwargs"]["data_files"]
        assert set(files) == ({"train", "test"} if task.train else {"test"})
        assert all((TASK_DIR / path).exists() for path in files.values())


def test_every_split_is_written_as_it_ships(tmp_path: Path) -> None:
    paths = items.write(tmp_path)
    assert [path.name for path in paths] == [f"{name}_{split}.parquet" for name, split in SPLITS]
