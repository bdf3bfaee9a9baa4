"""A trial: one cell of a study, all that changes its numbers as plain data, and what its size comes to."""

from __future__ import annotations

import hashlib
import json
from enum import StrEnum
from typing import Any, Literal, NamedTuple

from pydantic import Field, model_validator

from mosld_bench.spec.budget import Budget
from mosld_bench.spec.recipe import Recipe
from mosld_bench.spec.yaml_file import Strict

VALIDATIONS = 5  # how often a trial takes the validation loss at most, the end included
Setting = Literal["mixture", "single", "frozen", "counted"]


class Domain(StrEnum):
    """The part that a task plays in a study: trained on and scored, or scored only."""

    IN = "in_domain"
    OUT = "out_of_domain"

    @property
    def label(self) -> str:
        """As a heading has it."""
        return {Domain.IN: "In-domain", Domain.OUT: "Out-of-domain"}[self]


class ModelSpec(Strict):
    """The base model: ``embedded``, a hub id, or a folder."""

    name: str
    revision: str | None = None


class GeneralData(Strict):
    """Items of a task that are mixed into the training items and never scored."""

    task: str
    items: int = Field(gt=0, description="a sample of its training split, fixed by train.split_seed")


class TrainSpec(Strict):
    """How every trial of the study trains: one protocol for all recipes."""

    steps: int | None = Field(None, gt=0, description="optimiser steps; give either steps or epochs")
    epochs: float | None = Field(None, gt=0)
    batch_size: int = Field(16, gt=0, description="examples an optimiser step")
    learning_rate: float = Field(3e-4, gt=0, description="peak")
    warmup_steps: int = Field(0, ge=0)
    warmup_limit: float = Field(1.0, ge=0, le=1, description="share of the steps that warm-up takes at most")
    schedule: Literal["linear", "cosine", "constant"] = "linear"
    weight_decay: float = Field(0.0, ge=0)
    gradient_clip: float | None = Field(1.0, gt=0, description="largest gradient norm; none for no clipping")
    task_items: int | None = Field(None, gt=0, description="most items of a task's training split, a fixed sample")
    max_length: int = Field(256, gt=8, description="tokens; longer prompts lose their beginning")
    micro_tokens: int = Field(
        8192, gt=0, description="most padded tokens a micro-batch; balance losses are means over one, dropout is drawn"
    )
    dtype: Literal["float32", "bfloat16"] = "float32"
    gradient_checkpointing: bool = False
    validation_fraction: float = Field(0.1, ge=0, lt=1, description="of every training split, never trained on")
    validation_items: int = Field(200, ge=0, description="most items a task that the validation loss is taken over")
    split_seed: int = 0

    @model_validator(mode="after")
    def _one_length(self) -> TrainSpec:
        if (self.steps is None) == (self.epochs is None):
            raise ValueError("give exactly one of steps and epochs")
        return self


class EvaluateSpec(Strict):
    """How every trial is scored."""

    limit: int | None = Field(None, gt=0, description="items a task: a sample fixed by sample_seed; none for all")
    sample_seed: int = 0


class Resources(Strict):
    """What a trial takes. Part of no identity: these change the time, not the numbers."""

    cpus_per_trial: float = Field(1, gt=0)
    gpus_per_trial: float = Field(1, gt=0)
    score_tokens: int = Field(8192, gt=0, description="most padded tokens a scoring batch")
    score_width: int = Field(256, gt=0, description="most tokens of a prefix tree; attention costs its square")


def canonical(content: Any) -> str:
    """JSON with sorted keys and no spaces: equal content, equal text."""
    return json.dumps(content, sort_keys=True, separators=(",", ":"), ensure_ascii=False)


def digest(content: Any) -> str:
    """The first 8 hex digits of the SHA-256 of the canonical JSON."""
    return hashlib.sha256(canonical(content).encode()).hexdigest()[:8]


class Condition(NamedTuple):
    """What the rows of a block share; only they are compared with each other."""

    setting: str
    budget: Budget
    model: str = ""
    general: int = 0  # items of general data mixed in


class Trial(Strict):
    """One cell of a study: all that changes its numbers, as plain data."""

    study: str
    recipe: Recipe
    setting: Setting
    train_on: tuple[str, ...]
    in_domain: tuple[str, ...] = Field(description="in-domain tasks that this trial is scored on")
    out_of_domain: tuple[str, ...]
    task_digests: dict[str, str] = Field(description="task -> digest of its definition and local data")
    model: ModelSpec
    budget: Budget
    tolerance: float
    seed: int
    train: TrainSpec | None = Field(description="none for a trial that only counts parameters")
    evaluate: EvaluateSpec
    general: GeneralData | None = None
    protocol: str = Field(description="digest of what all trials of a model share; only equals are compared")

    @property
    def id(self) -> str:
        """Readable slug and 8 hex digits, the same on every machine."""
        own = self.model_dump(mode="json", exclude={"study"}, exclude_defaults=True) | {"recipe": self.recipe.identity}
        tasks = f"-{self.train_on[0]}" if self.setting == "single" else ""
        general = f"-g{self.general.items}" if self.general else ""
        budget = self.budget.replace("%", "pct")
        return f"{self.recipe.name}-{self.setting}{tasks}{general}-{budget}-s{self.seed}-{digest(own)}"

    @property
    def condition(self) -> Condition:
        return Condition(self.setting, self.budget, self.model.name, self.general.items if self.general else 0)

    @property
    def scored_on(self) -> tuple[str, ...]:
        return self.in_domain + self.out_of_domain


class Fit(Strict):
    """What the budget solver promised and the built model has."""

    target: int | None
    trainable: int
    total: int = Field(description="all parameters, trainable and frozen")
    residual: float | None = Field(description="(trainable - target) / target")
    params: dict[str, Any] = Field(description="the method's params after the budget was fitted")


class PlannedTrial(NamedTuple):
    """A trial and what its budget comes to: all that a worker needs to know of it."""

    trial: Trial
    fit: Fit
