"""Studies and trials: a study.yaml is a question; its plan is the list of trials that answer it.

Loads no model and no torch: the same file always gives the same list.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import product
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, field_validator, model_validator

from mosld_bench.embedded import MODEL_DIR
from mosld_bench.errors import BudgetError, DataError, UnknownNameError
from mosld_bench.spec.budget import NATIVE, Budget, Rank
from mosld_bench.spec.recipe import Recipe, load_recipes, select
from mosld_bench.spec.task_files import TaskFiles
from mosld_bench.spec.trial import EvaluateSpec, GeneralData, ModelSpec, Resources, Setting, TrainSpec, Trial, digest
from mosld_bench.spec.workspace import Workspace
from mosld_bench.spec.yaml_file import Strict, layered, parse, read_including

#: Raised when a change to the code changes the numbers of every trial, so that old records are not taken for new. A
#: field's default counts as code: identities leave out what is at its default, so that adding a field changes none.
PROTOCOL_VERSION = 2


class GeneralAxis(Strict):
    """General data in several amounts, each a part of the study; 0 is the study without."""

    task: str
    items: tuple[int, ...] = Field(min_length=1)

    def amounts(self) -> list[GeneralData | None]:
        return [GeneralData(task=self.task, items=n) if n else None for n in self.items]


class Selection(Strict):
    """Which cells a study has: recipes by settings by budgets by seeds."""

    recipes: tuple[str, ...] = ("all",)
    settings: tuple[Literal["mixture", "single"], ...] = ("mixture",)
    budgets: tuple[Budget, ...] = (NATIVE,)
    seeds: tuple[int, ...] = Field((0, 1, 2), min_length=1)

    @field_validator("recipes", "settings", "seeds", "budgets", mode="before")
    @classmethod
    def _listed(cls, value: Any) -> Any:
        return _listed(value)

    @field_validator("budgets", mode="before")
    @classmethod
    def _spelled(cls, value: Any) -> Any:
        """Read here, so that a problem is one of the key and not of a place in its list."""
        try:
            return [Budget.parse(str(item)) for item in (value if isinstance(value, list | tuple) else [value])]
        except BudgetError as error:
            raise ValueError(str(error)) from None

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
        budget: Budget,
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


def _takes(recipe: Recipe, budget: Budget) -> bool:
    """Whether a budget applies: some recipes have one size, and what has no rank cannot be set to one."""
    return recipe.method not in {"base", "full"} and not (isinstance(budget, Rank) and "r" not in recipe.params)


def _shipped_digest(name: str) -> str | None:
    """The embedded model is identified by its weights, a model of the hub by its revision."""
    if name != "embedded":
        return None
    return hashlib.sha256((MODEL_DIR / "model.safetensors").read_bytes()).hexdigest()[:12]
