"""Prices: LLaMA2-7B by hand, what must grow grows, what is unknown stays unknown, and a refusal is a sentence."""

from __future__ import annotations

from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from transformers import LlamaConfig

from mosld_bench import display
from mosld_bench.cost.estimate import REACHED, VALIDATIONS, Price, TaskSize, fits, price, summary, task_sizes
from mosld_bench.cost.memory import Shape, UnknownShapeError, memory_of
from mosld_bench.errors import BadFileError
from mosld_bench.inputs.items import Encoded
from mosld_bench.inputs.models import load_config
from mosld_bench.methods import registry
from mosld_bench.methods.fit import fit_budget
from mosld_bench.methods.live import copy_sharing_weights, unshare_trainable
from mosld_bench.run import make_plan
from mosld_bench.spec.recipe import load_recipes
from mosld_bench.spec.study import Study
from mosld_bench.spec.task_files import TaskFiles
from mosld_bench.spec.trial import EvaluateSpec, Fit, ModelSpec, TrainSpec, Trial
from mosld_bench.spec.workspace import Workspace
from mosld_bench.trial import device as meters
from mosld_bench.trial import train
from tests.conftest import REPOSITORY
from tests.support.models import VOCABULARY, build, config

RECIPES = load_recipes(REPOSITORY / "methods")
SEVEN, THIRTEEN = "NousResearch/Llama-2-7b-hf", "NousResearch/Llama-2-13b-hf"
BODY = 6_738_415_616 - 2 * 32_000 * 4_096  # LLaMA2-7B without its embeddings
SIZES = {
    "a": TaskSize(train=10_000, test=1_000, tokens=100),
    "b": TaskSize(train=5_000, test=500, tokens=300),
    "c": TaskSize(test=2_000, tokens=80),
}
A100 = 80e9


@lru_cache
def fitted(recipe: str, model: str) -> tuple[Fit, Shape]:
    config = load_config(ModelSpec(name=model))
    return fit_budget(RECIPES[recipe], config, "native"), Shape.of(config)


def trial(recipe: str, model: str = SEVEN, limit: int | None = None, **more: Any) -> Trial:
    spec = {"epochs": 10, "batch_size": 64, "dtype": "bfloat16", "gradient_checkpointing": True} | more
    union = () if recipe == "base" else ("a", "b")
    return Trial(
        study="x", recipe=RECIPES[recipe], setting="mixture", train_on=union, in_domain=("a", "b"),
        out_of_domain=("c",), task_digests={}, model=ModelSpec(name=model), budget="native", tolerance=0.01, seed=0,
        train=TrainSpec(**spec), evaluate=EvaluateSpec(limit=limit), protocol="p",
    )  # fmt: skip


def priced(recipe: str, model: str = SEVEN, optimizer: str = "adamw", limit: int | None = None, **more: Any) -> Price:
    one = trial(recipe, model, limit, **more)
    stepped = one.model_copy(update={"recipe": one.recipe.model_copy(update={"optimizer": optimizer})})
    return price(stepped, *fitted(recipe, model), SIZES)


def test_tokens_by_hand() -> None:
    """13,500 items after validation, ten epochs, b's 300 tokens cut at 256; a validation of 200 items a task."""
    one = priced("lora")
    steps = -(-10 * 13_500 // 64)
    assert one.train_tokens == pytest.approx(steps * 64 * (9_000 * 100 + 4_500 * 256) / 13_500)
    assert one.validation_tokens == VALIDATIONS * 200 * (100 + 256) == train.VALIDATIONS * 71_200
    assert one.score_tokens == 1.25 * (1_000 * 100 + 500 * 300 + 2_000 * 80)
    assert priced("lora", limit=100).score_tokens == 1.25 * 100 * (100 + 300 + 80)
    assert priced("lora", epochs=None, steps=50).train_tokens == pytest.approx(50 * 64 * 2_052_000 / 13_500)
    base = priced("base")
    assert (base.train_tokens, base.validation_tokens, base.score_tokens) == (0, 0, one.score_tokens)


def test_items_of_a_task_can_be_capped() -> None:
    plain = trial("lora")
    assert plain.train is not None
    capped = plain.model_copy(update={"train": plain.train.model_copy(update={"task_items": 100})})
    got = price(capped, *fitted("lora", SEVEN), SIZES).train_tokens
    assert got == pytest.approx(-(-10 * 180 // 64) * 64 * (100 + 256) / 2)  # a tenth of each 100 is held out


def test_flops_by_hand() -> None:
    """Full fine-tuning is 6 N a token, and 8 N with checkpointing; an adapter 4 N and 2 for each of its own."""
    full, kept = priced("full", gradient_checkpointing=False), priced("full")
    other = (full.validation_tokens + full.score_tokens) * 2 * BODY
    assert full.flops == pytest.approx(full.train_tokens * 6 * BODY + other)
    assert kept.flops == pytest.approx(full.train_tokens * 8 * BODY + other)
    lora = priced("lora", gradient_checkpointing=False)
    body = BODY + 4_194_304
    assert lora.flops == pytest.approx(
        lora.train_tokens * (4 * body + 2 * 4_194_304) + (lora.validation_tokens + lora.score_tokens) * 2 * body
    )
    assert lora.hours == pytest.approx(lora.flops / 100e12 / 3600)
    assert priced("lora", dtype="float32").hours == pytest.approx(priced("lora").hours * 100 / 15)


def test_memory_of_full_fine_tuning_of_7b_by_hand() -> None:
    """13.5 GB base, 27 trained in float32, 27 gradients; 34 h + 8 m bytes a layer and token, twice, and 4 h kept."""
    memory = priced("full", optimizer="adafactor").memory
    size = 6_738_415_616
    assert (memory.weights, memory.pristine, memory.gradients) == (4 * size, 2 * size, 4 * size)
    layer = (34 * 4096 + 8 * 11008) * 8192
    assert memory.activations == 4 * 4096 * 32 * 8192 + 2 * layer
    assert memory.logits == 14 * 1024 * 32000
    assert memory.total == pytest.approx(76.1e9, abs=0.05e9)
    assert fits(priced("full", optimizer="adafactor"), A100) is None
    adamw = priced("full").memory
    assert adamw.optimizer == 8 * size
    assert adamw.total == 22 * size  # while it steps: 4 + 2 + 4 + 8, and 4 of scratch
    assert adamw.total > A100


def test_memory_of_adapters_on_7b() -> None:
    lora, mosld = priced("lora").memory, priced("mosld").memory
    assert lora.weights == 2 * 6_738_415_616 + 4 * 4_194_304
    assert lora.pristine == 0
    assert lora.total == pytest.approx(18.8e9, abs=0.1e9)
    assert mosld.total - lora.total == pytest.approx(16 * (13_893_632 - 4_194_304), rel=0.01)
    assert priced("lora", gradient_checkpointing=False).memory.total == pytest.approx(57.1e9, abs=0.1e9)
    base = priced("base").memory
    assert (base.gradients, base.optimizer, base.pristine, base.weights) == (0, 0, 0, 2 * 6_738_415_616)


def test_more_takes_more() -> None:
    def of(*args: Any, **more: Any) -> tuple[float, int]:
        one = priced(*args, **more)
        assert one.hours is not None
        return one.hours, one.memory.total

    plain = of("lora", batch_size=64)
    assert of("lora", epochs=20)[0] > plain[0]
    assert of("lora", epochs=20)[1] == plain[1]
    assert of("lora", THIRTEEN) > plain
    assert of("mosld") > plain
    assert of("lora", micro_tokens=16384)[1] > plain[1]
    assert of("lora", max_length=512)[0] > plain[0]
    assert of("lora", dtype="float32")[1] > plain[1]
    kept = of("lora", gradient_checkpointing=False)
    assert kept[0] < plain[0]
    assert kept[1] > plain[1]
    assert of("lora", batch_size=4, micro_tokens=8192)[1] < plain[1]  # a micro-batch is at most the batch


@pytest.mark.parametrize("sizes", [{}, {**SIZES, "c": None}, {**SIZES, "a": None}])
def test_an_unknown_size_makes_hours_unknown_and_leaves_memory(sizes: dict[str, TaskSize | None]) -> None:
    one = price(trial("lora"), *fitted("lora", SEVEN), sizes)
    assert one.flops is None
    assert one.hours is None
    assert one.memory == priced("lora").memory
    total = summary([one, priced("lora")])
    assert (total.trials, total.unknown, total.gpu_hours) == (2, 1, priced("lora").hours)
    assert summary([one]).wall_hours is None


def test_a_refusal_says_why_and_what_to_do() -> None:
    assert fits(priced("full"), A100) == (
        "full on NousResearch/Llama-2-7b-hf needs about 148 GB (optimiser states 54, weights 27, the optimiser's step "
        "27, gradients 27, the base kept beside them 13); a GPU of 80 GB cannot hold it. Set optimizer: "
        "adafactor in the recipe: that brings it down to about 76 GB."
    )
    both = fits(priced("lora", dtype="float32", gradient_checkpointing=False), 24e9)
    assert both is not None
    assert "Set train.micro_tokens: 1024, train.gradient_checkpointing: true, train.dtype: bfloat16: together" in both
    never = fits(priced("full", THIRTEEN, optimizer="adafactor"), A100)
    assert never is not None
    assert "Even at its thriftiest it takes 132 GB: leave the recipe out" in never


def test_the_summary_places_the_longest_first() -> None:
    one = priced("lora")
    plan = [replace(one, hours=hours) for hours in (2.0, 3.0, 7.0, 4.0, 5.0)]
    assert summary(plan).wall_hours == summary(plan).gpu_hours == 21
    assert summary(plan, 2).wall_hours == 11  # 7 and 3; 5, 4 and 2
    assert summary(plan, 9).wall_hours == 7
    assert summary([*plan, priced("full")]).most_memory == priced("full").memory.total
    assert summary([]).gpu_hours is None
    with pytest.raises(ValueError, match="at least 1 GPU"):
        summary(plan, 0)


def test_sizes_come_from_the_definitions(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text("task: a\nmetadata: {version: 1.0, size: {train: 5, test: 3, tokens: 20.5}}")
    (tmp_path / "b.yaml").write_text("task: b\nmetadata: {version: 1.0}")
    files = TaskFiles.scan((tmp_path,))
    found = task_sizes(files, ["a", "b", "built-in"])
    assert found == {"a": TaskSize(train=5, test=3, tokens=20.5), "b": None, "built-in": None}
    (tmp_path / "b.yaml").write_text("task: b\nmetadata: {size: {train: 5, test: few, token: 3}}")
    with pytest.raises(BadFileError, match=r"metadata.size in .*b.yaml has 3 problem"):
        task_sizes(files, ["b"])


@pytest.mark.parametrize("dtype", ["bfloat16", "float32"])
@pytest.mark.parametrize("recipe", ["lora", "mosld", "full"])
def test_the_formula_of_activations_agrees_with_autograd(recipe: str, dtype: str) -> None:
    """What autograd keeps of a small LLaMA, storage by storage, trained weights and their casts included."""
    shape = LlamaConfig(
        hidden_size=256, intermediate_size=688, num_hidden_layers=8, num_attention_heads=8, vocab_size=1000
    )
    base = build(shape).to(getattr(torch, dtype))
    method, fit = registry.get(RECIPES[recipe].method), fit_budget(RECIPES[recipe], shape, "native")
    model = method.attach(copy_sharing_weights(base), fit.params)
    unshare_trainable(model, base)
    for parameter in model.parameters():
        if parameter.requires_grad:
            parameter.data = parameter.data.float()
    model.train()
    method.before_step(model)
    own = {p.untyped_storage().data_ptr() for p in model.parameters()}
    kept: dict[int, tuple[int, torch.Tensor]] = {}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            kept[storage.data_ptr()] = (storage.nbytes(), tensor)
        return tensor

    batch = [Encoded("a", ids, 1) for ids in torch.randint(0, 1000, (16, 64)).tolist()]
    autocast = torch.autocast("cpu", torch.bfloat16, enabled=dtype == "bfloat16")
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor), autocast:
        train.answer_loss(model, batch, 0)
    spec = TrainSpec(steps=1, batch_size=16, max_length=64, dtype=dtype)
    memory = memory_of(fit, Shape.of(shape), spec, "adamw")
    assert sum(size for size, _ in kept.values()) == pytest.approx(memory.activations + memory.casts, rel=0.15)


def test_checkpointing_keeps_no_copy_of_the_weights() -> None:
    """Autocast's cache would hold all trained weights in bfloat16 until the end of a forward."""
    seen: list[bool] = []

    class Watched(torch.nn.Linear):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            seen.append(torch.is_autocast_cache_enabled())
            return super().forward(x)

    model = build(LlamaConfig(hidden_size=32, intermediate_size=48, num_hidden_layers=1, num_attention_heads=4,
                              vocab_size=60)).requires_grad_(True)  # fmt: skip
    model.lm_head.__class__ = Watched  # type: ignore[union-attr]
    items = [Encoded("a", [3, 4, 5], 1)] * 2
    for kept in (False, True):
        spec = TrainSpec(steps=1, batch_size=2, dtype="bfloat16", gradient_checkpointing=kept)
        train.train(
            model, registry.get("full"), examples=items, validation=[], spec=spec, learning_rate=1e-4, seed=0, pad=0
        )
    assert seen == [True, False]


def test_hours_on_a_machine_without_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """By the rate of a core and the share of it that trials reach; a year's run is not offered."""
    monkeypatch.setattr(meters, "cores", lambda: 2)
    workspace = Workspace(REPOSITORY, REPOSITORY)
    changes = {"recipes": ["lora"], "seeds": [0, 1, 2, 3], "frozen_base": False}
    plan = make_plan(Study.load(workspace.study_file("smollm2"), changes), workspace)
    flops = sum(price.flops or 0 for price in plan.prices if price)
    hours = flops / 2 / (REACHED["bfloat16"] * 200e9) / 3600  # four equal trials, two at a time
    said = display.plan_sentences(plan, 8, 80e9, {"bfloat16": 200e9}.__getitem__)
    assert f"about {hours:.2g} hours with 2 trials at a time" in " ".join(said)
    assert "200 GFLOP/s" in " ".join(said)
    assert len(display.plan_sentences(plan, 8, 80e9)) == len(said) - 1
    slow = display.plan_sentences(plan, 8, 80e9, {"bfloat16": 200e6}.__getitem__)
    assert slow == display.plan_sentences(plan, 8, 80e9)


def test_the_rate_of_a_core_is_measured_and_leaves_the_threads_alone() -> None:
    threads = torch.get_num_threads()
    assert 1e8 < meters.core_rate("float32") < 1e13
    assert torch.get_num_threads() == threads


@pytest.mark.parametrize("kind", ["llama", "gpt2", "qwen2", "mistral"])
def test_the_shape_of_a_transformer(kind: str) -> None:
    shape = Shape.of(config(kind))
    assert (shape.hidden, shape.layers, shape.vocabulary) == (32, 4, VOCABULARY)
    assert shape.inner == (128 if kind == "gpt2" else 48)
    assert shape.keys == (32 if kind == "gpt2" else 16)


def test_a_model_without_a_size_is_named() -> None:
    with pytest.raises(UnknownShapeError, match="MambaConfig has no whole number num_attention_heads"):
        Shape.of(config("mamba"))
    odd = SimpleNamespace(hidden_size=32, num_attention_heads=[4, 4], num_hidden_layers=2, vocab_size=10)
    with pytest.raises(UnknownShapeError, match="SimpleNamespace has no whole number num_attention_heads"):
        Shape.of(odd)  # type: ignore[arg-type]
