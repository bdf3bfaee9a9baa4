"""Names and patterns that match no module are refused before anything runs, whatever the tuner."""

from __future__ import annotations

from typing import Any

import pytest
from transformers import GPT2Config, GPTNeoXConfig

from mosld_bench.errors import BenchError
from mosld_bench.methods import registry
from tests.support.models import build, config

pytestmark = pytest.mark.filterwarnings("ignore:The following .* keys did not match", "ignore:You have passed exclude")

SHAPE = config(layers=2)
LORA = {"peft_type": "LORA", "r": 2, "target_modules": ["q_proj", "v_proj"]}
MIXTURE = {"r": 2, "experts": 2, "target_modules": ["q_proj", "v_proj"]}
MIXLORA = {"r": 2, "experts": 2, "target_modules": ["q_proj"], "ffn_modules": ["mlp"]}
METHODS = {"peft": LORA, "mixture": MIXTURE, "mixlora": MIXLORA}

#: A setting with one entry that does nothing, and what is said of it.
IDLE: list[tuple[dict[str, Any], str]] = [
    ({"rank_pattern": {"^q_proj": 4}}, r"'\^q_proj' of rank_pattern matches no module with an adapter"),
    ({"rank_pattern": {"layers.9.self_attn.q_proj": 4}}, "'layers.9.self_attn.q_proj' of rank_pattern matches no"),
    ({"rank_pattern": {"q_proj": 4, "k_proj": 4}}, "'k_proj' of rank_pattern matches no module"),
    ({"alpha_pattern": {"up_proj": 4}}, "'up_proj' of alpha_pattern matches no module"),
    ({"rank_pattern": {"q_proj": 4, "layers.0.self_attn.q_proj": 3}},
     "'layers.0.self_attn.q_proj' of rank_pattern matches only modules that 'q_proj' before it decides for"),
    ({"target_modules": ["q_proj", "query"]}, "'query' of target_modules matches no module"),
    ({"exclude_modules": ["layers.0.self_attn.q_proj", "k_proj"]}, "'k_proj' of exclude_modules leaves out no"),
]  # fmt: skip


@pytest.mark.parametrize(("settings", "finding"), IDLE)
@pytest.mark.parametrize("method", METHODS)
def test_a_name_or_pattern_that_would_do_nothing_is_refused(
    method: str, settings: dict[str, Any], finding: str
) -> None:
    with pytest.raises(BenchError, match=finding):
        registry.get(method).attach(build(SHAPE), METHODS[method] | settings)


@pytest.mark.parametrize(
    ("settings", "finding"),
    [
        ({"layers_to_transform": [0, 7]}, "7 of layers_to_transform is no layer"),
        ({"layers_to_transform": [1], "layers_pattern": ["layers", "h"]}, "'h' of layers_pattern is the name of no"),
        ({"modules_to_save": ["lm_head", "score"]}, "'score' of modules_to_save matches no module"),
    ],
)
def test_layers_and_modules_to_save_are_held_to_the_same(settings: dict[str, Any], finding: str) -> None:
    with pytest.raises(BenchError, match=finding):
        registry.get("peft").attach(build(SHAPE), LORA | settings)


def test_a_feed_forward_block_that_is_not_there_is_refused_beside_one_that_is() -> None:
    with pytest.raises(BenchError, match="'moe' of ffn_modules matches no module"):
        registry.get("mixlora").attach(build(SHAPE), MIXLORA | {"ffn_modules": ["mlp", "moe"]})


def test_the_message_shows_how_modules_are_named() -> None:
    with pytest.raises(BenchError, match=r"named as in model\.layers\.0\.self_attn\.q_proj, .*\.v_proj\.$"):
        registry.get("peft").attach(build(SHAPE), LORA | {"alpha_pattern": {"layer.0": 3}})


@pytest.mark.parametrize(("peft_type", "settings", "field"), [
    ("FOURIERFT", {"n_frequency": 8, "n_frequency_pattern": {"q_proj": 16}}, "n_frequency_pattern"),
    ("C3A", {"block_size": 16, "block_size_pattern": {"q_proj": 8}}, "block_size_pattern"),
    ("WAVEFT", {"n_frequency": 8, "n_frequency_pattern": {"q_proj": 16}}, "n_frequency_pattern"),
    ("DELORA", {"r": 2, "lambda_pattern": {"q_proj": 3}}, "lambda_pattern"),
])  # fmt: skip
def test_patterns_of_other_types_by_their_own_rule(peft_type: str, settings: dict[str, Any], field: str) -> None:
    """FourierFT and C3A want something before a key, so that a module's whole name is no key of theirs."""
    peft, params = registry.get("peft"), {"peft_type": peft_type, "target_modules": ["q_proj", "v_proj"], **settings}
    peft.attach(build(SHAPE), params)
    whole = {r"model\.layers\.0\.self_attn\.q_proj": 8}
    if peft_type in {"FOURIERFT", "C3A"}:
        with pytest.raises(BenchError, match=f"of {field} matches no module"):
            peft.attach(build(SHAPE), params | {field: whole})
    else:
        peft.attach(build(SHAPE), params | {field: whole})


def test_what_matches_is_taken() -> None:
    settings = {
        "target_modules": ["q_proj", "layers.1.self_attn.v_proj"], "exclude_modules": ["layers.0.self_attn.q_proj"],
        "layers_to_transform": [0, 1], "rank_pattern": {"layers.1.self_attn.q_proj": 4, r"self_attn\.(q|v)_proj": 3},
    }  # fmt: skip
    with pytest.raises(BenchError, match="0 of layers_to_transform is no layer of the model with a target"):
        registry.get("peft").attach(build(SHAPE), LORA | settings)  # all of layer 0 is excluded
    model = registry.get("peft").attach(build(SHAPE), LORA | settings | {"layers_to_transform": 1})
    assert sum(p.numel() for p in model.parameters() if p.requires_grad) == 4 * 64 + 3 * 48


@pytest.mark.parametrize(
    ("shape", "called"),
    [
        (GPTNeoXConfig, "query_key_value, dense, dense_h_to_4h and dense_4h_to_h"),
        (GPT2Config, "c_attn, c_proj and c_fc"),
    ],
)
@pytest.mark.parametrize("method", ["peft", "mixture"])
def test_where_no_target_is_there_the_layers_of_the_model_are_named(shape: Any, called: str, method: str) -> None:
    sizes = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
    if shape is GPT2Config:
        sizes = {"n_embd": 16, "n_layer": 2, "n_head": 2}
    params = {"target_modules": ["q_proj", "v_proj"], **({"peft_type": "LORA"} if method == "peft" else {})}
    with pytest.raises(BenchError, match=rf"The linear layers of this model are called {called}; name them in the"):
        registry.get(method).attach(build(shape(vocab_size=32, **sizes)), params)
