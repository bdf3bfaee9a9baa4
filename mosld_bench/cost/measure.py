"""Measure a profile: every recipe and the frozen base in turns, round after round, in this process.

A busy machine slows whoever is at work, so each round measures every recipe once, in an order of its own, and what is
compared is compared within a round. A recipe is built anew for its turn (see `turn.py`).
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Sequence
from dataclasses import KW_ONLY, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import nn

from mosld_bench.compat.torch import bfloat16_products
from mosld_bench.cost.activations import activations_of
from mosld_bench.cost.flops import attached_on_meta, flops
from mosld_bench.cost.memory import ANSWER_TOKEN_SHARE, Shape, UnknownShapeError, memory_of
from mosld_bench.cost.turn import Bench, Turn, take_turn
from mosld_bench.errors import BenchError, ModelError, ResourceError, UnknownNameError
from mosld_bench.inputs import load_base, load_config
from mosld_bench.inputs.rounding import check_can_round
from mosld_bench.methods import base_size, fit_budget, registry
from mosld_bench.methods.attaching import attach
from mosld_bench.methods.live import copy_sharing_weights, own_if_written, stored
from mosld_bench.methods.rounding import check_rounded
from mosld_bench.records.profile import Entry, Profile, Workload
from mosld_bench.records.provenance import meta_info, now
from mosld_bench.spec.budget import NATIVE
from mosld_bench.spec.recipe import Recipe
from mosld_bench.spec.study import Study
from mosld_bench.spec.trial import Fit, Load, ModelSpec, PlannedTrial, TrainSpec
from mosld_bench.trial import available, release

if TYPE_CHECKING:
    from transformers import PreTrainedConfig

DEVICES = ("cpu", "cuda")


@dataclass(frozen=True)
class Options:
    """How to measure, as given on the command line; ``load`` has what each recipe is given to do."""

    load: Workload
    _: KW_ONLY
    device: str | None = None  # None: a GPU if there is one
    dtype: str | None = None  # None: the study's
    random_weights: bool = False
    model_root: Path | None = None
    command: str | None = None


class _Measured(NamedTuple):
    """A recipe to be measured, as ``fit`` sizes it."""

    recipe: Recipe
    budget: str
    fit: Fit


def narrowed(study: Study, budget: str | None = None) -> Study:
    """``study`` with one model, budget, setting and seed, as a profile takes it: its first of each.

    ``budget``: as given on the command line, where more than one is refused.
    """
    if budget is not None and len(study.budgets) > 1:
        raise BenchError(f"A profile is made at one budget; given: {budget}. Run it once for each.")
    first = {"models": study.models[:1], "budgets": study.budgets[:1], "settings": study.settings[:1], "parts": ()}
    return study.model_copy(update={**first, "seeds": study.seeds[:1], "general": None})


def workload(**given: int) -> Workload:
    """The workload given on the command line, an eighth of a text its answer. Raises BenchError for what is below 1."""
    for name, value in given.items():
        if value < 1:
            raise BenchError(f"--{name.replace('_', '-')} takes 1 or more; given: {value}.")
    return Workload(answer_tokens=max(1, round(ANSWER_TOKEN_SHARE * given["prompt_tokens"])), **given)


def profile(
    study: Study,
    planned: Sequence[PlannedTrial],
    config: PreTrainedConfig,
    options: Options,
    *,
    say: Callable[[str], None] = lambda line: None,
) -> Profile:
    """Measure the recipes of ``planned`` on the first model of ``study``, whose configuration is ``config``.

    Each recipe once, however many trials it has. ``say`` is called with a line at the beginning of every round.

    Raises BenchError for a load that the model or the machine cannot take, before anything is built.
    """
    started, clock = now(), time.perf_counter()
    device, model, load = _device(options.device), study.models[0], options.load
    recipes = _recipes(planned, config)
    spec = _spec(study.train, load, options.dtype)
    for recipe, _, fit in recipes:
        check_rounded(recipe, fit.params, model, config, spec.dtype)
    _check_positions(config, recipes, load)
    _check_memory(config, recipes, spec, device, model.load)
    torch.manual_seed(0)
    bench = Bench(
        base=_base(model, spec, device, options),
        device=device,
        spec=spec,
        load=load,
        ids=torch.randint(0, config.vocab_size, (max(load.batch, load.streams), load.prompt_tokens)).to(device),
    )
    entries = [_counted(measured, config, bench) for measured in recipes]
    turns: list[list[Turn]] = [[] for _ in recipes]
    for i in range(load.rounds):
        say(f"round {i + 1} of {load.rounds}: {len(recipes)} recipes")
        for place in random.Random(i).sample(range(len(recipes)), len(recipes)):
            with bfloat16_products(spec.dtype, device):
                turns[place].append(take_turn(bench, recipes[place].recipe, recipes[place].fit))
            release(device)
    trained = [measured.recipe.name for measured in recipes if measured.fit.trainable]
    reference = study.reference if study.reference in trained or not trained else trained[0]
    return Profile(
        study=study.name,
        model=model,
        random_weights=options.random_weights,
        base_parameters=base_size(config),
        dtype=spec.dtype,
        device=device,
        checkpointing=spec.gradient_checkpointing,
        reference=reference,
        load=load,
        entries=tuple(_with_turns(entry, taken) for entry, taken in zip(entries, turns, strict=True)),
        meta_info=meta_info(started, time.perf_counter() - clock, device, options.command, load=model.load),
    )


def _with_turns(entry: Entry, turns: Sequence[Turn]) -> Entry:
    """``entry`` with what its turns measured, one value a round."""
    rounds = {field: tuple(getattr(turn, field) for turn in turns) for field in Turn._fields}
    return entry.model_copy(update={field: values for field, values in rounds.items() if None not in values})


def _device(asked: str | None) -> str:
    """The device to measure on. Raises UnknownNameError or ResourceError for one that is not to be had."""
    if asked is None:
        return "cuda" if torch.cuda.is_available() else "cpu"
    if asked not in DEVICES:
        raise UnknownNameError("device", asked, DEVICES, "CUDA_VISIBLE_DEVICES names one GPU of several.")
    if asked == "cuda" and not torch.cuda.is_available():
        raise ResourceError("--device cuda, but torch finds no CUDA device here. Use --device cpu, or leave it out.")
    return asked


def _recipes(planned: Sequence[PlannedTrial], config: PreTrainedConfig) -> list[_Measured]:
    """The frozen base, then every recipe of the plan, each once."""
    by_name: dict[str, _Measured] = {}
    for trial, fit in planned:
        by_name.setdefault(trial.recipe.name, _Measured(trial.recipe, trial.budget, fit))
    frozen = next((measured for measured in by_name.values() if measured.recipe.method == "base"), None)
    if frozen is None:
        recipe = Recipe(name="base", title="Frozen base", method="base")
        frozen = _Measured(recipe, NATIVE, fit_budget(recipe, config, NATIVE))
    return [frozen, *(measured for measured in by_name.values() if measured is not frozen)]


def _spec(train: TrainSpec | None, load: Workload, dtype: str | None) -> TrainSpec:
    """The study's way to train, on the texts of ``load``. Raises UnknownNameError for another dtype."""
    spec = train or TrainSpec(steps=1)
    if dtype not in (None, "float32", "bfloat16"):
        raise UnknownNameError("dtype", dtype, ("float32", "bfloat16"))
    return spec.model_copy(
        update={"batch_size": load.batch, "max_length": load.prompt_tokens, "dtype": dtype or spec.dtype}
    )


def _check_positions(config: Any, recipes: list[_Measured], load: Workload) -> None:
    """Raise BenchError where a text of ``load`` is longer than the model's positions."""
    most = getattr(config, "max_position_embeddings", None)
    for recipe, _, fit in recipes:
        virtual = fit.params.get("num_virtual_tokens", 0)
        needed = virtual + load.prompt_tokens + load.new_tokens
        if most is not None and needed > most:
            before = f"{virtual} virtual tokens of {recipe.name}, " if virtual else ""
            raise BenchError(
                f"{before}{load.prompt_tokens} tokens of a prompt and {load.new_tokens} new ones come to {needed} "
                f"positions, but the model has {most}. Lower --prompt-tokens or --new-tokens"
                + (", or leave the recipe out of --methods." if virtual else ".")
            )


def _check_memory(
    config: Any, recipes: list[_Measured], spec: TrainSpec, device: str, load: Load | None = None
) -> None:
    """Raise ResourceError for what this machine has no room for, by the estimate of `memory.py`."""
    room = available(device)
    try:
        shape = Shape.of(config, load)
    except UnknownShapeError:
        return
    for recipe, _, fit in recipes:
        kept = activations_of(recipe, fit, config, spec.dtype)
        needed = memory_of(fit, shape, spec, optimizer=recipe.optimizer, kept=kept).total
        if needed > room:
            remedy = "leave the recipe out of --methods" if fit.trainable else "take another --model"
            raise ResourceError(
                f"To measure {recipe.name} takes about {needed / 1e9:.1f} GB in {spec.dtype}, and {device} has "
                f"{room / 1e9:.1f} GB free. Use --dtype bfloat16 or a smaller --batch or --prompt-tokens, or {remedy}."
            )


def _base(model: ModelSpec, spec: TrainSpec, device: str, options: Options) -> nn.Module:
    """The frozen base model on ``device``. Raises ModelError where its weights are missing and not to be random."""
    from transformers import AutoModelForCausalLM

    dtype = getattr(torch, spec.dtype)
    if options.random_weights:
        with torch.device(device):
            base: nn.Module = AutoModelForCausalLM.from_config(load_config(model, options.model_root), dtype=dtype)
        if model.load:
            check_can_round(model)
            from mosld_bench.compat.bitsandbytes_layers import round_in_place

            round_in_place(base, model.load, dtype)
        return base.requires_grad_(False).eval()
    try:
        return load_base(model, dtype, device, options.model_root)
    except ModelError as error:
        raise ModelError(f"{error} Or give --random-weights, which cost the same.") from error


def _counted(measured: _Measured, config: Any, bench: Bench) -> Entry:
    """What needs no measuring."""
    recipe, budget, fit = measured
    method, load = registry.get(recipe.method), bench.load
    shapes = attached_on_meta(method, config, fit.params)
    with own_if_written(bench.base):
        numbers = stored(attach(method, copy_sharing_weights(bench.base), fit.params), bench.base)
    return Entry(
        recipe=recipe,
        budget=budget,
        fit=fit,
        active=method.active(shapes),
        stored=numbers,
        flops=flops(method, shapes, tokens=load.prompt_tokens, answer=load.answer_tokens),
        prompt=(),
        decode=(),
    )
