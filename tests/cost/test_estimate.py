"""Prices: LLaMA2-7B by hand, what must grow grows, what is unknown stays unknown, and a refusal is a sentence."""

from __future__ import annotations

from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from mosld_bench import display
from mosld_bench.cost import (
    REACHED_SHARE,
    Price,
    Shape,
    TaskSize,
    price,
    summary,
    task_sizes,
    why_too_large,
)
from mosld_bench.errors import BadFileError
from mosld_bench.inputs.models import load_config
from mosld_bench.methods import fit_budget
from mosld_bench.scheduling import make_plan
from mosld_bench.spec.recipe import load_recipes
from mosld_bench.spec.study import Study
from mosld_bench.spec.task_files import TaskFiles
from mosld_bench.spec.trial import VALIDATIONS, EvaluateSpec, Fit, ModelSpec, TrainSpec, Trial
from mosld_bench.spec.workspace import Workspace
from mosld_bench.trial import device
from tests.conftest import REPOSITORY

RECIPES = load_recipes(REPOSITORY / "methods")
SEVEN, THIRTEEN = "NousResearch/Llama-2-7b-hf", "NousResearch/Llama-2-13b-hf"
SEVENTY = "NousResearch/Llama-2-70b-hf"
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


def trial(recipe: str, model: str = SEVEN, *, limit: int | None = None, **more: Any) -> Trial:
    spec = {"epochs": 10, "batch_size": 64, "dtype": "bfloat16", "gradient_checkpointing": True} | more
    union = () if recipe == "base" else ("a", "b")
    return Trial(
        study="x", recipe=RECIPES[recipe], setting="mixture", train_on=union, in_domain=("a", "b"),
        out_of_domain=("c",), task_digests={}, model=ModelSpec(name=model), budget="native", tolerance=0.01, seed=0,
        train=TrainSpec(**spec), evaluate=EvaluateSpec(limit=limit), protocol="p",
    )  # fmt: skip


def priced(
    recipe: str, model: str = SEVEN, *, optimizer: str = "adamw", limit: int | None = None, **more: Any
) -> Price:
    """The estimate of a trial on tasks of known SIZES; ``more``: fields of its TrainSpec."""
    plain = trial(recipe, model, limit=limit, **more)
    stepped = plain.model_copy(update={"recipe": plain.recipe.model_copy(update={"optimizer": optimizer})})
    return price(stepped, *fitted(recipe, model), SIZES)


class Hours(NamedTuple):
    """An estimate of which nothing is unknown."""

    train_tokens: float
    other_tokens: float  # of validation and scoring
    flops: float
    hours: float
    bytes: int

    @classmethod
    def of(cls, estimate: Price) -> Hours:
        tokens = (estimate.train_tokens, estimate.validation_tokens, estimate.score_tokens)
        train_tokens, validation_tokens, score_tokens = (value for value in tokens if value is not None)
        assert estimate.flops is not None
        assert estimate.hours is not None
        return cls(
            train_tokens, validation_tokens + score_tokens, estimate.flops, estimate.hours, estimate.memory.total
        )


def test_tokens_by_hand() -> None:
    """13,500 items after validation, ten epochs, b's 300 tokens cut at 256; a validation of 200 items a task."""
    lora = priced("lora")
    steps = -(-10 * 13_500 // 64)
    assert lora.train_tokens == pytest.approx(steps * 64 * (9_000 * 100 + 4_500 * 256) / 13_500)
    assert lora.validation_tokens == VALIDATIONS * 200 * (100 + 256) == VALIDATIONS * 71_200
    assert lora.score_tokens == 1.25 * (1_000 * 100 + 500 * 300 + 2_000 * 80)
    assert priced("lora", limit=100).score_tokens == 1.25 * 100 * (100 + 300 + 80)
    assert priced("lora", epochs=None, steps=50).train_tokens == pytest.approx(50 * 64 * 2_052_000 / 13_500)
    base = priced("base")
    assert (base.train_tokens, base.validation_tokens, base.score_tokens) == (0, 0, lora.score_tokens)


def test_a_passage_is_read_once_however_many_of_its_items_are_drawn() -> None:
    """200 items, four a passage of 80 tokens, 20 tokens an item beside it; an option makes them 25."""
    size = TaskSize(train=200, test=200, tokens=100, passage=80, items_a_passage=4)
    assert size.scored(200, of=200) == 200 * 25 + 50 * 80
    assert size.scored(100, of=200) == pytest.approx(100 * 25 + 50 * 80 * (1 - 0.5**4))
    assert size.scored(100, of=200, together=True) == 100 * 25 + 25 * 80
    assert TaskSize(test=200, tokens=100).scored(60, of=200) == 60 * 125
    with pytest.raises(ValueError, match="less than tokens"):
        TaskSize(test=1, tokens=80, passage=80)


def test_items_of_a_task_can_be_capped() -> None:
    plain = trial("lora")
    assert plain.train is not None
    capped = plain.model_copy(update={"train": plain.train.model_copy(update={"task_items": 100})})
    got = price(capped, *fitted("lora", SEVEN), SIZES).train_tokens
    assert got == pytest.approx(-(-10 * 180 // 64) * 64 * (100 + 256) / 2)  # a tenth of each 100 is held out


def test_a_run_of_a_search_scores_all_that_is_held_out_and_no_test_item() -> None:
    plain = trial("lora", validation_items=None)
    spec, split = plain.train, EvaluateSpec(split="validation")
    got = price(plain.model_copy(update={"evaluate": split, "out_of_domain": ()}), *fitted("lora", SEVEN), SIZES)
    assert spec is not None
    assert got.score_tokens == pytest.approx(1.25 * (1_000 * 100 + 500 * 300))  # a tenth of 10,000 and of 5,000 items
    assert got.validation_tokens == VALIDATIONS * (1_000 * 100 + 500 * 256)
    few = trial("lora", validation_items=50).model_copy(update={"evaluate": split, "out_of_domain": ()})
    assert price(few, *fitted("lora", SEVEN), SIZES).score_tokens == 1.25 * 50 * (100 + 300)


def test_flops_by_hand() -> None:
    """Full fine-tuning is 6 N a token, and 8 N with checkpointing; an adapter 4 N and 2 for each of its own."""
    full, kept = Hours.of(priced("full", gradient_checkpointing=False)), Hours.of(priced("full"))
    other = full.other_tokens * 2 * BODY
    assert full.flops == pytest.approx(full.train_tokens * 6 * BODY + other)
    assert kept.flops == pytest.approx(full.train_tokens * 8 * BODY + other)
    lora = Hours.of(priced("lora", gradient_checkpointing=False))
    body = BODY + 4_194_304
    assert lora.flops == pytest.approx(lora.train_tokens * (4 * body + 2 * 4_194_304) + lora.other_tokens * 2 * body)
    assert lora.hours == pytest.approx(lora.flops / 100e12 / 3600)
    slow, fast = Hours.of(priced("lora", dtype="float32")), Hours.of(priced("lora"))
    assert slow.hours == pytest.approx(fast.hours * 100 / 15)


def test_more_takes_more() -> None:
    plain = Hours.of(priced("lora", batch_size=64))
    longer = Hours.of(priced("lora", epochs=20))
    assert longer.hours > plain.hours
    assert longer.bytes == plain.bytes
    for larger in (Hours.of(priced("lora", THIRTEEN)), Hours.of(priced("mosld"))):
        assert larger.hours > plain.hours
        assert larger.bytes > plain.bytes
    assert priced("lora", micro_tokens=16384).memory.total > plain.bytes
    assert Hours.of(priced("lora", max_length=512)).hours > plain.hours
    assert priced("lora", dtype="float32").memory.total > plain.bytes
    kept = Hours.of(priced("lora", gradient_checkpointing=False))
    assert kept.hours < plain.hours
    assert kept.bytes > plain.bytes
    few = priced("lora", batch_size=4, micro_tokens=8192)  # a micro-batch is at most the batch
    assert few.memory.total < plain.bytes


@pytest.mark.parametrize("sizes", [{}, {**SIZES, "c": None}, {**SIZES, "a": None}])
def test_an_unknown_size_makes_hours_unknown_and_leaves_memory(sizes: dict[str, TaskSize | None]) -> None:
    unknown = price(trial("lora"), *fitted("lora", SEVEN), sizes)
    assert unknown.flops is None
    assert unknown.hours is None
    assert unknown.memory == priced("lora").memory
    total = summary([unknown, priced("lora")])
    assert (total.trials, total.unknown, total.gpu_hours) == (2, 1, priced("lora").hours)
    assert summary([unknown]).wall_hours is None


def test_a_refusal_says_why_and_what_to_do() -> None:
    assert why_too_large(priced("full"), A100) == (
        "full on NousResearch/Llama-2-7b-hf needs about 148 GB (optimiser states 54, weights 27, the optimiser's step "
        "27, gradients 27, the base kept beside them 13); a GPU of 80 GB cannot hold it. Set optimizer: "
        "adafactor in the recipe: that brings it down to about 76 GB. Or spread it over 2 of them: --gpus-per-trial 2."
    )
    assert why_too_large(priced("full", optimizer="adafactor"), A100) is None
    both = why_too_large(priced("lora", dtype="float32", gradient_checkpointing=False), 24e9)
    assert both is not None
    assert "Set train.micro_tokens: 1024, train.gradient_checkpointing: true, train.dtype: bfloat16: together" in both
    large = priced("full", THIRTEEN, optimizer="adafactor")
    assert (why_too_large(large, A100) or "").endswith("Spread over 2 of them it has room: --gpus-per-trial 2.")
    assert "Even at its thriftiest it takes 132 GB: leave the recipe out" in (why_too_large(large, 4e9) or "")


def test_a_refusal_says_on_how_many_gpus_it_has_room() -> None:
    large = fitted("lora", SEVENTY)
    alone = price(trial("lora", SEVENTY), *large, SIZES)
    assert [alone.gpus_needed(gb * 1e9) for gb in (24, 80, 200, 1)] == [9, 3, 1, None]
    said = why_too_large(alone, A100)
    assert said is not None
    assert said.endswith("Spread over 3 of them it has room: --gpus-per-trial 3.")
    three = price(trial("lora", SEVENTY), *large, SIZES, gpus=3)
    assert why_too_large(three, A100) is None
    assert three.hours == alone.hours
    assert three.gpu_hours == pytest.approx(3 * (alone.hours or 0))
    assert "GB of each of its 3 GPUs" in (why_too_large(three, 40e9) or "")


def test_trials_of_two_gpus_have_half_as_many_places() -> None:
    prices = [replace(priced("lora"), hours=hours, gpus=2) for hours in (2.0, 3.0, 7.0)]
    total = summary(prices, 5)
    assert (total.gpu_hours, total.wall_hours) == (24, 7)


def test_the_summary_places_the_longest_first() -> None:
    prices = [replace(priced("lora"), hours=hours) for hours in (2.0, 3.0, 7.0, 4.0, 5.0)]
    assert summary(prices).wall_hours == summary(prices).gpu_hours == 21
    assert summary(prices, 2).wall_hours == 11  # 7 and 3; 5, 4 and 2
    assert summary(prices, 9).wall_hours == 7
    assert summary([*prices, priced("full")]).most_memory == priced("full").memory.total
    assert summary([]).gpu_hours is None
    with pytest.raises(ValueError, match="at least 1 GPU"):
        summary(prices, 0)


def test_sizes_come_from_the_definitions(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text("task: a\nmetadata: {version: 1.0, size: {train: 5, test: 3, tokens: 20.5}}")
    (tmp_path / "b.yaml").write_text("task: b\nmetadata: {version: 1.0}")
    files = TaskFiles.scan((tmp_path,))
    sizes = task_sizes(files, ["a", "b", "built-in"])
    assert sizes == {"a": TaskSize(train=5, test=3, tokens=20.5), "b": None, "built-in": None}
    (tmp_path / "b.yaml").write_text("task: b\nmetadata: {size: {train: 5, test: few, token: 3}}")
    with pytest.raises(BadFileError, match=r"metadata.size in .*b.yaml has 3 problem"):
        task_sizes(files, ["b"])


def test_hours_on_a_machine_without_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """By the rate of a core and the share of it that trials reach; a year's run is not offered."""
    monkeypatch.setattr(device, "cores", lambda: 2)
    workspace = Workspace(REPOSITORY, REPOSITORY)
    changes = {"recipes": ["lora"], "seeds": [0, 1, 2, 3], "frozen_base": False}
    plan = make_plan(Study.load(workspace.study_file("smollm2"), changes), workspace)
    flops = sum(price.flops or 0 for price in plan.prices if price)
    hours = flops / 2 / (REACHED_SHARE["bfloat16"] * 200e9) / 3600  # four equal trials, two at a time
    sentences = display.plan_sentences(plan, 8, 80e9, {"bfloat16": 200e9}.__getitem__)
    assert f"about {hours:.2g} hours with 2 trials at a time" in " ".join(sentences)
    assert "200 GFLOP/s" in " ".join(sentences)
    assert len(display.plan_sentences(plan, 8, 80e9)) == len(sentences) - 1
    slow = display.plan_sentences(plan, 8, 80e9, {"bfloat16": 200e6}.__getitem__)
    assert slow == display.plan_sentences(plan, 8, 80e9)
