"""The embedded model: its words are the tasks', it is what its provenance says, and it can be made again."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedTokenizerFast

from mosld_bench.embedded import MODEL_DIR, pretrain, text
from tests.embedded.shipped import SPLITS, prompt, shipped

PARAMETERS = 903_936


@pytest.fixture(scope="module")
def tokenizer() -> PreTrainedTokenizerFast:
    made = AutoTokenizer.from_pretrained(MODEL_DIR)
    assert isinstance(made, PreTrainedTokenizerFast)
    return made


def test_every_word_is_known_and_was_seen_in_pretraining(tokenizer: PreTrainedTokenizerFast) -> None:
    stream = text.documents(pretrain.SEED)
    seen = {word for _ in range(40_000) for word in next(stream).split()} | {"question", "answer", ":"}
    for name, split in SPLITS:
        for row in shipped(name, split):
            tokens = tokenizer.convert_ids_to_tokens(
                tokenizer(f"{prompt(row)} {' '.join(row['choices'])}")["input_ids"]
            )
            assert "<unk>" not in tokens
            assert set(tokens) <= seen, (row["id"], set(tokens) - seen)


def test_texts_can_be_joined_at_spaces(tokenizer: PreTrainedTokenizerFast) -> None:
    for name, split in SPLITS:
        for row in shipped(name, split)[:20]:
            context = prompt(row)
            for choice in row["choices"]:
                parts = tokenizer(context)["input_ids"] + tokenizer(f" {choice}")["input_ids"]
                assert tokenizer(f"{context} {choice}")["input_ids"] == parts
    assert None not in (tokenizer.eos_token_id, tokenizer.pad_token_id, tokenizer.unk_token_id)


def test_some_answers_have_several_tokens(tokenizer: PreTrainedTokenizerFast) -> None:
    for name in ("emb_tools", "emb_animals", "emb_story", "emb_materials"):
        assert (
            max(len(tokenizer(choice)["input_ids"]) for row in shipped(name, "test") for choice in row["choices"]) > 1
        )


def test_the_shipped_model() -> None:
    provenance = json.loads((MODEL_DIR / "provenance.json").read_text())
    assert hashlib.sha256((MODEL_DIR / "model.safetensors").read_bytes()).hexdigest() == provenance["sha256"]
    assert sum(path.stat().st_size for path in MODEL_DIR.iterdir()) < 5_000_000
    model = AutoModelForCausalLM.from_pretrained(MODEL_DIR, dtype=torch.float32)
    assert model.num_parameters() == provenance["parameters"] == PARAMETERS
    attention = model.model.layers[0].self_attn
    assert attention.v_proj.weight.shape == (64, 128)
    assert attention.q_proj.weight.dtype == torch.float32


def test_pretraining_runs_end_to_end(tmp_path: Path) -> None:
    loss = pretrain.pretrain(tmp_path, steps=3, documents=8)
    assert 0 < loss < 20
    assert json.loads((tmp_path / "provenance.json").read_text())["steps"] == 3
    model = AutoModelForCausalLM.from_pretrained(tmp_path)
    assert len(AutoTokenizer.from_pretrained(tmp_path)) == model.config.vocab_size


def test_the_learning_rate_rises_in_a_line_and_falls_in_half_a_cosine() -> None:
    rates = [pretrain.rate(step, 1000) for step in range(1000)]
    peak = rates.index(max(rates))
    assert peak == pretrain.WARMUP_STEPS - 1
    assert rates[peak] == pretrain.PEAK_RATE
    assert rates[: peak + 1] == sorted(rates[: peak + 1])
    assert rates[peak:] == sorted(rates[peak:], reverse=True)
    assert pretrain.rate(1000, 1000) == pytest.approx(pretrain.FINAL_RATE)


@pytest.mark.slow
def test_pre_training_again_gives_the_same_model_and_learns(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Beyond the warm-up, here a short one, with documents as many as a step of the shipped model has."""
    monkeypatch.setattr(pretrain, "WARMUP_STEPS", 20)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        losses = [pretrain.pretrain(tmp_path / name, steps=60) for name in ("first", "second")]
    finally:
        torch.set_num_threads(threads)
    first, second = (json.loads((tmp_path / name / "provenance.json").read_text()) for name in ("first", "second"))
    assert first["sha256"] == second["sha256"]
    assert (first["tokens"], first["parameters"]) == (second["tokens"], PARAMETERS)
    assert losses[0] == losses[1] < 4.5  # the mean of all steps, 3.9; a guess among 909 words costs 6.8
