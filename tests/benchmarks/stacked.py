"""A prototype: the trials of one recipe, of other seeds and learning rates, trained as one model with a leading axis.

The frozen model runs once, on the batches of all trials beneath each other; the adapters of a module are stacked and
multiplied in one product for all trials (`torch.bmm`). A trial keeps what is its own: examples and their order,
generator (dropout, masks of weights), loss, gradient norm and learning rate, so that it ends where it ends alone, up to
rounding. One optimiser steps all trials, with a group of parameters for each.

It is no part of the product: it would be if it trained twice as fast as the same trials in processes side by side.
"""

from __future__ import annotations

import math
import queue
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any
from unittest.mock import patch

import torch
import torch.multiprocessing as mp
import torch.nn.functional as F
from peft.tuners.lora import Linear as LoraLinear
from torch import Tensor, nn

from mosld_bench.inputs.items import Encoded
from mosld_bench.inputs.models import load_base, load_tokenizer
from mosld_bench.methods import registry
from mosld_bench.methods.live import copy_sharing_weights
from mosld_bench.spec.recipe import load_recipes
from mosld_bench.spec.study import Study
from mosld_bench.spec.trial import TrainSpec
from mosld_bench.spec.workspace import Workspace
from mosld_bench.trial import train as training
from mosld_bench.trial.device import cores
from mosld_bench.trial.logits import logits_at, padded
from mosld_bench.trial.session import Session, WorkerConfig
from mosld_bench.trial.train import batch_order, make_optimizer, optimizer_step, schedule
from mosld_bench.tuners.mixture.layer import MixtureLayer, _mix_separate, _mix_shared_down
from mosld_bench.tuners.mixture.routing import balance_loss, gate
from tests.benchmarks.side_by_side import Row, faster, seconds_of
from tests.support.repository import REPOSITORY

RECIPES = ("lora", "mosld")
TRIALS = (4, 8)
STEPS = 20  # optimiser steps of a round
NAME = "default"  # of the adapter


@dataclass(frozen=True)
class Setting:
    """What all trials of a stack have in common: a recipe, its parameters, the model, its examples."""

    recipe: str
    model: str = "embedded"
    device: str = "cpu"
    spec: TrainSpec = field(
        default_factory=lambda: TrainSpec(
            steps=STEPS, batch_size=16, learning_rate=5e-3, max_length=128, validation_items=1, micro_tokens=1 << 20
        )
    )

    def examples(self) -> tuple[list[Encoded], int]:
        """The training items of the embedded tasks and the id of padding, whatever the model."""
        study = _study()
        session = Session(WorkerConfig((str(REPOSITORY / "tasks"),), study.resources))
        tokenizer = load_tokenizer(study.models[0])
        spec = self.spec.model_copy(update={"task_items": 500})
        items = [item for task in study.in_domain for item in session.examples(task, spec, tokenizer)[0]]
        return items, int(tokenizer.pad_token_id)

    def rate(self, trial: int) -> float:
        """The peak of trial number ``trial``'s learning rate: each another one."""
        return self.spec.learning_rate * (1 + trial) / 4

    def adapted(self, trial: int, base: nn.Module) -> nn.Module:
        """The model of a trial by itself, which shares its frozen weights with ``base``. Its number is its seed."""
        recipe = load_recipes(REPOSITORY / "methods")[self.recipe]
        torch.manual_seed(trial)
        return registry.get(recipe.method).attach(copy_sharing_weights(base), recipe.params)

    def base(self) -> nn.Module:
        """The frozen model."""
        return load_base(_study().models[0], torch.float32, self.device)


def _study() -> Study:
    return Study.load(Workspace(REPOSITORY, REPOSITORY).study_file("embedded"))


@dataclass
class Shared:
    """What the stacked modules know of the forward that runs: one entry for each trial."""

    generators: list[torch.Generator]
    widths: list[int] = field(default_factory=list)  # tokens of a row of each trial's own batch, its padding included
    mask: Tensor | None = None  # (trials, rows, tokens), 1 for real tokens
    balance: list[Tensor] = field(default_factory=list)  # of each module, (trials,)

    @property
    def trials(self) -> int:
        return len(self.generators)

    def dropped(self, x: Tensor, rate: float) -> Tensor:
        """Dropout on x (trials, rows, tokens, d), of each trial by its own generator and of its own width."""
        noise = torch.ones_like(x)
        for trial, (generator, width) in enumerate(zip(self.generators, self.widths, strict=True)):
            own = torch.empty_like(x[trial, :, :width]).bernoulli_(1 - rate, generator=generator).div_(1 - rate)
            noise[trial, :, :width] = own
        return x * noise


class Stacked(nn.Module):
    """The adapters of all trials on one frozen linear layer: (trials x rows, tokens, d_in) -> (..., d_out)."""

    def __init__(self, layers: Sequence[nn.Module], shared: Shared) -> None:
        super().__init__()
        self.base_layer = layers[0].base_layer
        self.layers = nn.ModuleList(layers)
        self.shared = shared

    def draw(self) -> None:
        """What a trial draws before its step."""

    def forward(self, x: Tensor) -> Tensor:
        """The layer's, with each trial's update added."""
        frozen: Any = self.base_layer
        y: Tensor = frozen(x)
        by_trial = x.unflatten(0, (self.shared.trials, -1))  # type: ignore[no-untyped-call]
        hidden, up = self.update(by_trial)
        out = torch.baddbmm(y.view(self.shared.trials, -1, y.shape[-1]), hidden, up.transpose(1, 2))
        return out.view_as(y)

    def update(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """The factors of the update, (trials, rows x tokens, n) and (trials, d_out, n), from x by trial."""
        raise NotImplementedError


class StackedLora(Stacked):
    """LoRA with dropout on its input."""

    def update(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """See `Stacked.update`."""
        layers: Any = self.layers
        rate = float(getattr(layers[0].lora_dropout[NAME], "p", 0.0))
        down, up = (
            torch.stack([getattr(layer, name)[NAME].weight for layer in layers]) for name in ("lora_A", "lora_B")
        )
        kept = self.shared.dropped(x, rate) if rate else x
        return torch.bmm(kept.flatten(1, 2), down.transpose(1, 2)) * layers[0].scaling[NAME], up


class StackedMixture(Stacked):
    """A routed mixture whose experts share A or nothing, with dropout on the weights of A, or on its input, or none."""

    def __init__(self, layers: Sequence[nn.Module], shared: Shared) -> None:
        super().__init__(layers, shared)
        first: Any = layers[0]
        self.config, self.experts, self.scale = first.settings[NAME], first.experts[NAME], first.scale[NAME]
        if self.config.share not in {"down", "none"} or not set(self.config.dropouts) <= {"weight", "input"}:
            raise NotImplementedError(f"no stack of a mixture like {self.config}")
        self.masks: Tensor | None = None

    def draw(self) -> None:
        """The masks of the weights of A."""
        rate, layers = self.config.dropouts.get("weight"), list(self.layers)
        if rate:
            like: Any = layers[0]
            weight = like.mixture_down[NAME]
            drawn = [
                torch.rand(weight.shape, generator=generator, dtype=weight.dtype, device=weight.device) >= rate
                for generator in self.shared.generators
            ]
            self.masks = torch.stack(drawn)

    def update(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """See `Stacked.update`; leaves the balance losses in `Shared.balance`."""
        layers: Any = self.layers
        down, up, router = (
            torch.stack([getattr(layer, f"mixture_{name}")[NAME] for layer in layers])
            for name in ("down", "up", "router")
        )
        dropouts = self.config.dropouts
        if "weight" in dropouts:
            assert self.masks is not None
            down = down * self.masks / (1 - dropouts["weight"])
        flat = x.flatten(1, 2)
        if "input" in dropouts:
            hidden = torch.bmm(self.shared.dropped(x, dropouts["input"]).flatten(1, 2), down.transpose(1, 2))
            logits = torch.bmm(flat, router.transpose(1, 2))
        else:
            both = torch.bmm(flat, torch.cat([down, router], dim=1).transpose(1, 2))
            hidden, logits = both.split([down.shape[1], self.experts], dim=-1)  # type: ignore[no-untyped-call]
        gates, probabilities = gate(logits, self.config.top_k, self.config.renormalize)
        if self.config.balance_coef > 0:
            assert self.shared.mask is not None
            self.shared.balance.append(torch.vmap(balance_loss)(gates, probabilities, self.shared.mask.flatten(1, 2)))
        mix = _mix_shared_down if self.config.share == "down" else _mix_separate
        return mix(gates * self.scale, hidden), up


class Stack:
    """Trials ``numbers`` of a setting, trained as one."""

    def __init__(self, setting: Setting, numbers: Sequence[int], base: nn.Module) -> None:
        self.setting, self.numbers = setting, list(numbers)
        alone = [setting.adapted(number, base) for number in numbers]
        self.own = [[p for p in model.parameters() if p.requires_grad] for model in alone]
        self.shared = Shared([torch.Generator(setting.device) for _ in numbers])
        for number, generator in zip(numbers, self.shared.generators, strict=True):
            generator.manual_seed(_stream(number))
        self.model, self.stacked = alone[0], list[Stacked]()
        for name, layer in list(self.model.named_modules()):
            kind = next((kind for of, kind in _KINDS.items() if isinstance(layer, of)), None)
            if kind is not None:
                stacked = kind([model.get_submodule(name) for model in alone], self.shared)
                parent, _, last = name.rpartition(".")
                setattr(self.model.get_submodule(parent), last, stacked)
                self.stacked.append(stacked)
        spec = setting.spec
        one = make_optimizer(
            "adamw", [p for own in self.own for p in own], learning_rate=1.0, weight_decay=spec.weight_decay
        )
        one.param_groups.clear()
        for own in self.own:
            one.add_param_group({"params": own})
        self.optimizer = one

    def train(self, items: Sequence[Encoded], pad: int) -> list[list[float]]:
        """Every step of every trial; the losses, by trial and step."""
        spec, steps = self.setting.spec, self.setting.spec.steps or 0
        orders = [batch_order(len(items), spec.batch_size, number) for number in self.numbers]
        losses: list[Tensor] = []
        self.model.train()
        for step in range(1, steps + 1):
            for group, number in zip(self.optimizer.param_groups, self.numbers, strict=True):
                group["lr"] = self.setting.rate(number) * schedule(step, steps, spec)
            losses.append(self._step([[items[index] for index in next(order)] for order in orders], pad))
        return torch.stack(losses).T.tolist()  # type: ignore[no-any-return]

    def _step(self, batches: Sequence[Sequence[Encoded]], pad: int) -> Tensor:
        """One step of all trials; their losses, (trials,)."""
        spec, shared = self.setting.spec, self.shared
        for layer in self.stacked:
            layer.draw()
        rows = [item for batch in batches for item in by_length(batch)]
        ids, mask = padded([item.ids for item in rows], pad, self.setting.device)
        shared.widths = [max(len(item.ids) for item in batch) for batch in batches]
        shared.mask, shared.balance = mask.view(len(batches), -1, mask.shape[1]), []
        places = [
            (row, column, row // spec.batch_size)
            for row, item in enumerate(rows)
            for column in range(len(item.ids) - item.answer, len(item.ids))
        ]
        row, column, trial = torch.tensor(places, device=ids.device).unbind(1)
        with torch.autocast(ids.device.type, torch.bfloat16, enabled=spec.dtype == "bfloat16"):
            logits = logits_at(self.model, row, column - 1, input_ids=ids, attention_mask=mask)
        each = F.cross_entropy(logits.float(), ids[row, column], reduction="none")
        answers = torch.tensor([sum(item.answer for item in batch) for batch in batches], device=ids.device)
        losses = torch.zeros(len(batches), device=ids.device).index_add(0, trial, each) / answers
        total = losses.sum()
        if shared.balance:
            mixture: Any = self.stacked[0]
            total = total + mixture.config.balance_coef * torch.stack(shared.balance).mean(dim=0).sum()
        total.backward()  # type: ignore[no-untyped-call]
        if spec.gradient_clip is not None:
            for own in self.own:
                nn.utils.clip_grad_norm_(own, spec.gradient_clip)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        return losses.detach()


_KINDS: dict[type, type[Stacked]] = {MixtureLayer: StackedMixture, LoraLinear: StackedLora}


def by_length(batch: Sequence[Encoded]) -> list[Encoded]:
    """A batch in the order in which the product has it."""
    return sorted(batch, key=lambda item: -len(item.ids))


def _stream(number: int) -> int:
    """The seed of what a trial draws in training."""
    return 1000 + number


def alone(setting: Setting, number: int, base: nn.Module, items: Sequence[Encoded], pad: int) -> Alone:
    """A trial by itself, as the product trains it: its losses by step, and its trained parameters."""
    spec, steps = setting.spec, setting.spec.steps or 0
    method = registry.get(load_recipes(REPOSITORY / "methods")[setting.recipe].method)
    model = setting.adapted(number, base)
    own = [p for p in model.parameters() if p.requires_grad]
    rate = setting.rate(number)
    optimizer = make_optimizer("adamw", own, learning_rate=rate, weight_decay=spec.weight_decay)
    order = batch_order(len(items), spec.batch_size, number)
    torch.manual_seed(_stream(number))
    model.train()
    losses = []
    for step in range(1, steps + 1):
        for group in optimizer.param_groups:
            group["lr"] = rate * schedule(step, steps, spec)
        batch = [items[index] for index in next(order)]
        result = optimizer_step(model, method, batch, spec=spec, optimizer=optimizer, pad=pad, step=step, steps=steps)
        losses.append(result.loss)
    return Alone([float(loss) for loss in losses], own)


@dataclass
class Alone:
    """What a trial by itself comes to."""

    losses: list[float]
    parameters: list[nn.Parameter]


def run(rounds: int) -> Iterator[Row]:
    """Stacks of :data:`TRIALS` trials against as many in processes side by side, each recipe of :data:`RECIPES`."""
    yield from compare(rounds, [Setting(recipe) for recipe in RECIPES])


def compare(rounds: int, settings: Sequence[Setting], numbers: Sequence[int] = TRIALS) -> Iterator[Row]:
    """One row for each setting and number of trials."""
    for setting in settings:
        base, (items, pad) = setting.base(), setting.examples()
        for trials in numbers:
            seconds: dict[str, list[float]] = {"stack": [], "processes": []}
            with Processes(setting, trials) as processes:
                for turn in range(rounds + 1):  # the first one warms up
                    stack = Stack(setting, range(trials), base)
                    torch.set_num_threads(cores())
                    taken = {
                        "stack": _timed(partial(stack.train, items, pad), setting.device),
                        "processes": processes.train(),
                    }
                    for name, value in taken.items():
                        seconds[name] += [value] if turn else []
            yield faster(
                "stacked", f"{trials} trials of {setting.recipe} as one, {setting.device}",
                against=f"in {processes.count} processes side by side", ours=seconds["stack"],
                other=seconds["processes"], wanted=">= 2",
                note=f"{setting.spec.steps} steps of {setting.spec.batch_size} examples",
            )  # fmt: skip


def _timed(work: Callable[[], object], device: str) -> float:
    started = seconds_of(device)
    work()
    return seconds_of(device) - started


class Processes:
    """Processes that train trials apart, begun once: on a CPU one for each core, on a GPU one for each trial."""

    def __init__(self, setting: Setting, trials: int) -> None:
        self.trials = trials
        self.count = min(trials, cores()) if setting.device == "cpu" else trials
        context = mp.get_context("spawn")
        self._asked, self._answered = context.Queue(), context.Queue()
        work = (setting, trials, self.count, self._asked, self._answered)
        self._processes = [context.Process(target=_serve, args=(rank, *work)) for rank in range(self.count)]

    def __enter__(self) -> Processes:
        for process in self._processes:
            process.start()
        self._wait()
        return self

    def __exit__(self, *error: object) -> None:
        for _ in self._processes:
            self._asked.put(False)
        for process in self._processes:
            process.join()

    def train(self) -> float:
        """All trials once; seconds until the last has ended."""
        started = time.perf_counter()
        for _ in self._processes:
            self._asked.put(True)
        self._wait()
        return time.perf_counter() - started

    def _wait(self) -> None:
        """Until each process has said that it is done. Raises RuntimeError where one has died."""
        for _ in self._processes:
            while True:
                try:
                    self._answered.get(timeout=5)
                    break
                except queue.Empty:
                    if not all(process.is_alive() for process in self._processes):
                        raise RuntimeError("a process that trains trials apart has died") from None


def _serve(rank: int, setting: Setting, trials: int, count: int, asked: Any, answered: Any) -> None:
    """In a process: trains its share of the trials whenever it is asked."""
    torch.set_num_threads(max(1, cores() // count))
    base, (items, pad) = setting.base(), setting.examples()
    mine = range(rank, trials, count)
    answered.put(True)
    while asked.get():
        for number in mine:
            alone(setting, number, base, items, pad)
        seconds_of(setting.device)  # waits for it
        answered.put(True)


def gap(setting: Setting, trials: int) -> tuple[float, float]:
    """How far trials of a stack end from themselves alone: the largest gap of a loss, and of a trained parameter.

    Alone, the batch of a step is not cut either: what dropout draws depends on how it is.
    """
    base, (items, pad) = setting.base(), setting.examples()
    stack = Stack(setting, range(trials), base)
    losses = stack.train(items, pad)
    of_loss = of_weight = 0.0
    for number in range(trials):
        with patch.object(training, "micro_batches", lambda batch, tokens: [by_length(batch)]):
            single = alone(setting, number, base, items, pad)
        of_loss = max(of_loss, *(abs(a - b) for a, b in zip(losses[number], single.losses, strict=True)))
        pairs = zip(stack.own[number], single.parameters, strict=True)
        of_weight = max(of_weight, *(float((a - b).detach().abs().max()) for a, b in pairs))
    return of_loss, of_weight if math.isfinite(of_weight) else math.inf
