"""Methods on base models whose weights are rounded: what they come to there, and what cannot be there."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import pytest
import torch
from torch import nn

from mosld_bench.errors import RoundingError
from mosld_bench.methods import count_trainable, peft_types, registry
from mosld_bench.methods.base import Method
from mosld_bench.methods.contract import tried
from mosld_bench.methods.rounding import check_rounded
from mosld_bench.methods.subject import Subject
from mosld_bench.scratch import scratch_folder
from mosld_bench.spec.recipe import Recipe, load_recipes
from mosld_bench.spec.trial import Load, ModelSpec
from tests.conftest import REPOSITORY
from tests.methods.test_peft_types import PEFT, TYPES, natural
from tests.support.models import config
from tests.support.rounded import LOADS, SHAPE, needs_bitsandbytes, rounded, unpacked

pytestmark = pytest.mark.filterwarnings("ignore")  # PEFT warns of what it adjusts, such as a block's size

RECIPES = load_recipes(REPOSITORY / "methods")
SHOWN = ("lora", "dora", "prefix-tuning", "moe-lora", "mola", "hydralora", "mosld", "mosld-update", "mixlora")
RUN = [name for name in TYPES if not peft_types.kind_of(name).refused]


class Trained:
    """A method after a few steps on a base model: its logits before and after, and those of what was saved of it."""

    def __init__(self, method: Method, params: Mapping[str, Any], base: nn.Module) -> None:
        subject = Subject(method, params, SHAPE)
        subject.base = base
        model = subject.attach()
        self.trainable = sum(p.numel() for p in model.parameters() if p.requires_grad)
        self.dtypes = {p.dtype for p in model.parameters() if p.requires_grad}
        self.first = subject.logits(model).detach()
        subject.train(model, steps=2)
        self.last = subject.logits(model).detach()
        with scratch_folder() as folder:
            method.save(model, base, params, folder)
            self.loaded = subject.logits(method.load(rounded_again(base), folder)).detach()


def rounded_again(base: nn.Module) -> nn.Module:
    """An untouched model that is equal to ``base``, as whoever loads an adapter has it."""
    from mosld_bench.methods.live import copy_sharing_weights

    return copy_sharing_weights(base)


def hold(name: str, method: Method, params: Mapping[str, Any], load: Load) -> None:
    """What the method comes to on a rounded model is what it comes to on the model of the rounded numbers."""
    base = rounded(load)
    ours, dense = Trained(method, params, base), Trained(method, params, unpacked(base))
    assert ours.trainable == dense.trainable == count_trainable(method, SHAPE, params), name
    assert ours.dtypes <= {torch.float32}, name
    assert torch.allclose(ours.first, dense.first, atol=1e-4), name
    far = (ours.last - dense.last).abs().max().item()
    # A router's pick may turn over by rounding of the last digit; bitsandbytes' products of int8 differ there.
    assert far < (1e-5 if load == "nf4" else 5e-2), f"{name}: {far}"
    assert torch.allclose(ours.loaded, ours.last, atol=1e-5), name


@needs_bitsandbytes
@pytest.mark.parametrize("load", LOADS)
@pytest.mark.parametrize("recipe", SHOWN)
def test_a_recipe_trains_as_on_the_model_of_the_rounded_numbers(recipe: str, load: Load) -> None:
    hold(recipe, registry.get(RECIPES[recipe].method), RECIPES[recipe].params, load)


@needs_bitsandbytes
@pytest.mark.slow
@pytest.mark.parametrize("load", LOADS)
@pytest.mark.parametrize("recipe", [name for name in RECIPES if name not in (*SHOWN, "base")])
def test_every_recipe_does_or_is_refused(recipe: str, load: Load) -> None:
    asked = RECIPES[recipe]
    try:
        check_rounded(asked, asked.params, ModelSpec(name="it", load=load), SHAPE, "float32")
    except RoundingError:
        assert recipe in {"full", "pissa", "olora", "loha", "lokr"}
        return
    hold(recipe, registry.get(asked.method), asked.params, load)


@needs_bitsandbytes
@pytest.mark.slow
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("load", LOADS)
@pytest.mark.parametrize("peft_type", RUN)
def test_every_type_of_peft_does_or_is_refused_with_reason(peft_type: str, load: Load, dtype: str) -> None:
    """And what is refused would not: the table neither hides what works nor lets through what does not."""
    params, works = natural(peft_type), True
    try:
        hold(peft_type, PEFT, params, load)
        if dtype == "bfloat16":
            subject = Subject(PEFT, params, SHAPE)
            subject.base = rounded(load, torch.bfloat16)
            assert tried("", lambda it: _trains_and_scores(it), subject).passed
    except Exception:
        works = False
    assert works == (PEFT.why_not_rounded(params, load, dtype) is None)


def _trains_and_scores(subject: Subject) -> str | None:
    model = subject.attach()
    subject.train(model, steps=1)
    assert subject.logits(model).isfinite().all()
    model.zero_grad()
    subject.step(model)
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in model.parameters() if p.requires_grad)
    return None


def refused(recipe: Recipe, load: Load = "nf4", dtype: str = "float32") -> str:
    with pytest.raises(RoundingError) as caught:
        check_rounded(recipe, recipe.params, ModelSpec(name="the/base", load=load), SHAPE, dtype)
    return str(caught.value)


def peft(**params: Any) -> Recipe:
    return Recipe(name="mine", title="Mine", method="peft", params=params)


def test_the_page_says_on_what_each_type_cannot_be() -> None:
    page = (REPOSITORY / "methods/README.md").read_text(encoding="utf-8").partition("### On base models in few bits")[2]
    rows = {}
    for name, kind in peft_types.KINDS.items():
        for load, dtype in kind.not_rounded:
            rows[name] = (f"`{load}`" if load else "`nf4` or `int8`") + (f" in `{dtype}`" if dtype else "")
    told = re.findall(r"^\| `([A-Z0-9_]+)` \| (.*) \|$", page.partition("## A method")[0], re.MULTILINE)
    assert told == sorted(rows.items())
    for peft_type, field, begins in peft_types.READING_SETTINGS:
        assert f"`{field}`: {begins} of `{peft_type}`" in page


def test_what_trains_weights_that_are_rounded_is_refused_with_the_first_of_them() -> None:
    """Whatever the method, and however it comes to train them."""
    assert refused(RECIPES["full"]) == (
        "The recipe 'full' cannot be trained on 'the/base' with model.load: nf4: it trains the weights of 28 linear "
        "layers (the first: model.layers.0.self_attn.q_proj), and what is rounded cannot be trained. Leave model.load "
        "out, or the recipe."
    )
    whole = peft(peft_type="LORA", r=2, target_modules=["q_proj"], modules_to_save=["up_proj"])
    assert "the weights of 4 linear layers (the first: model.layers.0.mlp.up_proj)" in refused(whole, "int8")


@pytest.mark.parametrize("load", LOADS)
def test_what_trains_beside_them_is_not_refused(load: Load) -> None:
    model = ModelSpec(name="the/base", load=load)
    lora = {"peft_type": "LORA", "r": 2, "target_modules": ["q_proj"]}
    for params in (lora | {"modules_to_save": ["lm_head", "embed_tokens"]}, {"peft_type": "LN_TUNING"}, lora):
        check_rounded(peft(**params), params, model, SHAPE, "bfloat16")
    tied = config(layers=1, hidden_size=64, intermediate_size=128, tie_word_embeddings=True)
    check_rounded(RECIPES["mosld"], RECIPES["mosld"].params | {"experts": 4}, model, tied, "float32")
    check_rounded(RECIPES["full"], {}, ModelSpec(name="the/base"), SHAPE, "float32")


def test_what_reads_them_is_refused_with_what_would_do() -> None:
    assert "PiSSA takes its start out of the base model's weights (init_lora_weights: pissa)" in refused(
        RECIPES["pissa"]
    )
    assert "(init_lora_weights: pissa_niter_4)" in refused(
        peft(peft_type="LORA", r=2, target_modules=["q_proj"], init_lora_weights="pissa_niter_4"), "int8"
    )
    assert "and those are packed; int8 would do. Leave" in refused(RECIPES["loha"])
    check_rounded(RECIPES["loha"], RECIPES["loha"].params, ModelSpec(name="it", load="int8"), SHAPE, "float32")
    assert "is float32 and train.dtype is bfloat16; float32 would do" in refused(RECIPES["ia3"], "nf4", "bfloat16")
    check_rounded(RECIPES["ia3"], RECIPES["ia3"].params, ModelSpec(name="it", load="nf4"), SHAPE, "float32")
