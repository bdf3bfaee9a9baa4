"""Studies and trials: a study.yaml is a question; its plan is the list of trials that answer it.

Loads no model and no torch: the same file always gives the same list.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import product
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple

from pydantic import Field, field_validator, model_validator

from mosld_bench.embedded import MODEL_DIR
from mosld_bench.errors import DataError, UnknownNameError
from mosld_bench.spec.recipe import Recipe, Strict, layered, load_recipes, parse, read_including, select
from mosld_bench.spec.task_files import TaskFiles
from mosld_bench.spec.workspace import Workspace

#: Raised when a change to the code changes the numbers of every trial, so that old records are not taken for new. A
#: field's default counts as code: identities leave out what is at its default, so that adding a field changes none.
PROTOCOL_VERSION = 2

VALIDATIONS = 5  # how often a trial takes the validation loss at most, the end included
NATIVE = "native"  # the budget of a recipe at the size that its file gives
Setting = Literal["mixture", "single", "frozen", "counted"]
_BUDGET = re.compile(r"native|r\d+|\d+(\.\d+)?[kmbKMB]?|\d+(\.\d+)?%|[a-z0-9][a-z0-9._-]*-r\d+")


class ModelSpec(Strict):
    """The base model: ``embedded``, a hub id, or a folder."""

    name: str
    revision: str | None = None


class GeneralData(Strict):
    """Items of a task that are mixed into the training items and never scored."""

    task: str
    items: int = Field(gt=0, description="a sample of its training split, fixed by train.split_seed")


class GeneralAxis(Strict):
    """General data in several amounts, each a part of the study; 0 is the study without."""

    task: str
    items: tuple[int, ...] = Field(min_length=1)

    def amounts(self) -> list[GeneralData | None]:
        return [GeneralData(task=self.task, items=n) if n else None for n in self.items]


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
    budget: str
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
    budget: str
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


class Selection(Strict):
    """Which cells a study has: recipes by settings by budgets by seeds."""

    recipes: tuple[str, ...] = ("all",)
    settings: tuple[Literal["mixture", "single"], ...] = ("mixture",)
    budgets: tuple[str, ...] = (NATIVE,)
    seeds: tuple[int, ...] = Field((0, 1, 2), min_length=1)

    @field_validator("recipes", "settings", "seeds", "budgets", mode="before")
    @classmethod
    def _listed(cls, value: Any) -> Any:
        return _listed(value)

    @field_validator("budgets", mode="before")
    @classmethod
    def _spelled(cls, value: Any) -> Any:
        items = [str(item) for item in (value if isinstance(value, list | tuple) else [value])]
        for item in items:
            if not _BUDGET.fullmatch(item):
                raise ValueError(
                    f"{item!r} is not a budget; allowed are a count (60000, 250k, 1.5m), a share of the base "
                    f"model (0.5%), another recipe's size (lora-r8), a rank (r8) and {NATIVE}"
                )
        return items

    @field_validator("settings", "seeds", "budgets")
    @classmethod
    def _once(cls, value: tuple[Any, ...]) -> tuple[Any, ...]:
        return _once(value)


#: Where a file says the one, or the command line does, the other that it would inherit goes.
_REPLACES = {
    "model": "models",
    "models": "model",
    "train.steps": "train.epochs",
    "train.epochs": "train.steps",
    **dict.fromkeys(Selection.model_fields, "parts"),  # cells that are asked for by name are those, and no others
}


class Study(Selection):
    """A question, and the settings under which it is asked."""

    name: str
    question: str
    about: str = Field("", description="what the report says before its tables")
    models: tuple[ModelSpec, ...] = Field(min_length=1, description="`model` is short for a list of one")
    parts: tuple[Selection, ...] = Field(
        (), description="the study is the union of these; what a part leaves out, the study says"
    )
    in_domain: tuple[str, ...] = ()
    out_of_domain: tuple[str, ...] = ()
    budget_tolerance: float = Field(0.01, gt=0, lt=1)
    train: TrainSpec | None = Field(None, description="none for a study that only counts parameters")
    learning_rate_scales: dict[str, Annotated[float, Field(gt=0)]] = Field(
        {}, description="recipe -> factor on train.learning_rate, in place of the recipe's: tuned for this model"
    )
    evaluate: EvaluateSpec = EvaluateSpec()
    resources: Resources = Resources()
    reference: str = Field("lora", description="the recipe that every row is compared with")
    frozen_base: bool = Field(True, description="whether the untrained model is scored too (recipe base)")
    general: GeneralAxis | None = Field(None, description="general data mixed in, in several amounts")
    axis: Literal["general", "rank", "model", "dropout", "experts"] | None = Field(
        None, description="what the study's own figure has along x"
    )
    figures: tuple[Literal["axis", "size", "tasks", "difference", "settings", "training"], ...] = Field(
        ("axis", "size", "tasks", "difference", "settings", "training"), description="of the report, in this order"
    )
    published: tuple[str, ...] = Field((), description="tables of results/published to compare with")

    @model_validator(mode="before")
    @classmethod
    def _one_model(cls, content: Any) -> Any:
        if isinstance(content, dict) and "model" in content:
            if "models" in content:
                raise ValueError("give model or models, not both")
            content = {key: value for key, value in content.items() if key != "model"} | {"models": [content["model"]]}
        return content

    @field_validator("in_domain", "out_of_domain", "published", mode="before")
    @classmethod
    def _listed_tasks(cls, value: Any) -> Any:
        return _listed(value)

    @field_validator("in_domain", "out_of_domain")
    @classmethod
    def _tasks_once(cls, value: tuple[Any, ...]) -> tuple[Any, ...]:
        return _once(value)

    @field_validator("models")
    @classmethod
    def _distinct(cls, value: tuple[ModelSpec, ...]) -> tuple[ModelSpec, ...]:
        if len({model.name for model in value}) != len(value):
            raise ValueError("lists a model twice; a study has one revision of each")
        return value

    @model_validator(mode="after")
    def _tasks_to_train_on(self) -> Study:
        if (self.train is None) == bool(self.in_domain):
            raise ValueError("give train and in_domain, or neither where parameters are only counted")
        return self

    @classmethod
    def load(cls, path: Path, overrides: Mapping[str, Any] | None = None) -> Study:
        """Read a study.yaml, with ``overrides`` (dotted key -> value) on top. Raises BadFileError."""
        content = read_including(path, ("train", "evaluate", "resources"), _REPLACES)
        content = layered(content, {tuple(key.split(".")): one for key, one in (overrides or {}).items()}, _REPLACES)
        where = f"{path}, with {', '.join(overrides)} given by options," if overrides else path
        return parse(cls, where, {"name": path.resolve().parent.name, **content})

    @property
    def model_names(self) -> str:
        """The base models, as a sentence names them."""
        return ", ".join(model.name for model in self.models)

    @property
    def tasks(self) -> tuple[str, ...]:
        """Every task of the study, the general data last."""
        return self.in_domain + self.out_of_domain + ((self.general.task,) if self.general else ())

    def plan(self, workspace: Workspace, include_paths: tuple[Path, ...] = ()) -> list[Trial]:
        """Every trial of the study, in the order of the table. Reads files, loads no model.

        Raises UnknownNameError for a recipe, DataError for a task without a training split in a training role.
        """
        recipes = load_recipes(workspace.methods)
        for name, scale in self.learning_rate_scales.items():
            if name not in recipes:
                raise UnknownNameError("recipe", name, recipes, "It is named in the study's learning_rate_scales.")
            recipes[name] = recipes[name].model_copy(update={"learning_rate_scale": scale})
        products = [(part, select(recipes, part.recipes)) for part in self.products()]
        if self.reference not in {*recipes, Study.model_fields["reference"].default}:
            raise UnknownNameError("recipe", self.reference, recipes, "It is named as the study's reference.")
        if self.train and self.frozen_base and "base" in recipes and recipes["base"] not in products[0][1]:
            products[0][1].insert(0, recipes["base"])
        files = TaskFiles.scan((workspace.tasks, *include_paths))
        both = set(self.in_domain) & set(self.out_of_domain)
        if both:
            raise DataError(f"{', '.join(sorted(both))}: a task is either in-domain or out-of-domain, not both.")
        for task in self.tasks:
            if task not in self.out_of_domain:
                files.check_trainable(task)
        digests = {task: files.digest(task) for task in self.tasks}
        return _each_once(trial for part, chosen in products for trial in part.trials(chosen, digests))

    def products(self) -> list[Study]:
        """The parts as studies of one product each; the study itself where it has none."""
        given = [{key: getattr(part, key) for key in part.model_fields_set} for part in self.parts]
        return [self.model_copy(update={**own, "parts": ()}) for own in given] or [self]

    def trials(self, recipes: Sequence[Recipe], digests: Mapping[str, str]) -> list[Trial]:
        """Every trial of ``recipes``, each once, given the digest of every task."""
        return _each_once(self._cells(recipes, digests))

    def _cells(self, recipes: Sequence[Recipe], digests: Mapping[str, str]) -> Iterator[Trial]:
        """The trials of ``recipes``; a recipe of one size comes back at every budget."""
        for spec in self.models:
            model = spec.model_copy(update={"revision": spec.revision or _shipped_digest(spec.name)})
            shared = {
                "version": PROTOCOL_VERSION,
                "model": model.model_dump(exclude_defaults=True),
                "in_domain": self.in_domain,
                "out_of_domain": self.out_of_domain,
                "tasks": {task: digests[task] for task in self.in_domain + self.out_of_domain},
                "train": self.train.model_dump(exclude_defaults=True) if self.train else None,
                "evaluate": self.evaluate.model_dump(exclude_defaults=True),
            }
            amounts = self.general.amounts() if self.general else [None]
            for general, budget, setting, recipe in product(amounts, self.budgets, self.settings, recipes):
                trains_on = {**shared, "general": [general.task, digests[general.task]]} if general else shared
                protocols = digest(shared), digest(trains_on)
                yield from self._cell(recipe, setting, budget, model, general, digests, protocols)

    def _cell(
        self,
        recipe: Recipe,
        setting: Setting,
        budget: str,
        model: ModelSpec,
        general: GeneralData | None,
        digests: Mapping[str, str],
        protocols: tuple[str, str],
    ) -> Iterator[Trial]:
        """One recipe in one setting at one budget: a trial for every seed and, if single, every task."""
        if self.train is None:
            setting = "counted"
        elif recipe.method == "base":
            setting = "frozen"
        trains = setting in {"mixture", "single"}
        general = general if trains else None
        for union in [(task,) for task in self.in_domain] if setting == "single" else [self.in_domain]:
            used = union + self.out_of_domain + ((general.task,) if general else ())
            for seed in self.seeds if trains else self.seeds[:1]:
                yield Trial(
                    study=self.name,
                    recipe=recipe,
                    setting=setting,
                    train_on=union if trains else (),
                    in_domain=union,
                    out_of_domain=self.out_of_domain,
                    task_digests={task: digests[task] for task in used},
                    model=model,
                    budget=budget if _takes(recipe, budget) else NATIVE,
                    tolerance=self.budget_tolerance,
                    seed=seed,
                    train=self.train,
                    evaluate=self.evaluate,
                    general=general,
                    protocol=protocols[general is not None],
                )


def _each_once(trials: Iterable[Trial]) -> list[Trial]:
    """The trials in order, without those that came before."""
    return list({trial.id: trial for trial in trials}.values())


def _listed(value: Any) -> Any:
    """A single value is short for a list of one."""
    return [value] if isinstance(value, str | int) else value


def _once(value: tuple[Any, ...]) -> tuple[Any, ...]:
    if len(set(value)) != len(value):
        raise ValueError(f"lists an entry twice: {list(value)}")
    return value


def is_rank(budget: str) -> bool:
    """Whether a budget sets every recipe's rank (``r8``) and not its size."""
    return re.fullmatch(r"r\d+", budget) is not None


def _takes(recipe: Recipe, budget: str) -> bool:
    """Whether a budget applies: some recipes have one size, and what has no rank cannot be set to one."""
    return recipe.method not in {"base", "full"} and not (is_rank(budget) and "r" not in recipe.params)


def _shipped_digest(name: str) -> str | None:
    """The embedded model is identified by its weights, a model of the hub by its revision."""
    if name != "embedded":
        return None
    return hashlib.sha256((MODEL_DIR / "model.safetensors").read_bytes()).hexdigest()[:12]
