"""What compat/transformers.py assumes of transformers' caches, and of the name under which a forward takes one."""

from __future__ import annotations

import warnings
from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model
from torch import Tensor, nn
from transformers import GenerationConfig
from transformers.cache_utils import Cache, DynamicLayer

from mosld_bench.compat.transformers import (
    KeptPrefix,
    cache_argument,
    growing_cache,
    old_names_allowed,
    own_generation_config,
    with_cache,
)
from tests.compat.assumption import assumed
from tests.support.models import build, config

KINDS = ["llama", "mistral", "qwen2", "gpt2"]


def kept(model: Any, ids: Tensor) -> KeptPrefix:
    """Keys and values of the tokens ``ids``, (1, tokens)."""
    cache = growing_cache()
    model(input_ids=ids, **with_cache(model, cache))
    return KeptPrefix.of(cache)


@pytest.mark.parametrize("kind", KINDS)
def test_a_prefix_is_kept_and_lent_to_several_rows(kind: str) -> None:
    """Logits after a lent prefix are those of the whole text, and the prefix is as it was."""
    model: Any = build(config(kind))
    prefix, rows = torch.randint(3, 40, (1, 5)), torch.randint(3, 40, (3, 4))
    with torch.no_grad(), assumed("transformers", "a cache has layers with keys and values, and asks each to update"):
        before = kept(model, prefix)
        assert before.tokens == 5
        assert [part.shape[0] for part in before.layers[0]] == [1, 1]
        values = [part.clone() for layer in before.layers for part in layer]
        whole = model(torch.cat([prefix.expand(3, -1), rows], dim=1)).logits[:, 5:]
        for _ in range(2):
            positions = torch.arange(5, 9)[None]
            after = model(input_ids=rows, position_ids=positions, **with_cache(model, before.lent())).logits
            torch.testing.assert_close(after, whole, rtol=1e-4, atol=1e-4)
        assert all(torch.equal(*pair) for pair in zip(values, (p for la in before.layers for p in la), strict=True))


def test_a_cache_grows_from_what_is_kept() -> None:
    model: Any = build(config())
    ids = torch.randint(3, 40, (1, 9))
    with torch.no_grad(), assumed("transformers", "DynamicCache.update(keys, values, index) begins a layer"):
        first, cache = kept(model, ids[:, :5]), growing_cache(kept(model, ids[:, :5]).layers)
        model(input_ids=ids[:, 5:], position_ids=torch.arange(5, 9)[None], **with_cache(model, cache))
        both, whole = KeptPrefix.of(cache), kept(model, ids)
        assert (first.tokens, both.tokens) == (5, 9)
        for ours, theirs in zip(both.layers, whole.layers, strict=True):
            torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5)


def test_what_holds_no_keys_and_values_is_refused() -> None:
    with pytest.raises(TypeError, match="leaves no keys and values"):
        KeptPrefix.of(growing_cache())
    with assumed("transformers", "the layer of a cache that no forward has filled has keys and values, which are None"):
        empty = Cache(layers=[DynamicLayer()])
        with pytest.raises(TypeError, match="leaves no keys and values"):
            KeptPrefix.of(empty)


@pytest.mark.parametrize("kind", KINDS)
def test_generate_goes_on_from_keys_and_values(kind: str) -> None:
    """Of tokens in front that have ids which nobody reads; padding stands behind them."""
    model: Any = build(config(kind))
    prefix, row = torch.randint(3, 40, (1, 5)), torch.randint(3, 40, (1, 4))
    options = {"max_new_tokens": 4, "do_sample": False, "pad_token_id": 0, "eos_token_id": None}
    with torch.no_grad(), assumed("transformers", "generate reads ids behind a cache of keys and values, as masked"):
        text = torch.cat([prefix, row], dim=1)
        whole = model.generate(input_ids=text, attention_mask=torch.ones_like(text), **options)[:, 9:]
        front, padding = torch.zeros(1, 5, dtype=torch.long), torch.zeros(1, 3, dtype=torch.long)
        after = model.generate(
            input_ids=torch.cat([front, padding, row], dim=1),
            attention_mask=torch.cat([front + 1, padding, torch.ones_like(row)], dim=1),
            **{cache_argument(model): growing_cache(kept(model, prefix).layers)}, **options,
        )  # fmt: skip
        assert after[:, 12:].tolist() == whole.tolist()


@pytest.mark.parametrize("adapted", [False, True])
def test_a_model_s_own_generation_config_is_taken_away_and_given_back(adapted: bool) -> None:
    model: Any = build(config())
    own = model.generation_config = GenerationConfig(suppress_tokens=list(range(40)), max_new_tokens=4)
    if adapted:
        model = get_peft_model(model, LoraConfig(task_type="CAUSAL_LM", target_modules=["q_proj"]))
    ids = torch.randint(3, 40, (1, 4))
    asked = GenerationConfig(max_new_tokens=3, pad_token_id=0)
    with assumed("transformers", "generate fills in from generation_config of the innermost model, and from it alone"):
        with own_generation_config(model):
            assert model.generation_config is not own
            free = model.generate(input_ids=ids, attention_mask=torch.ones_like(ids), generation_config=asked)[:, 4:]
        assert model.generation_config is own
        held = model.generate(input_ids=ids, attention_mask=torch.ones_like(ids), generation_config=asked)[:, 4:]
        assert free.min() < 40 <= held.min()


@pytest.mark.parametrize("kind", [*KINDS, "gpt_neo"])
def test_the_argument_of_the_cache_is_asked_of_the_forward(kind: str) -> None:
    model: Any = build(config(kind))
    with (
        torch.no_grad(),
        assumed("transformers", "a forward names its cache past_key_values, or cache, without warning"),
    ):
        assert kept(model, torch.randint(3, 40, (1, 5))).tokens == 5  # a warning is an error in this suite


def test_an_adapter_s_base_is_asked() -> None:
    base = build(config())
    name = cache_argument(base)
    settings: Any = LoraConfig(task_type="CAUSAL_LM", target_modules=["q_proj"])
    assert cache_argument(get_peft_model(base, settings)) == name


def test_both_names_and_neither() -> None:
    class Old(nn.Module):
        def forward(self, input_ids: Tensor, past_key_values: Any = None) -> None: ...

    class New(nn.Module):
        def forward(self, input_ids: Tensor, cache: Any = None) -> None: ...

    class Own(nn.Module):
        """One of another author: ``cache`` may be something else there."""

        def forward(self, input_ids: Tensor, past_key_values: Any = None, cache: bool = True) -> None: ...

    class Without(nn.Module):
        def forward(self, input_ids: Tensor, **options: Any) -> None: ...

    names = [cache_argument(model) for model in (Old(), New(), Own(), Without())]
    assert names == ["past_key_values", "cache", "past_key_values", "past_key_values"]


def test_old_names_are_allowed_and_nothing_else() -> None:
    with old_names_allowed():
        warnings.warn("an old name", FutureWarning, stacklevel=1)
        with pytest.raises(UserWarning, match="something else"):
            warnings.warn("something else", UserWarning, stacklevel=1)
    with pytest.raises(FutureWarning):
        warnings.warn("an old name", FutureWarning, stacklevel=1)
