"""Trials: all that changes the numbers of one run, as plain data, and the size that its budget comes to."""

from __future__ import annotations

import hashlib
import json
from enum import StrEnum
from functools import cached_property
from typing import Annotated, Any, ClassVar, Literal, NamedTuple, Self, TypeVar

from pydantic import Field, field_validator, model_validator

from mosld_bench.spec.budget import Budget
from mosld_bench.spec.names import path_part, problem_of_task
from mosld_bench.spec.recipe import Recipe
from mosld_bench.spec.yaml_file import Grown, Strict

#: How often a trial takes the validation loss at most, the end included.
VALIDATIONS = 5

#: Validations at which a search may stop a training, twice as late each time: after 1, 2 and 4 fifths of the steps.
RUNGS = (1, 2, 4)

#: Which of a recipe's learning rates a trial trains at, where a search has found them: the best, or the next best one.
Rate = Literal["chosen", "runner_up"]

#: mixture: trained on all in-domain tasks together; single: on one of them; frozen: not trained, scored; counted:
#: neither trained nor scored, only its parameters are counted.
Setting = Literal["mixture", "single", "frozen", "counted"]


class Domain(StrEnum):
    """The part that a task plays in a study: trained on and scored, or scored only."""

    IN = "in_domain"
    OUT = "out_of_domain"

    @property
    def label(self) -> str:
        """As a heading has it."""
        return {Domain.IN: "In-domain", Domain.OUT: "Out-of-domain"}[self]


#: How weights are rounded as they are loaded: to four bits (QLoRA's normal floats), or to eight. And what does it.
#: A whole number of things; tables hold none of 64 bits and more.
Count = Annotated[int, Field(ge=0, lt=1 << 63)]

Load = Literal["nf4", "int8"]
ROUNDED_BY = "bitsandbytes"


class ModelSpec(Grown):
    """The base model."""

    later: ClassVar[frozenset[str]] = frozenset({"load"})

    name: str = Field(min_length=1, description="embedded, a hub id, or a folder")
    revision: str | None = Field(
        None,
        description="commit of the hub's repository; of the embedded model a digest of its weights, of one in a folder "
        "a digest of its files",
    )
    load: Load | None = Field(
        None,
        description="nf4 or int8: the frozen weights of the linear layers are rounded to 4 or 8 bits as they are "
        "loaded, by bitsandbytes; none for as they are, in train.dtype",
    )
    folder: str | None = Field(None, exclude=True, description="where it lies on this machine; part of no identity")

    def __eq__(self, other: object) -> bool:
        return isinstance(other, ModelSpec) and self._identity == other._identity

    def __hash__(self) -> int:
        return hash(self._identity)

    @property
    def label(self) -> str:
        """Its name, and how it is rounded, if it is: 'embedded (nf4)'."""
        return f"{self.name} ({self.load})" if self.load else self.name

    @property
    def _identity(self) -> tuple[str, str | None, Load | None]:
        return self.name, self.revision, self.load


class GeneralData(Strict):
    """Items of a task that are mixed into the training items and never scored."""

    task: str = Field(description="the task whose items they are")
    items: int = Field(gt=0, description="how many: a sample of its training split, fixed by train.split_seed")


class TrainSpec(Strict):
    """How every trial of the study trains: one protocol for all recipes."""

    steps: int | None = Field(None, gt=0, le=10**9, description="optimiser steps; give either steps or epochs")
    epochs: float | None = Field(None, gt=0, le=10**6, description="passes over the training items, in place of steps")
    batch_size: int = Field(16, gt=0, le=10**6, description="examples an optimiser step")
    learning_rate: float = Field(3e-4, gt=0, le=10**6, description="peak, before a recipe's learning_rate_scale")
    warmup_steps: int = Field(
        0, ge=0, le=10**9, description="steps over which the learning rate rises linearly from zero"
    )
    warmup_limit: float = Field(1.0, ge=0, le=1, description="share of the steps that warm-up takes at most")
    schedule: Literal["linear", "cosine", "constant"] = Field(
        "linear", description="how the learning rate goes on after warm-up: down to zero, or unchanged"
    )
    weight_decay: float = Field(0.0, ge=0, le=10**6, description="decoupled, as AdamW's")
    gradient_clip: float | None = Field(1.0, gt=0, description="largest gradient norm; none for no clipping")
    task_items: int | dict[str, int] | None = Field(
        None, description="most items of a task's training split, a fixed sample: of every task, or task by task"
    )
    max_length: int = Field(256, gt=8, le=10**7, description="tokens; longer prompts lose their beginning")
    micro_tokens: int = Field(
        8192,
        gt=0,
        le=10**9,
        description="most padded tokens a micro-batch; balance losses are means over one, dropout is drawn",
    )
    dtype: Literal["float32", "bfloat16"] = Field(
        "float32", description="of the base model's weights and of arithmetic on them"
    )
    gradient_checkpointing: bool = Field(
        False, description="whether the backward pass computes layers again instead of keeping what they made"
    )
    validation_fraction: float = Field(0.1, ge=0, lt=1, description="of every training split, never trained on")
    validation_items: int | None = Field(
        200, ge=0, description="most items a task that the validation loss is taken over; none for all held-out ones"
    )
    split_seed: int = Field(0, description="draws the held-out items and every fixed sample of training items")

    @field_validator("task_items", mode="before")
    @classmethod
    def _refuse_what_is_no_count(cls, value: Any) -> Any:
        counts = value.values() if isinstance(value, dict) else [value]
        if value is not None and not all(type(count) is int and count > 0 for count in counts):
            raise ValueError("takes a whole number above 0, or tasks with one each: {emb_story: 1500, emb_tools: 15}")
        return value

    def items_of(self, task: str) -> int | None:
        """The most items that are drawn of the task's training split; None for all of them."""
        return self.task_items.get(task) if isinstance(self.task_items, dict) else self.task_items

    @model_validator(mode="after")
    def _require_one_length(self) -> TrainSpec:
        if (self.steps is None) == (self.epochs is None):
            raise ValueError("give exactly one of steps and epochs")
        return self


class EvaluateSpec(Grown):
    """How every trial is scored."""

    later: ClassVar[frozenset[str]] = frozenset({"split", "text"})

    limit: int | None = Field(None, gt=0, description="items a task: a sample fixed by sample_seed; none for all")
    sample_seed: int = Field(0, description="draws the items where there is a limit")
    split: Literal["test", "validation"] = Field(
        "test",
        description="validation: the in-domain tasks are scored on the items of the validation loss, no test item",
    )
    text: str | None = Field(
        None,
        description="a task of lm-eval's loglikelihood_rolling whose documents are held-out text: its loss is taken "
        "after training and on the frozen base, to tell what is forgotten; part of no mean",
    )

    @field_validator("text")
    @classmethod
    def _refuse_what_is_no_name(cls, value: str | None) -> str | None:
        if value is not None and (problem := problem_of_task(value)):
            raise ValueError(f"the name of a task {problem}")
        return value

    @model_validator(mode="after")
    def _require_whole_validation(self) -> EvaluateSpec:
        if self.split == "validation" and self.limit is not None:
            raise ValueError("limit is of test items; of the split validation train.validation_items says how many")
        return self


class Resources(Strict):
    """What a trial takes. Part of no identity: these change the time, not the numbers."""

    cpus_per_trial: float = Field(1, gt=0, le=10**6, description="cores")
    gpus_per_trial: float = Field(
        1,
        gt=0,
        le=10**6,
        description="GPUs, where there are any; 0.5 puts two trials on one, 2 spreads the layers of a model over two",
    )
    score_tokens: int = Field(8192, gt=0, le=10**9, description="most padded tokens a scoring batch")
    score_width: int = Field(
        256, gt=0, le=10**9, description="most tokens of a prefix tree; attention costs its square"
    )

    @field_validator("gpus_per_trial")
    @classmethod
    def _refuse_one_and_a_half(cls, value: float) -> float:
        if value > 1 and value != int(value):
            raise ValueError(
                "above 1 it has to be a whole number, since a GPU that has some layers of a model has no other trial"
            )
        return value

    @property
    def gpus(self) -> int:
        """How many GPUs a model lies on: one, where its trial has a part of one."""
        return max(1, int(self.gpus_per_trial))


def canonical(content: Any) -> str:
    """JSON with sorted keys and no spaces: equal content, equal text."""
    return json.dumps(content, sort_keys=True, separators=(",", ":"), ensure_ascii=False)


def digest(content: Any) -> str:
    """The first 8 hex digits of the SHA-256 of the canonical JSON."""
    return hashlib.sha256(canonical(content).encode()).hexdigest()[:8]


class Condition(NamedTuple):
    """What trials have to share so that their scores are compared: a table has one block of rows a condition."""

    setting: str
    budget: Budget
    model: str = ""

    #: Items of general data that are mixed in.
    general: int = 0

    #: Which of its learning rates every recipe trains at.
    rate: Rate = "chosen"

    #: Most training items of a task, where the study has them in several amounts; else 0.
    items: int = 0


class Trial(Grown):
    """One recipe in one setting at one budget with one seed: all that changes its numbers, as plain data."""

    later: ClassVar[frozenset[str]] = frozenset({"rate", "sweeps_items"})

    study: str = Field(description="the study that the record lies under; part of no identity")
    recipe: Recipe
    setting: Setting = Field(
        description="trained on all in-domain tasks (mixture) or on one of them (single), only scored (frozen), or "
        "neither (counted)"
    )
    train_on: tuple[str, ...] = Field(description="tasks that it is trained on")
    in_domain: tuple[str, ...] = Field(description="in-domain tasks that this trial is scored on")
    out_of_domain: tuple[str, ...] = Field(description="tasks that it is scored on without training on them")
    task_digests: dict[str, str] = Field(description="task -> digest of its definition and local data")
    model: ModelSpec = Field(description="the base model")
    budget: Budget = Field(
        description="what gives the recipe its size: native, a count (250k), a share of the base model (0.5%), a rank "
        "(r8), or another recipe's size (lora-r8)"
    )
    tolerance: float = Field(description="how far the size may be from the budget, as a share of the budget")
    seed: int = Field(description="of the adapter's initialisation, the order of the items and dropout")
    train: TrainSpec | None = Field(description="none for a trial that only counts parameters")
    evaluate: EvaluateSpec
    general: GeneralData | None = Field(None, description="items mixed into the training items and never scored")
    protocol: str = Field(description="digest of what all trials of a model share; only equals are compared")
    rate: Rate = Field(
        "chosen", description="which learning rate of the study's search it trains at, the best or the next best one"
    )
    sweeps_items: bool = Field(
        False, description="whether the study has it with several amounts of training items; part of no identity"
    )
    rivals: tuple[tuple[float, ...], ...] | None = Field(
        None,
        exclude=True,
        description="of a trial of a search, by rung, the validation losses that it is held against (`spec.search`); "
        "part of no identity",
    )
    ends_after: int | None = Field(
        None,
        exclude=True,
        description="of a probe, how many optimiser steps are made, while all that goes by the length of the training, "
        "as a method's schedule, takes it for a whole one; part of no identity",
    )

    @cached_property
    def id(self) -> str:
        """A readable name and 8 hex digits over all that changes the numbers; the same on every machine.

        What is at its default is left out, so that a new field changes no id. It is one part of a path, of letters of
        ASCII, digits and ``._+-``, whatever the task is called. It is computed once, since a plan is asked for it again
        and again.
        """
        content = self.model_dump(mode="json", exclude={"study", "sweeps_items", "recipe"}, exclude_defaults=True)
        content["recipe"] = self.recipe.identity
        tasks = f"-{path_part(self.train_on[0])}" if self.setting == "single" else ""
        general = f"-g{self.general.items}" if self.general else ""
        budget = path_part(self.budget.replace("%", "pct"))
        return f"{path_part(self.recipe.name)}-{self.setting}{tasks}{general}-{budget}-s{self.seed}-{digest(content)}"

    def __copy__(self) -> Self:
        """A copy, of which ``model_copy`` may change fields: it has an id of its own."""
        return _without_id(super().__copy__())

    def __deepcopy__(self, memo: dict[int, Any] | None = None) -> Self:
        """As `__copy__`."""
        return _without_id(super().__deepcopy__(memo))

    @property
    def condition(self) -> Condition:
        """The block of a table that its row stands in."""
        general = self.general.items if self.general else 0
        items = self.train.task_items if self.sweeps_items and self.train else 0
        assert isinstance(items, int), "a study that has several amounts of items has each for all tasks alike"
        return Condition(self.setting, self.budget, self.model.name, general, self.rate, items)

    @property
    def scored_on(self) -> tuple[str, ...]:
        """The tasks that it is scored on, the in-domain ones first."""
        return self.in_domain + self.out_of_domain

    @property
    def text(self) -> tuple[str, ...]:
        """The task of `EvaluateSpec.text`, if any."""
        return (self.evaluate.text,) if self.evaluate.text else ()


_Copied = TypeVar("_Copied", bound=Trial)


def _without_id(copied: _Copied) -> _Copied:
    copied.__dict__.pop("id", None)
    return copied


class Fit(Strict):
    """The size of a trial: what the budget asks for, and what the solver came to and the built model has."""

    target: Count | None = Field(
        description="trainable parameters that the budget asks for; none where it sets no size"
    )
    trainable: Count = Field(description="trainable parameters of the built model")
    total: Count = Field(description="all parameters, trainable and frozen")
    residual: float | None = Field(ge=-1, lt=1e9, description="(trainable - target) / target; none without a target")
    params: dict[str, Any] = Field(description="the method's params after the budget was fitted")


class PlannedTrial(NamedTuple):
    """A trial and the size that its budget comes to: all that a worker needs to know of it."""

    trial: Trial
    fit: Fit
