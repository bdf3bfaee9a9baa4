"""Measure a profile: every recipe and the frozen base in turns, round after round, in this process.

A busy machine slows whoever is at work, so each round measures every recipe once, in an order of its own, and what is
compared is compared within a round. A recipe is built anew for its turn and shares the base's weights, so that no other
recipe's memory is beside it.
"""

from __future__ import annotations

import random
import time
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from mosld_bench.cost.flops import attached, flops
from mosld_bench.cost.memory import ANSWER_SHARE, Shape, UnknownShapeError, memory_of
from mosld_bench.errors import BenchError, ModelError, ResourceError, UnknownNameError
from mosld_bench.inputs.models import load_base, load_config
from mosld_bench.methods import base_size, fit_budget, registry
from mosld_bench.methods.live import checkpoint_layers, copy_sharing_weights, unshare_trainable
from mosld_bench.records.profile import Entry, Profile, Workload
from mosld_bench.records.provenance import meta_info, now
from mosld_bench.spec.budget import NATIVE
from mosld_bench.spec.recipe import Recipe
from mosld_bench.spec.study import Study
from mosld_bench.spec.trial import Fit, ModelSpec, PlannedTrial, TrainSpec
from mosld_bench.trial.device import Clock, PeakMemory, available, release, resident
from mosld_bench.trial.train import Encoded, make_optimizer, optimizer_step

if TYPE_CHECKING:
    from transformers import PreTrainedConfig

DEVICES = ("cpu", "cuda")


@dataclass(frozen=True)
class Options:
    """How to measure, as given on the command line; ``load`` has what each recipe is given to do."""

    load: Workload
    device: str | None = None  # None: a GPU if there is one
    dtype: str | None = None  # None: the study's
    random_weights: bool = False
    model_root: Path | None = None
    command: str | None = None


@dataclass(frozen=True)
class _Job:
    recipe: Recipe
    budget: str
    fit: Fit


@dataclass(frozen=True)
class _Bench:
    """What all turns share."""

    base: nn.Module
    device: str
    spec: TrainSpec
    load: Workload
    ids: Tensor  # (batch or streams, prompt_tokens), the larger number of rows


def narrowed(study: Study, budget: str | None = None) -> Study:
    """``study`` with one model, budget, setting and seed, as a profile takes it: its first of each.

    ``budget``: as given on the command line, where more than one is refused.
    """
    if budget is not None and len(study.budgets) > 1:
        raise BenchError(f"A profile is made at one budget; given: {budget}. Run it once for each.")
    few = {"models": study.models[:1], "budgets": study.budgets[:1], "settings": study.settings[:1], "parts": ()}
    return study.model_copy(update={**few, "seeds": study.seeds[:1], "general": None})


def workload(**given: int) -> Workload:
    """The workload given on the command line, an eighth of a text its answer. Raises BenchError for what is below 1."""
    low = next((name for name, value in given.items() if value < 1), None)
    if low is not None:
        raise BenchError(f"--{low.replace('_', '-')} takes 1 or more; given: {given[low]}.")
    return Workload(answer_tokens=max(1, round(ANSWER_SHARE * given["prompt_tokens"])), **given)


def profile(
    study: Study,
    planned: Sequence[PlannedTrial],
    config: PreTrainedConfig,
    options: Options,
    say: Callable[[str], None] = lambda line: None,
) -> Profile:
    """Measure the recipes of ``planned`` on the first model of ``study``, whose configuration is ``config``.

    Each recipe once, however many trials it has.

    Raises BenchError for a load that the model or the machine cannot take, before anything is built.
    """
    started, clock = now(), time.perf_counter()
    device, model, load = _device(options.device), study.models[0], options.load
    jobs = _jobs(planned, config)
    spec = _spec(study.train, load, options.dtype)
    _check_positions(config, jobs, load)
    _check_memory(config, jobs, spec, device)
    torch.manual_seed(0)
    bench = _Bench(
        base=_base(model, spec, device, options),
        device=device,
        spec=spec,
        load=load,
        ids=torch.randint(0, config.vocab_size, (max(load.batch, load.streams), load.prompt_tokens)).to(device),
    )
    entries = [_counted(job, config, bench) for job in jobs]
    turns: list[list[dict[str, Any]]] = [[] for _ in jobs]
    for i in range(load.rounds):
        say(f"round {i + 1} of {load.rounds}: {len(jobs)} recipes")
        for place in random.Random(i).sample(range(len(jobs)), len(jobs)):
            turns[place].append(_turn(bench, jobs[place]))
            release(device)
    trained = [job.recipe.name for job in jobs if job.fit.trainable]
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
        entries=tuple(
            entry.model_copy(update={key: tuple(turn[key] for turn in found) for key in found[0]})
            for entry, found in zip(entries, turns, strict=True)
        ),
        meta_info=meta_info(started, time.perf_counter() - clock, device, options.command),
    )


def _device(asked: str | None) -> str:
    if asked is None:
        return "cuda" if torch.cuda.is_available() else "cpu"
    if asked not in DEVICES:
        raise UnknownNameError("device", asked, DEVICES, "CUDA_VISIBLE_DEVICES names one GPU of several.")
    if asked == "cuda" and not torch.cuda.is_available():
        raise ResourceError("--device cuda, but torch finds no CUDA device here. Use --device cpu, or leave it out.")
    return asked


def _jobs(planned: Sequence[PlannedTrial], config: PreTrainedConfig) -> list[_Job]:
    """The frozen base, then every recipe of the plan, each once."""
    found: dict[str, _Job] = {}
    for trial, fit in planned:
        found.setdefault(trial.recipe.name, _Job(trial.recipe, trial.budget, fit))
    frozen = next((job for job in found.values() if job.recipe.method == "base"), None)
    if frozen is None:
        recipe = Recipe(name="base", title="Frozen base", method="base")
        frozen = _Job(recipe, NATIVE, fit_budget(recipe, config, NATIVE))
    return [frozen, *(job for job in found.values() if job is not frozen)]


def _spec(train: TrainSpec | None, load: Workload, dtype: str | None) -> TrainSpec:
    """The study's way to train, on the texts of ``load``."""
    spec = train or TrainSpec(steps=1)
    if dtype not in (None, "float32", "bfloat16"):
        raise UnknownNameError("dtype", dtype, ("float32", "bfloat16"))
    return spec.model_copy(
        update={"batch_size": load.batch, "max_length": load.prompt_tokens, "dtype": dtype or spec.dtype}
    )


def _check_positions(config: Any, jobs: list[_Job], load: Workload) -> None:
    most = getattr(config, "max_position_embeddings", None)
    for job in jobs:
        virtual = job.fit.params.get("num_virtual_tokens", 0)
        needed = virtual + load.prompt_tokens + load.new_tokens
        if most is not None and needed > most:
            before = f"{virtual} virtual tokens of {job.recipe.name}, " if virtual else ""
            raise BenchError(
                f"{before}{load.prompt_tokens} tokens of a prompt and {load.new_tokens} new ones come to {needed} "
                f"positions, but the model has {most}. Lower --prompt-tokens or --new-tokens"
                + (", or leave the recipe out of --methods." if virtual else ".")
            )


def _check_memory(config: Any, jobs: list[_Job], spec: TrainSpec, device: str) -> None:
    """Refuse by the estimate of `memory.py` what this machine has no room for."""
    room = available(device)
    try:
        shape = Shape.of(config)
    except UnknownShapeError:
        return
    for job in jobs:
        needed = memory_of(job.fit, shape, spec, job.recipe.optimizer).total
        if needed > room:
            remedy = "leave the recipe out of --methods" if job.fit.trainable else "take another --model"
            raise ResourceError(
                f"To measure {job.recipe.name} takes about {needed / 1e9:.1f} GB in {spec.dtype}, and {device} has "
                f"{room / 1e9:.1f} GB free. Use --dtype bfloat16 or a smaller --batch or --prompt-tokens, or {remedy}."
            )


def _base(model: ModelSpec, spec: TrainSpec, device: str, options: Options) -> nn.Module:
    from transformers import AutoModelForCausalLM, GenerationConfig

    dtype = getattr(torch, spec.dtype)
    if options.random_weights:
        with torch.device(device):
            made: Any = AutoModelForCausalLM.from_config(load_config(model, options.model_root), dtype=dtype)
        made.requires_grad_(False).eval()
    else:
        try:
            made = load_base(model, dtype, device, options.model_root)
        except ModelError as error:
            raise ModelError(f"{error} Or give --random-weights, which cost the same.") from error
    made.generation_config = GenerationConfig()  # greedy, and no token ends a text, so that all are as long
    return made  # type: ignore[no-any-return]


def _counted(job: _Job, config: Any, bench: _Bench) -> Entry:
    """What needs no measuring."""
    method, load = registry.get(job.recipe.method), bench.load
    shapes = attached(method, config, job.fit.params)
    return Entry(
        recipe=job.recipe,
        budget=job.budget,
        fit=job.fit,
        active=method.active(shapes),
        stored=stored(method.attach(copy_sharing_weights(bench.base), job.fit.params)),
        flops=flops(method, shapes, load.prompt_tokens, load.answer_tokens),
        prompt=(),
        decode=(),
    )


def stored(model: nn.Module) -> int:
    """Numbers that ``save_pretrained`` writes: of a frozen model none, of PEFT's the adapter, else the whole model."""
    if not any(parameter.requires_grad for parameter in model.parameters()):
        return 0
    if not hasattr(model, "peft_config"):
        return sum(parameter.numel() for parameter in model.parameters())
    from peft import get_peft_model_state_dict

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # that a model made in memory has no file to compare with
        saved = get_peft_model_state_dict(model, save_embedding_layers=False)
    return sum(tensor.numel() for tensor in saved.values())


def _turn(bench: _Bench, job: _Job) -> dict[str, Any]:
    """Build one recipe's model and measure it once: field of Entry -> value."""
    torch.manual_seed(0)
    method = registry.get(job.recipe.method)
    model = method.attach(copy_sharing_weights(bench.base), job.fit.params)
    unshare_trainable(model, bench.base)
    model.to(bench.device)
    used = {parameter.data_ptr() for parameter in model.parameters()}
    beside = sum(p.nbytes for p in bench.base.parameters() if p.data_ptr() not in used)  # kept, but not by this model
    found: dict[str, Any] = {}
    if job.fit.trainable:
        checkpointed = bench.spec.gradient_checkpointing and method.checkpoints(job.fit.params)
        spec = bench.spec.model_copy(update={"gradient_checkpointing": checkpointed})
        found = _train(replace(bench, spec=spec), job, model, method, beside)
    for parameter in model.parameters():  # answers in the dtype of the base; what trains is float32
        if parameter.requires_grad:
            parameter.data = parameter.data.to(getattr(torch, bench.spec.dtype))
    return found | _answer(bench, model.eval(), beside)


def _train(bench: _Bench, job: _Job, model: nn.Module, method: Any, beside: int) -> dict[str, Any]:
    """The steps of a trial, at a learning rate of 0, so that all of them do the same work on the same weights."""
    load, spec = bench.load, bench.spec
    batch = [Encoded("", row, load.answer_tokens) for row in bench.ids[: load.batch].tolist()]
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    stepper = make_optimizer(job.recipe.optimizer, trained, 0.0, spec.weight_decay)
    if spec.gradient_checkpointing:
        checkpoint_layers(model, True)
    model.train()

    def step() -> None:
        optimizer_step(model, method, batch, spec, stepper, 0)

    release(bench.device)
    before = beside if bench.device != "cpu" else resident()
    with PeakMemory(bench.device, every=0.002) as memory:
        for _ in range(2):  # the first makes the optimiser's state
            step()
    seconds = Clock(bench.device).seconds(step)
    if spec.gradient_checkpointing:
        checkpoint_layers(model, False)
    return {"train": seconds, "train_memory": max(0, memory.peak - before)}


@torch.no_grad()
def _answer(bench: _Bench, model: nn.Module, beside: int) -> dict[str, Any]:
    """A prompt as a server reads it, with the cache on and scores of its last token alone; then greedy decoding."""
    from transformers import LogitsProcessor

    ids, clock = bench.ids[: bench.load.streams], Clock(bench.device)
    mask = torch.ones_like(ids)

    class Begin(LogitsProcessor):  # type: ignore[misc]
        """Called before each new token is chosen: the first time, the prompt has just been read."""

        mark: Any = None

        def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
            if self.mark is None:
                self.mark = clock.mark()
            return scores

    def prompt() -> None:
        model(input_ids=ids, attention_mask=mask, use_cache=True, logits_to_keep=1)

    def decode(tokens: int) -> float:
        begin = Begin()
        made = model.generate(  # type: ignore[operator]
            input_ids=ids, attention_mask=mask, max_new_tokens=1 + tokens, pad_token_id=0, logits_processor=[begin]
        )
        seconds = clock.between(begin.mark, clock.mark())
        assert made.shape[1] == ids.shape[1] + 1 + tokens, "the text ended early"
        return seconds / tokens

    prompt()
    seconds = clock.seconds(prompt)
    decode(1)
    with PeakMemory(bench.device) as memory:
        token = decode(bench.load.new_tokens)
    peak = {"decode_memory": memory.peak - beside} if bench.device != "cpu" else {}
    return {"prompt": seconds, "decode": token, **peak}
