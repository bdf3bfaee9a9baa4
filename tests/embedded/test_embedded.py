"""The embedded model and tasks: what ships is what the generators make, and it keeps its promises."""

import hashlib
import json
from collections import Counter
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import torch
import yaml
from transformers import AutoModelForCausalLM, AutoTokenizer

from mosld_bench.embedded import MODEL_DIR, items, pretrain, text, world

IN_DOMAIN = [name for name, task in items.TASKS.items() if task.train]
KNOWLEDGE = ["emb_tools", "emb_foods", "emb_animals", "emb_world"]
SPLITS = [
    (name, split) for name, task in items.TASKS.items() for split in ("train", "test") if task.train or split == "test"
]
TASK_DIR = items.DATA_DIR.parent
PARAMETERS = 903936


def shipped(name: str, split: str) -> list[items.Row]:
    return pq.read_table(items.DATA_DIR / f"{name}_{split}.parquet").to_pylist()


def prompt(row: items.Row) -> str:
    story = f"{row['story']}\n" if row["story"] else ""
    return f"{story}Question: {row['question']}\nAnswer:"


def key(row: items.Row) -> tuple[object, ...]:
    return row["story"], row["question"], frozenset(row["choices"])


@pytest.fixture(scope="module")
def tokenizer():
    return AutoTokenizer.from_pretrained(MODEL_DIR)


@pytest.mark.parametrize(("name", "split"), SPLITS)
def test_items_are_what_the_generator_makes(name, split):
    assert shipped(name, split) == items.rows(name, split)


@pytest.mark.parametrize(("name", "split"), SPLITS)
def test_items_are_sound(name, split):
    rows, task = shipped(name, split), items.TASKS[name]
    assert len(rows) == (task.train if split == "train" else task.test)
    assert len({row["id"] for row in rows}) == len({key(row) for row in rows}) == len(rows)
    assert all(len(set(row["choices"])) == task.options for row in rows)
    positions = Counter(row["answer"] for row in rows)
    assert set(positions) == set(range(task.options))
    assert max(positions.values()) - min(positions.values()) <= 1


@pytest.mark.parametrize("name", IN_DOMAIN)
def test_train_and_test_share_no_item(name):
    assert not {key(row) for row in shipped(name, "train")} & {key(row) for row in shipped(name, "test")}


@pytest.mark.parametrize("name", KNOWLEDGE)
def test_knowledge_tasks_share_no_entity(name):
    assert not {row["entity"] for row in shipped(name, "train")} & {row["entity"] for row in shipped(name, "test")}


def test_a_country_stays_with_its_capital():
    train = " ".join(row["question"] for row in shipped("emb_world", "train")).lower()
    for country in world.members("countries", "test"):
        assert country not in train
        assert world.COUNTRIES[country]["capital"] not in train


def test_stories_are_not_shared():
    for name in ("emb_story", "emb_trip"):
        assert not {row["story"] for row in shipped(name, "train")} & {row["story"] for row in shipped(name, "test")}


def test_task_files_fit_the_data():
    for name, task in items.TASKS.items():
        config = yaml.safe_load((TASK_DIR / f"{name}.yaml").read_text())
        assert config["task"] == name
        assert config["include"] == "_embedded.yaml"
        assert config.get("training_split") == ("train" if task.train else None)
        files = config["dataset_kwargs"]["data_files"]
        assert set(files) == ({"train", "test"} if task.train else {"test"})
        assert all((TASK_DIR / path).exists() for path in files.values())


def test_every_word_is_known_and_was_seen_in_pretraining(tokenizer):
    stream = text.documents(pretrain.SEED)
    seen = {word for _ in range(40_000) for word in next(stream).split()} | {"question", "answer", ":"}
    for name, split in SPLITS:
        for row in shipped(name, split):
            tokens = tokenizer.convert_ids_to_tokens(
                tokenizer(f"{prompt(row)} {' '.join(row['choices'])}")["input_ids"]
            )
            assert "<unk>" not in tokens
            assert set(tokens) <= seen, (row["id"], set(tokens) - seen)


def test_texts_can_be_joined_at_spaces(tokenizer):
    for name, split in SPLITS:
        for row in shipped(name, split)[:20]:
            context = prompt(row)
            for choice in row["choices"]:
                parts = tokenizer(context)["input_ids"] + tokenizer(f" {choice}")["input_ids"]
                assert tokenizer(f"{context} {choice}")["input_ids"] == parts
    assert None not in (tokenizer.eos_token_id, tokenizer.pad_token_id, tokenizer.unk_token_id)


def test_some_answers_have_several_tokens(tokenizer):
    for name in ("emb_tools", "emb_animals", "emb_story", "emb_materials"):
        assert (
            max(len(tokenizer(choice)["input_ids"]) for row in shipped(name, "test") for choice in row["choices"]) > 1
        )


def test_the_shipped_model():
    provenance = json.loads((MODEL_DIR / "provenance.json").read_text())
    assert hashlib.sha256((MODEL_DIR / "model.safetensors").read_bytes()).hexdigest() == provenance["sha256"]
    assert sum(path.stat().st_size for path in MODEL_DIR.iterdir()) < 5_000_000
    model = AutoModelForCausalLM.from_pretrained(MODEL_DIR, dtype=torch.float32)
    assert model.num_parameters() == provenance["parameters"] == PARAMETERS
    attention = model.model.layers[0].self_attn
    assert attention.v_proj.weight.shape == (64, 128)
    assert attention.q_proj.weight.dtype == torch.float32


def test_pretraining_runs_end_to_end(tmp_path: Path):
    loss = pretrain.pretrain(tmp_path, steps=3, documents=8)
    assert 0 < loss < 20
    assert json.loads((tmp_path / "provenance.json").read_text())["steps"] == 3
    model = AutoModelForCausalLM.from_pretrained(tmp_path)
    assert len(AutoTokenizer.from_pretrained(tmp_path)) == model.config.vocab_size
