"""Studies and trials: a study.yaml is a question; its plan is the list of trials that answer it.

Loads no model and no torch: the same file always gives the same list.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, field_validator, model_validator

from mosld_bench.embedded import MODEL_DIR
from mosld_bench.errors import DataError, UnknownNameError
from mosld_bench.recipe import Recipe, Strict, load_recipes, parse, read_yaml, select
from mosld_bench.taskfiles import TaskFiles
from mosld_bench.workspace import Workspace

#: Raised when a change to the code changes the numbers of every trial, so that old records are not taken for new.
PROTOCOL_VERSION = 1

NATIVE = "native"  # the budget of a recipe at the size that its file gives
Setting = Literal["mixture", "single", "frozen"]
_BUDGET = re.compile(r"native|\d+(\.\d+)?[kmbKMB]?|\d+(\.\d+)?%|[a-z0-9][a-z0-9._-]*-r\d+")


class ModelSpec(Strict):
    """The base model: ``embedded``, a hub id, or a folder."""

    name: str
    revision: str | None = None


class TrainSpec(Strict):
    """How every trial of the study trains: one protocol for all recipes."""

    steps: int | None = Field(None, gt=0, description="optimiser steps; give either steps or epochs")
    epochs: float | None = Field(None, gt=0)
    batch_size: int = Field(16, gt=0, description="examples an optimiser step")
    learning_rate: float = Field(3e-4, gt=0, description="peak")
    warmup_steps: int = Field(0, ge=0)
    schedule: Literal["linear", "cosine", "constant"] = "linear"
    weight_decay: float = Field(0.0, ge=0)
    gradient_clip: float | None = Field(1.0, gt=0, description="largest gradient norm; none for no clipping")
    max_length: int = Field(256, gt=8, description="tokens; longer prompts lose their beginning")
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
    train_tokens: int = Field(8192, gt=0, description="most padded tokens a micro-batch")
    score_tokens: int = Field(8192, gt=0, description="most padded tokens a scoring batch")
    score_width: int = Field(256, gt=0, description="tokens of one prefix tree; attention costs its square")


def canonical(content: Any) -> str:
    """JSON with sorted keys and no spaces: equal content, equal text."""
    return json.dumps(content, sort_keys=True, separators=(",", ":"), ensure_ascii=False)


def digest(content: Any) -> str:
    """The first 8 hex digits of the SHA-256 of the canonical JSON."""
    return hashlib.sha256(canonical(content).encode()).hexdigest()[:8]


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
    budget: str
    tolerance: float
    seed: int
    train: TrainSpec
    evaluate: EvaluateSpec
    protocol: str = Field(description="digest of what all trials of the study share; only equals are compared")

    @property
    def id(self) -> str:
        """Readable slug and 8 hex digits, the same on every machine."""
        own = self.model_dump(mode="json", exclude={"study"})
        own["recipe"] = self.recipe.model_dump(
            mode="json", include={"name", "method", "params", "knob", "learning_rate_scale"}
        )
        tasks = f"-{self.train_on[0]}" if self.setting == "single" else ""
        budget = self.budget.replace("%", "pct")
        return f"{self.recipe.name}-{self.setting}{tasks}-{budget}-s{self.seed}-{digest(own)}"

    @property
    def scored_on(self) -> tuple[str, ...]:
        return self.in_domain + self.out_of_domain


class Study(Strict):
    """A question, and the settings under which it is asked."""

    name: str
    question: str
    about: str = Field("", description="what the report says before its tables")
    model: ModelSpec
    recipes: tuple[str, ...] = ("all",)
    settings: tuple[Literal["mixture", "single"], ...] = ("mixture",)
    in_domain: tuple[str, ...] = Field(min_length=1)
    out_of_domain: tuple[str, ...] = ()
    budgets: tuple[str, ...] = (NATIVE,)
    budget_tolerance: float = Field(0.01, gt=0, lt=1)
    seeds: tuple[int, ...] = (0, 1, 2)
    train: TrainSpec
    evaluate: EvaluateSpec = EvaluateSpec()
    resources: Resources = Resources()
    frozen_base: bool = Field(True, description="whether the untrained model is scored too (recipe base)")

    @field_validator("recipes", "settings", "in_domain", "out_of_domain", "seeds", "budgets", mode="before")
    @classmethod
    def _listed(cls, value: Any) -> Any:
        return [value] if isinstance(value, str | int) else value

    @field_validator("budgets", mode="before")
    @classmethod
    def _spelled(cls, value: Any) -> Any:
        items = [str(item) for item in (value if isinstance(value, list | tuple) else [value])]
        for item in items:
            if not _BUDGET.fullmatch(item):
                raise ValueError(
                    f"{item!r} is not a budget; allowed are a count (60000, 250k, 1.5m), a share of the base "
                    f"model (0.5%), another recipe's size (lora-r8) and {NATIVE}"
                )
        return items

    @field_validator("in_domain", "out_of_domain", "seeds", "budgets", "settings")
    @classmethod
    def _once(cls, value: tuple[Any, ...]) -> tuple[Any, ...]:
        if len(set(value)) != len(value):
            raise ValueError(f"lists an entry twice: {list(value)}")
        return value

    @classmethod
    def load(cls, path: Path, overrides: Mapping[str, Any] | None = None) -> Study:
        """Read a study.yaml, with ``overrides`` (dotted key -> value) on top. Raises BadFileError."""
        content = read_yaml(path)
        for key, value in (overrides or {}).items():
            _set(content, key, value)
        return parse(cls, path, {"name": path.resolve().parent.name, **content})

    def plan(self, workspace: Workspace, include_paths: tuple[Path, ...] = ()) -> list[Trial]:
        """Every trial of the study, in the order of the table. Reads files, loads no model.

        Raises UnknownNameError for a recipe, DataError for a task without a training split in a training role.
        """
        recipes = load_recipes(workspace.methods)
        chosen = select(recipes, self.recipes)
        if self.frozen_base and "base" in recipes and recipes["base"] not in chosen:
            chosen.insert(0, recipes["base"])
        files = TaskFiles.scan((workspace.tasks, *include_paths))
        both = set(self.in_domain) & set(self.out_of_domain)
        if both:
            raise DataError(f"{', '.join(sorted(both))}: a task is either in-domain or out-of-domain, not both.")
        digests = {task: files.digest(task) for task in self.in_domain + self.out_of_domain}
        for task in self.in_domain:
            files.check_trainable(task)
        model = self.model.model_copy(update={"revision": self.model.revision or _shipped_digest(self.model.name)})
        shared = {
            "version": PROTOCOL_VERSION,
            "model": model.model_dump(),
            "in_domain": self.in_domain,
            "out_of_domain": self.out_of_domain,
            "tasks": digests,
            "train": self.train.model_dump(),
            "evaluate": self.evaluate.model_dump(),
        }
        trials: dict[str, Trial] = {}
        for budget in self.budgets:
            for setting in self.settings:
                for recipe in chosen:
                    for trial in self._cell(recipe, setting, budget, model, digests, digest(shared)):
                        trials.setdefault(trial.id, trial)
        return list(trials.values())

    def _cell(
        self,
        recipe: Recipe,
        setting: Setting,
        budget: str,
        model: ModelSpec,
        digests: dict[str, str],
        protocol: str,
    ) -> list[Trial]:
        """One recipe in one setting at one budget: a trial for every seed and, if single, every task."""
        frozen, sized = recipe.method == "base", recipe.method not in {"base", "full"}
        unions = [self.in_domain] if frozen or setting == "mixture" else [(task,) for task in self.in_domain]
        return [
            Trial(
                study=self.name,
                recipe=recipe,
                setting="frozen" if frozen else setting,
                train_on=() if frozen else union,
                in_domain=union,
                out_of_domain=self.out_of_domain,
                task_digests={task: digests[task] for task in union + self.out_of_domain},
                model=model,
                budget=budget if sized else NATIVE,
                tolerance=self.budget_tolerance,
                seed=seed,
                train=self.train,
                evaluate=self.evaluate,
                protocol=protocol,
            )
            for union in unions
            for seed in (self.seeds[:1] if frozen else self.seeds)
        ]


def _set(content: dict[str, Any], key: str, value: Any) -> None:
    *parents, last = key.split(".")
    for parent in parents:
        content = content.setdefault(parent, {})
        if not isinstance(content, dict):
            raise UnknownNameError("key", key, [])
    content[last] = value
    # steps and epochs exclude each other: the one named last counts.
    if parents == ["train"] and last in {"steps", "epochs"}:
        content.pop({"steps": "epochs", "epochs": "steps"}[last], None)


def _shipped_digest(name: str) -> str | None:
    """The embedded model is identified by its weights, a model of the hub by its revision."""
    if name != "embedded":
        return None
    return hashlib.sha256((MODEL_DIR / "model.safetensors").read_bytes()).hexdigest()[:12]
