"""Shapes of known models: planning counts without network; weights and tokenizers never come from a shape."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from mosld_bench.errors import ModelError
from mosld_bench.inputs.models import ensure_weights, find, load_base, load_config, load_tokenizer
from mosld_bench.methods import base_size, fit_budget
from mosld_bench.spec.recipe import load_recipes
from mosld_bench.spec.trial import ModelSpec
from tests.conftest import REPOSITORY

RECIPES = load_recipes(REPOSITORY / "methods")
LLAMA2_7B = ModelSpec(name="NousResearch/Llama-2-7b-hf")


@pytest.fixture(autouse=True)
def no_hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither network nor what this machine has fetched before."""
    monkeypatch.setenv("MOSLD_BENCH_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))


@pytest.mark.parametrize(
    ("name", "size"),
    [
        ("NousResearch/Llama-2-7b-hf", 6_738_415_616),
        ("NousResearch/Llama-2-13b-hf", 13_015_864_320),
        ("huggyllama/llama-30b", 32_528_943_616),
        ("HuggingFaceTB/SmolLM2-135M-Instruct", 134_515_008),
    ],
)
def test_sizes_of_the_known_models(name: str, size: int) -> None:
    assert base_size(load_config(ModelSpec(name=name))) == size


@pytest.mark.parametrize(("recipe", "count"), [("lora", 4_194_304), ("mola", 22_282_240), ("mosld", 13_893_632)])
def test_the_papers_counts_by_the_models_name(recipe: str, count: int) -> None:
    fit = fit_budget(RECIPES[recipe], load_config(LLAMA2_7B), "native")
    assert (fit.trainable, fit.total - fit.trainable) == (count, 6_738_415_616)


def test_a_local_folder_is_believed_before_the_shape(tmp_path: Path) -> None:
    folder = tmp_path / LLAMA2_7B.name
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps({"model_type": "llama", "num_hidden_layers": 3}))
    (folder / "model.safetensors").write_text("")
    assert load_config(LLAMA2_7B, tmp_path).num_hidden_layers == 3
    assert load_config(LLAMA2_7B).num_hidden_layers == 32


@pytest.mark.parametrize(
    "load",
    [load_tokenizer, ensure_weights, lambda spec: load_base(spec, torch.float32, "cpu")],
    ids=["tokenizer", "ensure", "base"],
)
def test_weights_and_tokenizer_never_come_from_a_shape(load: Callable[[ModelSpec], Any]) -> None:
    with pytest.raises(
        ModelError, match=r"fetch --model NousResearch/Llama-2-7b-hf --to DIR' .* give --model-root DIR"
    ):
        load(LLAMA2_7B)


def test_model_folders_are_checked(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"no config\.json"):
        find(str(tmp_path))
    with pytest.raises(ModelError, match="no model folder"):
        find("./nowhere")
    assert find("some/model") == "some/model"


@pytest.mark.parametrize("name", ["a b", "a/b/c", "x" * 97, "x" * 5000, "a\nb", "a:b", "a\0b"])
def test_what_is_neither_a_folder_nor_a_hub_id_is_said(name: str) -> None:
    with pytest.raises(ModelError, match=r"neither a folder, nor a hub id|cannot be looked for") as error:
        find(name)
    assert len(str(error.value)) < 400


@pytest.mark.parametrize(
    "change", [{"num_hidden_layers": 10**6}, {"num_hidden_layers": -1}, {"vocab_size": 10**12}, {"hidden_size": 0}]
)
def test_a_configuration_that_no_model_has_is_refused(change: dict[str, int], tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "llama", **change}))
    (key,) = change
    with pytest.raises(ModelError, match=rf"{key}: {change[key]}; 1 to "):
        load_config(ModelSpec(name=str(tmp_path)))
