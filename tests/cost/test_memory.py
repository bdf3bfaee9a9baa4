"""Memory: LLaMA2-7B by hand, the formula of activations against autograd, and the sizes that all of it rests on."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import pytest
import torch
from transformers import LlamaConfig, PreTrainedConfig

from mosld_bench.compat.bitsandbytes import numbers_of, readings
from mosld_bench.cost import Memory, Shape, UnknownShapeError, memory_of
from mosld_bench.cost.memory import memory_over
from mosld_bench.cost.process import process_bytes
from mosld_bench.errors import UnknownNameError
from mosld_bench.inputs import Encoded, load_config
from mosld_bench.methods import base_size, fit_budget, registry
from mosld_bench.spec.recipe import load_recipes
from mosld_bench.spec.trial import Load, ModelSpec, TrainSpec
from mosld_bench.trial import train
from tests.conftest import REPOSITORY
from tests.support.models import VOCABULARY, build, config
from tests.support.rounded import LOADS, needs_bitsandbytes, rounded

RECIPES = load_recipes(REPOSITORY / "methods")
LLAMA2_7B = load_config(ModelSpec(name="NousResearch/Llama-2-7b-hf"))
PARAMETERS_7B = 6_738_415_616
A100 = 80e9


def memory(recipe: str, optimizer: str = "adamw", **changes: Any) -> Memory:
    """Of training ``recipe`` on LLaMA2-7B at its own size."""
    settings = {"epochs": 10, "batch_size": 64, "dtype": "bfloat16", "gradient_checkpointing": True} | changes
    fit = fit_budget(RECIPES[recipe], LLAMA2_7B, "native")
    return memory_of(fit, Shape.of(LLAMA2_7B), TrainSpec(**settings), optimizer=optimizer)


def test_full_fine_tuning_of_7b_by_hand() -> None:
    """13.5 GB base, 27 trained in float32, 27 gradients; 34 h + 8 m bytes a layer and token, twice, and 4 h kept."""
    adafactor = memory("full", optimizer="adafactor")
    assert (adafactor.weights, adafactor.pristine, adafactor.gradients) == tuple(n * PARAMETERS_7B for n in (4, 2, 4))
    layer = (34 * 4096 + 8 * 11008) * 8192
    assert adafactor.activations == 4 * 4096 * 32 * 8192 + 2 * layer
    assert adafactor.logits == 14 * 1024 * 32000
    assert adafactor.total == pytest.approx(76.1e9, abs=0.05e9)
    adamw = memory("full")
    assert adamw.optimizer == 8 * PARAMETERS_7B
    assert adamw.total == 22 * PARAMETERS_7B  # while it steps: 4 + 2 + 4 + 8, and 4 of scratch
    assert adamw.total > A100 > adafactor.total


def test_adapters_on_7b() -> None:
    lora, mosld = memory("lora"), memory("mosld")
    assert lora.weights == 2 * PARAMETERS_7B + 4 * 4_194_304
    assert lora.pristine == 0
    assert lora.total == pytest.approx(18.8e9, abs=0.1e9)
    assert mosld.total - lora.total == pytest.approx(16 * (13_893_632 - 4_194_304), rel=0.01)
    assert memory("lora", gradient_checkpointing=False).total == pytest.approx(57.1e9, abs=0.1e9)
    base = memory("base")
    assert (base.gradients, base.optimizer, base.pristine, base.weights) == (0, 0, 0, 2 * PARAMETERS_7B)


def test_scoring_may_take_more_than_training() -> None:
    """16,384 tokens: half of them have logits of 32,000 words, 10 bytes each, and the head is there in float32."""
    spec = TrainSpec(epochs=10, batch_size=64, dtype="bfloat16", gradient_checkpointing=True, micro_tokens=512)
    fit, shape = fit_budget(RECIPES["lora"], LLAMA2_7B, "native"), Shape.of(LLAMA2_7B)
    whole = memory_of(fit, shape, spec, optimizer="adamw", score_tokens=16384)
    layer = 16384 * (
        24 * 4096 + 6 * 11008
    )  # hidden states, keys and values as wide, and the block, as without training
    assert whole.scoring == 2 * fit.total + 10 * 8192 * 32000 + 4 * 32000 * 4096 + layer
    assert whole.total == whole.scoring > memory_of(fit, shape, spec, optimizer="adamw").total
    assert whole.breakdown() == f"scoring {whole.scoring / 1e9:.0f}"


@pytest.mark.parametrize(
    ("change", "more"),
    [
        ({"items": 100_000}, True),
        ({"lengths": [200.0]}, True),
        ({"score_tokens": 4096}, True),
        ({"text": True}, True),
        ({"lengths": [10_000.0]}, True),
        ({"lengths": []}, True),
        ({"items": 0}, False),
    ],
)
def test_what_a_process_takes_grows_with_what_it_does(change: dict[str, Any], more: bool) -> None:
    small = load_config(ModelSpec(name="HuggingFaceTB/SmolLM2-135M-Instruct"))
    fit, shape = fit_budget(RECIPES["lora"], small, "native"), Shape.of(small)
    spec = TrainSpec(steps=1, batch_size=8, max_length=512)
    usual: dict[str, Any] = {"optimizer": "adamw", "score_tokens": 2048, "items": 1000, "lengths": [20.0]}
    before, after = (process_bytes(fit, shape, spec, **usual | changes) for changes in ({}, change))
    assert (after > before) is more
    assert before > memory_of(fit, shape, spec.model_copy(update={"micro_tokens": 160}), optimizer="adamw").total


def test_a_process_keeps_kernels_where_it_multiplies_in_bfloat16_by_instructions_for_it() -> None:
    """Neither in float32 nor where products of bfloat16 are taken in that; and as many whatever the model's size."""
    for model in (LLAMA2_7B, load_config(ModelSpec(name="HuggingFaceTB/SmolLM2-135M-Instruct"))):
        fit, shape = fit_budget(RECIPES["lora"], model, "native"), Shape.of(model)
        takes = {
            (dtype, there): process_bytes(
                fit, shape, TrainSpec(steps=1, batch_size=8, max_length=512, dtype=dtype),
                optimizer="adamw", score_tokens=2048, items=0, lengths=[], bfloat16=there,
            )
            for dtype in ("bfloat16", "float32")
            for there in (True, False)
        }  # fmt: skip
        assert takes["bfloat16", True] - takes["bfloat16", False] == 1.5e9
        assert takes["float32", True] == takes["float32", False] > takes["bfloat16", False]


@pytest.mark.parametrize("load", LOADS)
@pytest.mark.parametrize("tied", [True, False])
@needs_bitsandbytes
def test_weights_of_a_rounded_model_take_what_is_foretold(load: Load, tied: bool) -> None:
    llama = LlamaConfig(
        hidden_size=128, intermediate_size=256, num_hidden_layers=3, num_attention_heads=4, vocab_size=500,
        tie_word_embeddings=tied, pad_token_id=0,
    )  # fmt: skip
    model = rounded(load, torch.bfloat16, llama)
    held = sum(tensor.nbytes for tensor in (*model.parameters(), *readings(model).values()))
    codes = sum(tensor.nbytes for name, tensor in readings(model).items() if "code" in name)  # alike in all layers
    numbers = sum(map(numbers_of, model.parameters()))
    foretold = Shape.of(llama, load).frozen_bytes(numbers, 2) - 2 * 128 * 256  # one weight as it is computed with
    assert foretold == pytest.approx(held - codes, rel=0.01)
    assert numbers == base_size(llama)


def test_rounded_adapters_on_7b() -> None:
    """QLoRA's figures: 7B in 4 bits take some 3.6 GB, of which 0.26 are two embeddings of 131M in bfloat16."""
    fit = fit_budget(RECIPES["mosld"], LLAMA2_7B, "native")
    spec = TrainSpec(epochs=10, batch_size=64, dtype="bfloat16", gradient_checkpointing=True)
    as_is, nf4, int8 = (memory_of(fit, Shape.of(LLAMA2_7B, load), spec, optimizer="adamw") for load in (None, *LOADS))
    assert nf4.weights - 4 * fit.trainable == pytest.approx(2 * 262e6 + 0.516 * 6.476e9 + 2 * 4096 * 11008, rel=0.01)
    assert int8.weights - nf4.weights == pytest.approx((1 - 0.516) * 6.476e9, rel=0.01)
    assert {each.total - each.weights for each in (as_is, nf4, int8)} == {as_is.total - as_is.weights}


def test_the_parts_of_half_a_gigabyte_and_more_in_words() -> None:
    assert memory("full").breakdown() == (
        "optimiser states 54, weights 27, the optimiser's step 27, gradients 27, the base kept beside them 13"
    )
    assert memory("lora").breakdown() == "weights 13, activations 5"


def test_an_optimiser_of_another_name_is_refused() -> None:
    with pytest.raises(UnknownNameError, match="There is no optimizer named 'sgd'"):
        memory("lora", optimizer="sgd")


def test_checkpointing_keeps_no_copy_of_the_weights() -> None:
    """Autocast's cache would hold all trained weights in bfloat16 until the end of a forward."""
    seen: list[bool] = []

    class Watched(torch.nn.Linear):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            seen.append(torch.is_autocast_cache_enabled())
            return super().forward(x)

    model = build(LlamaConfig(hidden_size=32, intermediate_size=48, num_hidden_layers=1, num_attention_heads=4,
                              vocab_size=60)).requires_grad_(True)  # fmt: skip
    model.get_submodule("lm_head").__class__ = Watched
    items = [Encoded("a", [3, 4, 5], 1)] * 2
    for kept in (False, True):
        spec = TrainSpec(steps=1, batch_size=2, dtype="bfloat16", gradient_checkpointing=kept)
        train.train(
            model, registry.get("full"), examples=items, validation=[], spec=spec, learning_rate=1e-4, seed=0, pad=0
        )
    assert seen == [True, False]


@pytest.mark.parametrize("kind", ["llama", "gpt2", "qwen2", "mistral"])
def test_the_shape_of_a_transformer(kind: str) -> None:
    shape = Shape.of(config(kind))
    assert (shape.hidden, shape.layers, shape.vocabulary) == (32, 4, VOCABULARY)
    assert shape.inner == (128 if kind == "gpt2" else 48)
    assert shape.keys == (32 if kind == "gpt2" else 16)


def test_a_model_without_a_size_is_named() -> None:
    with pytest.raises(UnknownShapeError, match="MambaConfig has no whole number num_attention_heads"):
        Shape.of(config("mamba"))
    lists = SimpleNamespace(hidden_size=32, num_attention_heads=[4, 4], num_hidden_layers=2, vocab_size=10)
    with pytest.raises(UnknownShapeError, match="SimpleNamespace has no whole number num_attention_heads"):
        Shape.of(cast(PreTrainedConfig, lists))


SEVENTY_B = load_config(ModelSpec(name="NousResearch/Llama-2-70b-hf"))


def over(gpus: int, recipe: str = "lora") -> Memory:
    """Of a GPU, of training ``recipe`` on LLaMA2-70B at its own size."""
    fit = fit_budget(RECIPES[recipe], SEVENTY_B, "native")
    spec = TrainSpec(epochs=1, batch_size=64, dtype="bfloat16", gradient_checkpointing=True, micro_tokens=2048)
    return memory_over(gpus, fit, Shape.of(SEVENTY_B), spec, optimizer="adamw")


def test_over_several_gpus_each_has_its_layers_and_the_first_the_rest() -> None:
    """LLaMA2-70B: 80 layers of 855,654,400 parameters, embeddings and head of 262,144,000 each."""
    layer, rest, lora = 855_654_400, 2 * 262_144_000 + 8192, 16_384_000
    assert over(1).weights == 2 * (80 * layer + rest) + 4 * lora
    assert over(2).weights == pytest.approx(2 * (40 * layer + rest) + 4 * lora / 2, rel=1e-6)
    assert over(3).weights == pytest.approx(2 * 27 * layer + 4 * lora * 27 / 80, rel=1e-6)  # of a later one
    assert (over(2).logits, over(3).logits) == (14 * 256 * 32000, 0)
    assert over(1).total > 138e9
    assert 40e9 < over(3).total < over(2).total < A100
    assert over(80).total < 5e9


def test_what_trains_whole_has_its_states_where_its_layers_are() -> None:
    whole, half = over(1, "full"), over(2, "full")
    for part in ("weights", "pristine", "gradients", "optimizer"):
        assert getattr(half, part) == pytest.approx(getattr(whole, part) / 2, rel=0.02), part
