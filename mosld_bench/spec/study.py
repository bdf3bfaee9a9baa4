"""Studies: a study.yaml is a question, and the settings under which it is asked.

Loads no model and no torch: the same file always gives the same trials, in the same order.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, PrivateAttr, field_validator, model_validator

from mosld_bench.errors import BadFileError, BenchError, DataError
from mosld_bench.spec.ablation import WORDS, Ablate, Catalogue, Factorial, catalogue
from mosld_bench.spec.expand import distinct, trials_of
from mosld_bench.spec.model_folder import located
from mosld_bench.spec.names import problem_of_study, problem_of_task
from mosld_bench.spec.recipe import Recipe, load_recipes, recipe_named, select
from mosld_bench.spec.search import check_fits, check_recipe
from mosld_bench.spec.selection import GeneralSweep, Selection, as_list, narrowed, within_words, without_repetitions
from mosld_bench.spec.task_files import TaskFiles
from mosld_bench.spec.trial import EvaluateSpec, ModelSpec, Rate, Resources, TrainSpec, Trial
from mosld_bench.spec.tuning import RateSource, Tuning, read_tuning
from mosld_bench.spec.workspace import Workspace
from mosld_bench.spec.yaml_file import layered, parse, read_including, read_yaml

#: Keys that are laid over those of another file key by key.
_MERGED = ("train", "evaluate", "resources")

#: Key -> the keys that go out of an included file, or of the file itself, where the first is given on top of it.
_REPLACES = {
    "model": ("models",),
    "models": ("model",),
    "train.steps": ("train.epochs",),
    "train.epochs": ("train.steps",),
    **dict.fromkeys(Selection.model_fields, ("parts",)),  # trials that are asked for by name are those, and no others
    **dict.fromkeys(WORDS, ("recipes", "parts")),
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
    ablate: Ablate | None = Field(
        None, description="recipes made of one by changing a factor at a time, which the word ablate stands for"
    )
    factorial: Factorial | None = Field(
        None, description="recipes of all combinations of some factors, which the word factorial stands for"
    )
    in_domain: tuple[str, ...] = Field((), description="tasks that are trained on and scored")
    out_of_domain: tuple[str, ...] = Field((), description="tasks that are scored only")
    budget_tolerance: float = Field(
        0.01, gt=0, lt=1, description="how far a recipe's size may be from its budget, as a share of the budget"
    )
    train: TrainSpec | None = Field(None, description="none for a study that only counts parameters")
    tuning: Tuning | None = Field(
        None, description="file of a search for learning rates, whose factors take the place of the recipes' own"
    )
    learning_rate_scales: dict[str, Annotated[float, Field(gt=0)]] = Field(
        {}, description="recipe -> factor on train.learning_rate written by hand, in place of a found one and its own"
    )
    evaluate: EvaluateSpec = EvaluateSpec()
    resources: Resources = Resources()
    reference: str = Field("lora", description="the recipe that every row is compared with")
    margin: float = Field(
        1.0,
        gt=0,
        le=100,
        description="points by which rows may differ and still count as equal, of scores that are shares or out of 100",
    )
    frozen_base: bool = Field(True, description="whether the untrained model is scored too (recipe base)")
    general: GeneralSweep | None = Field(None, description="general data mixed in, in several amounts")
    task_items: tuple[Annotated[int, Field(gt=0, le=10**9)], ...] = Field(
        (), description="several amounts for train.task_items, each a part of the study"
    )
    axis: Literal["general", "rank", "model", "dropout", "experts", "items"] | None = Field(
        None, description="what the study's own figure has along x"
    )
    figures: tuple[
        Literal["axis", "size", "tasks", "difference", "ablation", "factorial", "settings", "training", "fronts"], ...
    ] = Field(
        ("difference", "ablation", "factorial", "axis", "size", "tasks", "settings", "training", "fronts"),
        description="of the report, in this order",
    )
    published: tuple[str, ...] = Field((), description="tables of results/published to compare with")

    _narrows: bool = PrivateAttr(default=False)  # whether `recipes` are those that a command line asks for

    @model_validator(mode="before")
    @classmethod
    def _accept_single_model(cls, content: Any) -> Any:
        if isinstance(content, dict) and "model" in content:
            if "models" in content:
                raise ValueError("give model or models, not both")
            content = {key: value for key, value in content.items() if key != "model"} | {"models": [content["model"]]}
        return content

    @model_validator(mode="before")
    @classmethod
    def _plan_ablations(cls, content: Any) -> Any:
        """A study that says no recipes has those of its ablations, and compares with what they are around."""
        found = [key for key in WORDS if content.get(key)] if isinstance(content, dict) else []
        if not found:
            return content
        first = content[found[0]]
        around = first.get("around") if isinstance(first, Mapping) else getattr(first, "around", None)
        return {"recipes": found, **({"reference": around} if isinstance(around, str) else {}), **content}

    @field_validator("name")
    @classmethod
    def _refuse_what_is_no_folder(cls, value: str) -> str:
        if problem := problem_of_study(value):
            raise ValueError(f"the name of a study {problem}; give another by --name NAME")
        return value

    @field_validator("in_domain", "out_of_domain", "published", "task_items", mode="before")
    @classmethod
    def _accept_single_name(cls, value: Any) -> Any:
        return as_list(value)

    @field_validator("in_domain", "out_of_domain")
    @classmethod
    def _refuse_repeated_tasks(cls, value: tuple[Any, ...]) -> tuple[Any, ...]:
        for name in value:
            if problem := problem_of_task(name):
                raise ValueError(f"the name of a task {problem}")
        return without_repetitions(value)

    @field_validator("models")
    @classmethod
    def _refuse_repeated_models(cls, value: tuple[ModelSpec, ...]) -> tuple[ModelSpec, ...]:
        if len({model.name for model in value}) != len(value):
            raise ValueError("lists a model twice; a study has one revision of each")
        return value

    @model_validator(mode="after")
    def _require_known_amounts(self) -> Study:
        without_repetitions(self.task_items)
        own = self.train.task_items if self.train else None
        if self.task_items and own is not None:
            raise ValueError("give task_items, or train.task_items, not both")
        if isinstance(own, dict) and (others := [task for task in own if task not in self.in_domain]):
            raise ValueError(
                f"train.task_items names {', '.join(others)}, which is not trained on; in_domain are "
                f"{', '.join(self.in_domain)}"
            )
        return self

    @model_validator(mode="after")
    def _require_tasks_to_train_on(self) -> Study:
        if self.trains != bool(self.in_domain):
            raise ValueError("give train and in_domain, or neither where parameters are only counted")
        return self

    @model_validator(mode="after")
    def _require_what_is_held_out(self) -> Study:
        if self.evaluate.split == "validation" and (self.out_of_domain or not self.holds_out):
            raise ValueError(
                "evaluate.split: validation scores what is held out of the in-domain tasks; it takes no out_of_domain, "
                "and a train.validation_fraction and train.validation_items above 0"
            )
        return self

    @classmethod
    def load(cls, path: Path, overrides: Mapping[str, Any] | None = None) -> Study:
        """Read a study.yaml, with ``overrides`` (dotted key -> value) on top; its folder gives the study its name.

        Options that ask for trials narrow the parts of a study (`selection.narrowed`); the same keys in a file that
        includes it take the place of the parts. A model that is named by a path gets the folder there, see
        `model_folder.located`.

        A file of ``tuning`` is looked for from the folder on of the file that names it, and one that is given on top
        from the working directory on.

        Raises BadFileError with every problem of the file, each with its key, and ModelError for a path without a
        model.
        """
        content = read_including(path, _MERGED, _REPLACES)
        changes = {tuple(key.split(".")): value for key, value in (overrides or {}).items()}
        parts = narrowed(content.get("parts"), overrides or {})
        if not within_words(parts) and any(word in (overrides or {}) for word in WORDS):
            parts = None  # as where a file that includes this one gives the key
        content = layered(content, changes, _REPLACES) | ({"parts": parts} if parts else {})
        if isinstance(content.get("tuning"), str):
            folder = Path() if "tuning" in (overrides or {}) else _folder_of("tuning", path)
            content["tuning"] = read_tuning(folder / content["tuning"]).model_dump()
        where = f"{path}, with {', '.join(overrides)} given by options," if overrides else path
        study = cls._made(where, {"name": path.resolve().parent.name, **content})
        study._narrows = "recipes" in (overrides or {}) and "parts" not in (overrides or {})
        return study

    @classmethod
    def of(cls, source: Path | str | None = None, *, root: Path | str | None = None, **keys: Any) -> Study:
        """A study by its name, folder or file, with ``keys`` on top; without one, that of the keys alone.

        ``keys`` are those of a study.yaml, with a ``name`` of its own among them where its records are not to lie with
        those of the file; ``train``, ``evaluate`` and ``resources`` change what they name, and ``model`` may be a name.
        ``root``: the workspace in which a name is looked for, by default the one around.

            Study.of("embedded", name="short", recipes=["lora", "mosld"], seeds=[0], train={"steps": 20})

        Raises BadFileError with every problem of the keys, and what `load` raises.
        """
        changes: dict[str, Any] = {}
        for key, value in keys.items():
            if source is not None and key in _MERGED and isinstance(value, Mapping):
                changes |= {f"{key}.{inner}": inner_value for inner, inner_value in value.items()}
            else:
                changes[key] = {"name": value} if key == "model" and isinstance(value, str) else value
        if source is not None:
            workspace = Workspace.find(None if root is None else Path(root))
            return cls.load(workspace.study_file(str(source)), changes)
        if isinstance(changes.get("tuning"), str):
            changes["tuning"] = read_tuning(Path(changes["tuning"])).model_dump()
        return cls._made("the study that is given by its keys", changes)

    @classmethod
    def _made(cls, where: Path | str, content: dict[str, Any]) -> Study:
        """The study of ``content``, its models found. ``where`` is named in errors."""
        study = parse(cls, where, content)
        if study.tuning:
            study.tuning.check(where)
        models = tuple(map(located, study.models))
        names = [model.name for model in models]
        if len(set(names)) != len(names):
            raise BadFileError(
                f"{where} lists two models of one name ({', '.join(names)}); folders of models need names of their own."
            )
        return study.model_copy(update={"models": models})

    @property
    def trains(self) -> bool:
        """Whether its trials train and score; a study that does not counts parameters, and reads no weights."""
        return self.train is not None

    @property
    def holds_out(self) -> bool:
        """Whether items are held out of training, and looked at: for a validation loss, and for a search."""
        return self.train is not None and self.train.validation_fraction > 0 and self.train.validation_items != 0

    @property
    def train_specs(self) -> tuple[TrainSpec, ...]:
        """How its trials train: one spec, or one for every amount of training items; none where it trains nothing."""
        if self.train is None:
            return ()
        amounts = [self.train.model_copy(update={"task_items": count}) for count in self.task_items]
        return tuple(amounts) or (self.train,)

    @property
    def model_names(self) -> str:
        """The base models, as a sentence names them."""
        return ", ".join(model.name for model in self.models)

    @property
    def tasks(self) -> tuple[str, ...]:
        """Every task of the study: in-domain, out-of-domain, the general data, and the text that may be forgotten."""
        general = (self.general.task,) if self.general else ()
        return tuple(dict.fromkeys(self.in_domain + self.out_of_domain + general + self.text))

    @property
    def training_tasks(self) -> tuple[str, ...]:
        """The tasks that are trained on, the general data last."""
        return self.in_domain + ((self.general.task,) if self.general else ())

    @property
    def text(self) -> tuple[str, ...]:
        """The task of ``evaluate.text``, if any."""
        return (self.evaluate.text,) if self.evaluate.text else ()

    def plan(self, workspace: Workspace, include_paths: tuple[Path, ...] = ()) -> list[Trial]:
        """Every trial of the study, in the order of the table. Reads files, loads no model.

        Raises UnknownNameError for a recipe, BadFileError for a file that is asked for and cannot be read, DataError
        for a task without a training split in a training role.
        """
        known = self.catalogue(load_recipes(workspace.methods))
        recipes, parts = known.recipes, self.selected(known)
        if self.reference != Study.model_fields["reference"].default:
            recipe_named(recipes, self.reference, "It is named as the study's reference.")
        for name in self.learning_rate_scales:
            recipe_named(recipes, name, "It is named in the study's learning_rate_scales.")
        first = parts[0][1]
        if self.trains and self.frozen_base and {"base"} & (recipes.keys() | recipes.unreadable.keys()):
            base = recipe_named(recipes, "base")
            first[:0] = [base] if base not in first else []
        digests = self._task_digests(TaskFiles.scan((workspace.tasks, *include_paths)))
        check_fits(self, digests)
        return distinct(
            trial
            for part, chosen in parts
            for rate in part.rates
            for trial in trials_of(
                part, [self.at_rate(recipe, rate, known.leaders.get(recipe.name)) for recipe in chosen], digests, rate
            )
        )

    def catalogue(self, recipes: Mapping[str, Recipe]) -> Catalogue:
        """``recipes``, those of files, with what the study's ablations make of them. Raises BenchError."""
        return catalogue(self.ablate, self.factorial, recipes)

    def selected(self, known: Catalogue) -> list[tuple[Study, list[Recipe]]]:
        """The parts of :meth:`products`, each with its recipes.

        Where a command line asks for recipes, a part keeps those of its own that are asked for, and is left out where
        it has none of them; what is asked for and in no part makes a part of its own. Raises UnknownNameError.
        """
        parts = [(part, select(known.recipes, part.recipes, known.words)) for part in self.products()]
        if not (self.parts and self._narrows):
            return parts
        asked = select(known.recipes, self.recipes, known.words)
        kept = [(part, [recipe for recipe in asked if recipe in own]) for part, own in parts]
        rest = [recipe for recipe in asked if not any(recipe in own for _, own in kept)]
        whole = (self.model_copy(update={"parts": ()}), rest)
        return [entry for entry in [*kept, whole] if entry[1]]

    def products(self) -> list[Study]:
        """The parts as studies without parts, each one product; the study itself where it has no parts."""
        changes = [{key: getattr(part, key) for key in part.model_fields_set} for part in self.parts]
        return [self.model_copy(update={**update, "parts": ()}) for update in changes] or [self]

    def trials(self, recipes: Sequence[Recipe], digests: Mapping[str, str]) -> list[Trial]:
        """Every trial of ``recipes``, each once, given the digest of every task. Parts are not looked at."""
        return distinct(trials_of(self, recipes, digests))

    def rate_source(self, recipe: str, leader: str | None = None) -> RateSource:
        """Who says at which learning rate the recipe of that name trains; what is written by hand comes first.

        ``leader``: see `at_rate`.
        """
        if recipe in self.learning_rate_scales:
            return RateSource.HAND
        if self.tuning and recipe in self.tuning.recipes:
            return RateSource.SEARCH
        return RateSource.RECIPE if leader is None else self.rate_source(leader)

    def at_rate(self, recipe: Recipe, rate: Rate = "chosen", leader: Recipe | None = None) -> Recipe:
        """The recipe at its learning rate in this study. Raises BenchError for one that the study does not have.

        It has no runner-up of a recipe whose factor is no search's; one that is not trained needs none. ``leader``: the
        recipe of which it is an ablation, whose rate it has unless it has one of its own in the study: rows that differ
        in the rate as well would not differ in one factor.
        """
        tuned = leader if leader and self.rate_source(recipe.name) is RateSource.RECIPE else recipe
        source = self.rate_source(tuned.name)
        scale: float | None = tuned.learning_rate_scale
        if source is RateSource.HAND:
            scale = self.learning_rate_scales[tuned.name]
        elif source is RateSource.SEARCH and self.tuning:
            check_recipe(self.tuning, tuned)
            scale = self.tuning.recipes[tuned.name].factor(rate)
        if scale is None or (rate != "chosen" and source is not RateSource.SEARCH and recipe.method != "base"):
            reason = "the search found no second factor" if scale is None else f"its factor is {source.label}"
            raise BenchError(
                f"rates: runner_up asks for the next best learning rate of {recipe.name!r}, but {reason}. `mosld-bench "
                f"tune` finds it; or name recipes that have one in a part of the study with these rates."
            )
        return recipe.model_copy(update={"learning_rate_scale": scale})

    def _task_digests(self, files: TaskFiles) -> dict[str, str]:
        """Task -> digest of all that defines it. Raises DataError for a task that cannot play its part."""
        both = set(self.in_domain) & set(self.out_of_domain)
        if both:
            raise DataError(f"{', '.join(sorted(both))}: a task is either in-domain or out-of-domain, not both.")
        for task in self.training_tasks:
            files.check_trainable(task)
        for task in self.text:
            if task in self.training_tasks:
                raise DataError(
                    f"evaluate.text: {task} is trained on, so that its loss would not tell what is forgotten. Name a "
                    f"task of other text."
                )
            files.check_text(task)
        return {task: files.digest(task) for task in self.tasks}


def _folder_of(key: str, path: Path) -> Path:
    """The folder of the file that gives a study the value of ``key``: the one at ``path``, or the one it includes."""
    own = read_yaml(path)
    return path.parent if key in own or "include" not in own else (path.parent / own["include"]).parent
