"""The training loop: the batch is the study's however it is cut, and the loss is on the answer alone."""

from __future__ import annotations

import inspect
import math
import random
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from mosld_bench.errors import UnknownNameError
from mosld_bench.inputs.encoding import Request
from mosld_bench.inputs.items import Encoded
from mosld_bench.methods import registry
from mosld_bench.methods.base import Method
from mosld_bench.methods.live import checkpoint_layers
from mosld_bench.records.record import TrainInfo
from mosld_bench.spec.trial import RUNGS, VALIDATIONS, TrainSpec
from mosld_bench.trial.packed_scoring import score_plain
from mosld_bench.trial.train import (
    answer_loss,
    batch_order,
    make_optimizer,
    micro_batches,
    optimizer_step,
    schedule,
    train,
)
from mosld_bench.tuners.mixture.routing import RoutedLayer
from tests.support.models import build, config


def encoded(count: int = 24, seed: int = 0) -> list[Encoded]:
    """Items of two tasks in turns, with prompts and answers of random ids and lengths."""
    rng = random.Random(seed)
    return [
        Encoded(f"t{index % 2}", [rng.randint(3, 40) for _ in range(rng.randint(4, 30))], rng.randint(1, 3))
        for index in range(count)
    ]


class Trained(NamedTuple):
    """A model after training, and what training it took."""

    model: nn.Module
    info: TrainInfo

    @property
    def losses(self) -> list[float | None]:
        """The loss at every point of the curve."""
        return [point.loss for point in self.info.curve]


def trained(
    micro_tokens: int,
    recipe: str = "lora",
    *,
    rivals: Sequence[Sequence[float]] | None = None,
    ends_after: int | None = None,
    **spec: Any,
) -> Trained:
    """A model of two layers trained on :func:`encoded` items; ``spec``: fields of TrainSpec that differ."""
    params: dict[str, Any] = {
        "lora": {"peft_type": "LORA", "r": 2, "target_modules": ["q_proj", "v_proj"]},
        "mosld": {"r": 2, "experts": 3, "share": "down", "top_k": 2, "dropout": 0.2, "dropout_on": "weight",
                  "target_modules": ["q_proj", "v_proj"]},
    }[recipe]  # fmt: skip
    method = registry.get("peft" if recipe == "lora" else "mixture")
    torch.manual_seed(0)
    model = method.attach(build(config(layers=2)), params)
    defaults: dict[str, Any] = {"steps": 6, "batch_size": 8, "learning_rate": 1e-2, "micro_tokens": micro_tokens}
    info = train(
        model,
        method,
        examples=encoded(),
        validation=encoded(6, seed=1),
        spec=TrainSpec(**defaults | spec),
        learning_rate=1e-2,
        seed=3,
        pad=0,
        rivals=rivals,
        ends_after=ends_after,
    )
    return Trained(model, info)


def test_loss_is_the_mean_over_answer_tokens_by_definition() -> None:
    model, items = build(config()), encoded(5)
    expected = 0.0
    for item in items:
        logp = model(torch.tensor([item.ids])).logits[0].log_softmax(-1)
        expected -= sum(logp[i - 1, item.ids[i]].item() for i in range(len(item.ids) - item.answer, len(item.ids)))
    assert answer_loss(model, items, pad=0).item() == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("recipe", ["lora", "mosld"])
def test_micro_batches_change_nothing_but_rounding(recipe: str) -> None:
    """One forward for the whole batch, or one an example: the same training, weight dropout included."""
    whole, cut = trained(10_000, recipe), trained(1, recipe)
    for (name, a), b in zip(whole.model.named_parameters(), cut.model.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-3, atol=2e-4, msg=name)
    assert whole.losses == pytest.approx(cut.losses, rel=1e-3)


def test_info_adds_up() -> None:
    info = trained(64).info
    assert (info.steps, info.examples) == (6, 48)
    assert info.train_items == {"t0": 12, "t1": 12}
    assert info.validation_items == {"t0": 3, "t1": 3}
    assert info.exposures == {"t0": 2.0, "t1": 2.0}  # 48 examples are two epochs of 24
    assert 0 <= info.padding_share < 0.5
    assert info.curve[-1].validation_loss == info.final_validation_loss
    first, last = info.curve[0].loss, info.curve[-1].loss
    assert first is not None
    assert last is not None
    assert first > last
    assert [p.step for p in info.curve] == sorted({p.step for p in info.curve})


@pytest.mark.parametrize("steps", [3, 9, 12, 199, 201])
def test_a_curve_has_no_more_points_than_it_may(steps: int) -> None:
    """Curves of a study are compared by step, and `plan` prices the validation losses."""
    info = trained(10_000, steps=steps).info
    validated = [point.step for point in info.curve if point.validation_loss is not None]
    assert validated[-1] == steps
    assert min(steps, VALIDATIONS) / 2 < len(validated) <= VALIDATIONS
    assert len(info.curve) <= 200 + VALIDATIONS + 1


@pytest.mark.parametrize(("steps", "length"), [(400, {}), (300, {"steps": None, "epochs": 100.0}), (4, {"steps": 2})])
def test_what_ends_before_its_time_is_the_beginning_of_the_whole(steps: int, length: dict[str, Any]) -> None:
    """With a point of the curve for each of its steps; a training that is shorter than that is made longer."""
    more = {"steps": steps, "warmup_steps": 2} | length
    info = trained(10_000, ends_after=4, **more).info
    spec = TrainSpec(**more)
    assert (info.steps, info.examples, [point.step for point in info.curve]) == (4, 32, [1, 2, 3, 4])
    expected = [1e-2 * schedule(step, steps, spec) for step in range(1, 5)]
    assert [point.learning_rate for point in info.curve] == expected


def test_same_seed_same_examples_whatever_the_method() -> None:
    first, second = batch_order(10, 4, seed=7), batch_order(10, 4, seed=7)
    batches = [next(first) for _ in range(5)]
    assert batches == [next(second) for _ in range(5)]
    assert sorted(index for batch in batches for index in batch) == sorted(2 * list(range(10)))
    assert batches != [next(batch_order(10, 4, seed=8)) for _ in range(5)]


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(2, 300), min_size=1, max_size=20), st.integers(1, 900))
def test_cuts_keep_every_example_and_the_token_budget(lengths: list[int], tokens: int) -> None:
    batch = [Encoded("t", [1] * length, 1) for length in lengths]
    pieces = micro_batches(batch, tokens)
    assert sorted(len(e.ids) for piece in pieces for e in piece) == sorted(lengths)
    assert all(len(piece) == 1 or len(piece) * max(len(e.ids) for e in piece) <= tokens for piece in pieces)


def test_long_examples_do_not_pad_short_ones() -> None:
    batch = [Encoded("t", [1] * length, 1) for length in (300, 20, 22, 21, 290)]
    assert [[len(e.ids) for e in piece] for piece in micro_batches(batch, 1000)] == [[300, 290], [22, 21, 20]]


HOPELESS, EASY = (0.1, 0.2, 0.3), (90.0, 91.0, 92.0)  # losses that no run here is below, and that every run is below


def validation_losses(info: TrainInfo) -> list[float]:
    return [point.validation_loss for point in info.curve if point.validation_loss is not None]


@pytest.mark.parametrize(
    ("rivals", "steps", "judged"),
    [
        ((EASY, EASY, EASY), 10, [True, True, True]),
        ((HOPELESS, EASY, EASY), 2, [False]),
        ((EASY, HOPELESS, EASY), 4, [True, False]),
        ((EASY, EASY, HOPELESS), 8, [True, True, False]),
        ((HOPELESS[:2], (), EASY), 10, [True, True]),  # two stop nobody, and none is no decision
        ((), 10, []),
    ],
)
def test_a_run_of_a_search_ends_at_the_rung_where_it_is_in_the_worse_half(
    rivals: tuple[tuple[float, ...], ...], steps: int, judged: list[bool]
) -> None:
    """Ten steps, five validations, rungs after the first, second and fourth. Up to its end it is the same training."""
    whole, info = trained(10_000, steps=10).info, trained(10_000, steps=10, rivals=rivals).info
    assert (info.steps, info.examples, info.stopped) == (steps, 8 * steps, steps < 10)
    assert [point.loss for point in info.curve] == [point.loss for point in whole.curve][: len(info.curve)]
    losses = validation_losses(whole)
    assert validation_losses(info) == losses[: steps // 2]
    assert info.final_validation_loss == (losses[-1] if steps == 10 else None)
    assert [judgement.goes_on for judgement in info.judged] == judged
    held = [(rung, others) for rung, others in zip(RUNGS, rivals, strict=False) if others][: len(judged)]
    for (rung, others), judgement in zip(held, info.judged, strict=True):
        assert (judgement.step, judgement.loss, judgement.rivals) == (2 * rung, losses[rung - 1], others)
    assert (whole.judged, whole.stopped) == ((), False)


def test_the_last_validation_stops_nobody() -> None:
    """Of four steps the fourth rung is the end."""
    info = trained(10_000, steps=4, rivals=(EASY, EASY, HOPELESS)).info
    assert (info.steps, info.stopped, len(info.judged)) == (4, False, 2)
    assert info.final_validation_loss is not None


@pytest.mark.parametrize("step", [1, 2])
def test_a_run_of_a_search_that_diverges_ends_and_says_when(step: int) -> None:
    method = registry.get("full")
    model = method.attach(build(config(layers=1)), {})
    head, calls = model.get_parameter("lm_head.weight"), [0]

    def break_at(gradient: torch.Tensor) -> torch.Tensor:
        calls[0] += 1
        return gradient * (float("nan") if calls[0] == step else 1.0)

    head.register_hook(break_at)  # type: ignore[no-untyped-call]
    options = TrainSpec(steps=10, gradient_clip=None)
    info = train(
        model, method, examples=encoded(), validation=encoded(6, seed=1), spec=options, learning_rate=1e-2, seed=0,
        pad=0, rivals=(),
    )  # fmt: skip
    assert info.stopped
    assert info.steps == 2
    assert "loss became nan at step 2 of 10" in (info.diverged or "")
    assert info.final_validation_loss is None
    assert validation_losses(info) == []


def test_schedules() -> None:
    spec = TrainSpec(steps=10, warmup_steps=2, schedule="linear")
    shares = [schedule(step, 10, spec) for step in range(1, 11)]
    assert shares == pytest.approx([1 / 3, 2 / 3, 1, 7 / 8, 6 / 8, 5 / 8, 4 / 8, 3 / 8, 2 / 8, 1 / 8])
    assert schedule(6, 10, TrainSpec(steps=10, schedule="cosine")) == pytest.approx(0.5)
    assert schedule(9, 10, TrainSpec(steps=10, schedule="constant")) == 1


def test_a_loss_that_is_no_number_stops_the_trial() -> None:
    method = registry.get("full")
    model = method.attach(build(config(layers=1)), {})
    with torch.no_grad():
        model.get_parameter("lm_head.weight").fill_(float("nan"))
    with pytest.raises(FloatingPointError, match="loss became nan at step"):
        train(
            model, method, examples=encoded(), validation=[], spec=TrainSpec(steps=3), learning_rate=1e-2, seed=0, pad=0
        )


def test_an_update_that_breaks_the_model_stops_the_trial() -> None:
    """The training loss is that of before the update, so the validation loss is what the last one shows in."""
    method = registry.get("full")
    model = method.attach(build(config(layers=1)), {})
    head = model.get_parameter("lm_head.weight")
    head.register_hook(lambda gradient: gradient * float("nan"))  # type: ignore[no-untyped-call]
    options = TrainSpec(steps=1, gradient_clip=None)
    with pytest.raises(FloatingPointError, match="validation loss became nan at step 1 of 1"):
        train(model, method, examples=encoded(), validation=encoded(4), spec=options, learning_rate=1e-2, seed=0, pad=0)
    ((value, _),) = score_plain(model, [Request([3, 4], [5])], pad=0, tokens=64)
    assert math.isnan(value)


def test_the_balance_loss_counts_every_token_once() -> None:
    """A mean over the tokens of a micro-batch has its share of the tokens, however the batch is cut."""

    class Balanced(Method):
        def attach(self, model: nn.Module, params: Mapping[str, Any]) -> nn.Module:
            return model

        def aux_loss(self, model: nn.Module) -> torch.Tensor:
            return seen[-1].float().mean()

    seen: list[torch.Tensor] = []
    model = build(config(layers=1)).requires_grad_(True)
    model.register_forward_pre_hook(
        lambda module, args, inputs: seen.append(inputs["input_ids"][inputs["attention_mask"].bool()]),
        with_kwargs=True,
    )
    items = encoded(7)
    ids = [token for item in items for token in item.ids]
    for tokens in (10_000, 60, 1):
        spec = TrainSpec(steps=1, micro_tokens=tokens)
        optimizer = make_optimizer("adamw", list(model.parameters()), learning_rate=0.0, weight_decay=0.0)
        result = optimizer_step(model, Balanced(), items, spec=spec, optimizer=optimizer, pad=0)
        assert result.aux_loss is not None
        assert float(result.aux_loss) == pytest.approx(sum(ids) / len(ids), rel=1e-5)


def test_bfloat16_and_checkpointing_follow_the_float32_curve() -> None:
    assert trained(512, dtype="bfloat16").losses == pytest.approx(trained(512).losses, rel=0.05)


def gradient(parameter: nn.Parameter) -> torch.Tensor:
    assert parameter.grad is not None
    return parameter.grad


@pytest.mark.parametrize("recipe", ["mixlora", "mosld"])
def test_checkpointing_leaves_no_graph_behind(recipe: str) -> None:
    """The forward that checkpointing repeats must not leave balance losses: each would hold a layer's activations."""
    method = registry.get("mixture" if recipe == "mosld" else "mixlora")
    params: dict[str, Any] = {"r": 2, "experts": 3, "top_k": 2, "balance_coef": 0.1}
    params |= {"share": "down", "target_modules": ["q_proj", "v_proj"]} if recipe == "mosld" else {}
    gradients: list[dict[str, torch.Tensor]] = []
    for checkpointed in (False, True):
        torch.manual_seed(0)
        model = method.attach(build(config(layers=2)), params)
        if checkpointed:
            checkpoint_layers(model, True)
        model.train()
        loss, balance = answer_loss(model, encoded(4), 0), method.aux_loss(model)
        assert balance is not None
        (loss + balance).backward()  # type: ignore[no-untyped-call]
        routed = [module for module in model.modules() if isinstance(module, RoutedLayer)]
        assert len(routed) >= 2
        assert all(module.balance is None for module in routed)
        gradients.append({name: gradient(p) for name, p in model.named_parameters() if p.requires_grad})
    kept, repeated = gradients
    assert all(torch.allclose(kept[name], repeated[name], atol=1e-6) for name in kept)
    assert any("router" in name and gradient.abs().sum() > 0 for name, gradient in repeated.items())


def test_warm_up_takes_no_more_than_its_share() -> None:
    spec = TrainSpec(steps=50, warmup_steps=100, warmup_limit=0.1)
    rates = [schedule(step, 50, spec) for step in range(1, 51)]
    assert rates.index(max(rates)) == 5
    assert rates[-1] < 0.05


def test_adafactor_by_its_equations() -> None:
    """Two steps on one matrix against arXiv 1804.04235, algorithm 4, at the small gradients of a large model."""
    torch.manual_seed(0)
    weight = nn.Parameter(torch.randn(4, 3, dtype=torch.float64))
    gradients = [1e-6 * torch.randn(4, 3, dtype=torch.float64) for _ in range(2)]
    x, rows, columns = weight.detach().clone(), torch.zeros(4).double(), torch.zeros(3).double()
    optimizer = make_optimizer("adafactor", [weight], learning_rate=1e-2, weight_decay=0.0)
    for t, g in enumerate(gradients, 1):
        weight.grad = g.clone()
        optimizer.step()
        decay = 1 - t**-0.8
        rows = decay * rows + (1 - decay) * (g**2).mean(1)
        columns = decay * columns + (1 - decay) * (g**2).mean(0)
        second = rows[:, None] * columns[None, :] / rows.mean()
        update = g / second.sqrt()
        update = update / max(1.0, update.pow(2).mean().sqrt().item())
        x = x - max(1e-3, x.pow(2).mean().sqrt().item()) * min(1e-2, t**-0.5) * update
    assert torch.allclose(weight.detach(), x, atol=1e-9)
    state = sum(v.numel() for v in optimizer.state[weight].values() if isinstance(v, torch.Tensor) and v.numel() > 1)
    assert state == 4 + 3


@pytest.mark.parametrize("name", ["adamax", "", 512])
def test_an_unknown_optimizer_is_refused(name: str) -> None:
    """A number that slipped into its place had trained with AdamW."""
    with pytest.raises(UnknownNameError, match=r"no optimizer named .* Known: adafactor, adamw"):
        make_optimizer(name, [nn.Parameter(torch.zeros(2))], learning_rate=1e-3, weight_decay=0.0)


def test_what_training_is_given_is_named() -> None:
    """Nothing behind the model and the method can slip into another's place."""

    def positional(function: Callable[..., object]) -> list[str]:
        parameters = inspect.signature(function).parameters.values()
        return [parameter.name for parameter in parameters if parameter.kind is not inspect.Parameter.KEYWORD_ONLY]

    assert positional(train) == ["model", "method"]
    assert positional(optimizer_step) == ["model", "method", "batch"]
    assert positional(make_optimizer) == ["name", "parameters"]


def test_a_method_is_called_after_every_step_while_its_gradients_are_there() -> None:
    """And before the next forward, with the weights that the optimiser has just set."""

    class Following(Method):
        def attach(self, model: nn.Module, params: Mapping[str, Any]) -> nn.Module:
            return model

        def before_step(self, model: nn.Module) -> None:
            calls.append(("before", head(model).clone()))

        def after_step(self, model: nn.Module, step: int, steps: int) -> None:
            assert head(model).grad is not None
            assert not torch.equal(head(model), calls[-1][1]), "the optimiser was there"
            calls.append((f"{step} of {steps}", head(model).clone()))

    def head(model: nn.Module) -> nn.Parameter:
        weight: nn.Parameter = model.lm_head.weight  # type: ignore[assignment, union-attr]
        return weight

    calls: list[tuple[str, torch.Tensor]] = []
    model = build(config(layers=1)).requires_grad_(True)
    spec = TrainSpec(steps=3, batch_size=4, micro_tokens=40)  # several forwards a step
    train(model, Following(), examples=encoded(8), validation=encoded(2), spec=spec, learning_rate=1e-2, seed=0, pad=0)
    assert [call for call, _ in calls] == ["before", "1 of 3", "before", "2 of 3", "before", "3 of 3"]
    assert torch.equal(calls[1][1], calls[2][1])
    assert head(model).grad is None
