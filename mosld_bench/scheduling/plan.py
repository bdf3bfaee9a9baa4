"""What a study will run and what that will take: its trials with their budgets solved, each with an estimate."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mosld_bench import collector
from mosld_bench.cost import estimate
from mosld_bench.cost.estimate import Price, TaskSize
from mosld_bench.cost.memory import Shape, UnknownShapeError
from mosld_bench.errors import BenchError, BudgetError, MethodError, RoundingError, UnknownNameError
from mosld_bench.format import one_line
from mosld_bench.methods import registry
from mosld_bench.records.published import TABLES
from mosld_bench.scheduling.rounds import rounds_of
from mosld_bench.spec.ablation import Catalogue
from mosld_bench.spec.budget import Native
from mosld_bench.spec.recipe import load_recipes, taken_along
from mosld_bench.spec.study import Study
from mosld_bench.spec.task_files import TaskFiles
from mosld_bench.spec.trial import Condition, Fit, PlannedTrial, Trial, canonical
from mosld_bench.spec.workspace import Workspace

if TYPE_CHECKING:
    from transformers import PreTrainedConfig

    from mosld_bench.cost.activations import Activations
    from mosld_bench.methods import Counts


@dataclass(frozen=True)
class Plan:
    """A study's trials, each with its fitted budget, and what is needed to estimate their cost."""

    study: Study
    planned: list[PlannedTrial]
    """In the study's order."""
    configs: dict[str, PreTrainedConfig]
    """Base model -> its configuration."""
    sizes: dict[str, TaskSize | None]
    """Task -> its size; None where its definition gives none."""
    leaders: Mapping[str, str] = field(default_factory=dict)
    """Recipe of an ablation -> the one that it is around, and has its learning rate of."""
    left_out: tuple[tuple[Trial, str], ...] = ()
    """Trials of recipes that a word such as `everything` takes along, and why these cannot be run at the budget."""
    unreadable: tuple[str, ...] = ()
    """Why files of recipes and tasks cannot be read, none of which the plan uses: a line each."""
    counts: Mapping[str, Counts] = field(default_factory=dict, repr=False)
    """Base model -> what was counted on it."""
    _activations: dict[tuple[str, str, str, str], Activations | None] = field(
        default_factory=dict, init=False, repr=False, compare=False
    )

    @property
    def trials(self) -> list[Trial]:
        """The trials without their fitted budgets, in the study's order."""
        return [trial for trial, _ in self.planned]

    @property
    def reported(self) -> list[Trial]:
        """The trials that a report of the plan is of: those that were left out, too."""
        return self.trials + [trial for trial, _ in self.left_out]

    @cached_property
    def prices(self) -> list[Price | None]:
        """The estimate of each of `planned`; None where nothing is trained or scored, or the model is no transformer.

        Computed once for the seeds of a recipe and condition, which cost the same.
        """
        known: dict[tuple[str, Condition, tuple[str, ...]], Price | None] = {}
        prices: list[Price | None] = []
        for trial, fit in self.planned:
            key = trial.recipe.name, trial.condition, trial.train_on
            if trial.train is not None and key not in known:
                known[key] = self._price(trial, fit)
            prices.append(known.get(key))
        return prices

    def _price(self, trial: Trial, fit: Fit) -> Price | None:
        from mosld_bench.compat.torch import has_bfloat16

        try:
            shape = Shape.of(self.configs[trial.model.name], trial.model.load)
        except UnknownShapeError:
            return None
        checkpoints = registry.get(trial.recipe.method).checkpoints(trial.recipe.params)
        resources = self.study.resources
        return estimate.price(
            trial,
            fit,
            shape,
            self.sizes,
            checkpoints=checkpoints,
            gpus=resources.gpus,
            score_batch=resources.score_tokens,
            bfloat16=has_bfloat16(),
            kept=partial(self._kept, trial, fit),
        )

    def _kept(self, trial: Trial, fit: Fit, dtype: str) -> Activations | None:
        """What the layers keep for the backward with the trial's method on them, computing in ``dtype``; seen once."""
        from mosld_bench.cost.activations import activations_of

        model = trial.model.name
        key = model, trial.recipe.method, canonical(fit.params), dtype
        if key not in self._activations:
            config, counts = self.configs[model], self.counts.get(model)
            self._activations[key] = activations_of(trial.recipe, fit, config, dtype, counts)
        return self._activations[key]

    def longest_first(self, planned: Sequence[PlannedTrial]) -> list[PlannedTrial]:
        """``planned`` of this plan by falling price, so that no worker is left alone with a long trial at the end.

        Model by model, the dearest first, since a worker keeps one base model at a time. Equals and trials without a
        price stay in their order, what trains nothing behind them.
        """
        hours = self.hours(planned)
        dearest: dict[str, float] = {}
        for trial, _ in planned:
            dearest[trial.model.name] = max(dearest.get(trial.model.name, 0.0), hours[trial.id])
        places = {name: place for place, name in enumerate(sorted(dearest, key=lambda name: -dearest[name]))}

        def rank(member: PlannedTrial) -> tuple[int, float, bool]:
            trial = member.trial
            return places[trial.model.name], -hours[trial.id], not trial.train_on

        return sorted(planned, key=rank)

    def in_rounds(self, planned: Sequence[PlannedTrial]) -> list[PlannedTrial]:
        """``planned`` of this plan round by round (`rounds_of`), and `longest_first` within a round."""
        members: dict[int, list[PlannedTrial]] = {}
        for member in planned:
            members.setdefault(self.rounds[member.trial.id], []).append(member)
        return [member for number in sorted(members) for member in self.longest_first(members[number])]

    @cached_property
    def rounds(self) -> dict[str, int]:
        """Trial id -> its round, from 0: that of the first seed of every row comes first."""
        return rounds_of(self.trials)

    def hours(self, planned: Sequence[PlannedTrial]) -> dict[str, float]:
        """Trial id of ``planned`` -> its estimated GPU-hours, 0 where there is no estimate."""
        return {trial.id: self._hours.get(trial.id) or 0.0 for trial, _ in planned}

    @cached_property
    def _hours(self) -> dict[str, float | None]:
        """Of every trial with an estimate: a study is asked for its parts, such as rounds, one by one."""
        return {trial.id: price.gpu_hours for (trial, _), price in zip(self.planned, self.prices, strict=True) if price}

    def rows(self) -> list[dict[str, Any]]:
        """Every trial as plain data, bytes of a GPU and GPU-hours as estimated: the output of `plan --json`."""
        rows = []
        for (trial, fit), price in zip(self.planned, self.prices, strict=True):
            row = {
                "id": trial.id, "recipe": trial.recipe.name, "setting": trial.setting, "train_on": trial.train_on,
                "budget": trial.budget, "model": trial.model.name, "seed": trial.seed, "protocol": trial.protocol,
                "general_items": trial.condition.general, "rate": trial.rate,
                "task_items": trial.condition.items,
                "learning_rate_scale": trial.recipe.learning_rate_scale, **fit.model_dump(),
                "memory_bytes": price.memory.total if price else None, "gpu_hours": price.gpu_hours if price else None,
                "process_bytes": price.process if price else None,
            }  # fmt: skip
            rows.append(row)
        return rows

    def refusals(self, gpu_bytes: float) -> list[str]:
        """Why trials do not fit a GPU of ``gpu_bytes``: a sentence a recipe and model, each once."""
        reasons = (estimate.why_too_large(price, gpu_bytes) for price in self.prices if price)
        return list(dict.fromkeys(reason for reason in reasons if reason))


@collector.seldom()
def make_plan(
    study: Study, workspace: Workspace, *, include_paths: tuple[Path, ...] = (), model_root: Path | None = None
) -> Plan:
    """Plan ``study`` and solve every budget, each once. Reads configurations, no weights and no data.

    A recipe that a word such as `everything` takes along, and that a budget cannot be met with, is left out; so is one
    of any word that cannot be on a base model whose weights are rounded.

    Raises UnknownNameError for a recipe, task or published table that is not there, ModelError for a model without a
    configuration, BudgetError for budgets that recipes cannot meet, with all of them, RoundingError for recipes that
    are asked for by name and cannot be on rounded weights, and BadFileError for a malformed file.
    """
    from mosld_bench.inputs.models import load_config
    from mosld_bench.methods import Counts, fit_budget
    from mosld_bench.methods.rounding import check_rounded

    for name in study.published:
        if name not in TABLES:
            raise UnknownNameError("published table", name, TABLES)
    files = TaskFiles.scan((workspace.tasks, *include_paths))
    if others := [task for task in study.tasks if task not in files.paths]:
        from mosld_bench.inputs.tasks import TaskLoader  # here, as lm-eval takes seconds to import

        TaskLoader((workspace.tasks, *include_paths)).check_names(others)
    recipes = load_recipes(workspace.methods)
    configs = {model.name: load_config(model, model_root) for model in study.models}
    counts = {name: Counts(config) for name, config in configs.items()}
    known = study.catalogue(recipes)
    fits: dict[tuple[str, str, str], Fit] = {}
    unmet: dict[tuple[str, str, str], BenchError] = {}
    wanted = [word for part in study.products() for word in part.recipes]
    along, left_out = taken_along(recipes, wanted), list[tuple[Trial, str]]()

    def may_go(recipe: str, error: BenchError) -> bool:
        return recipe in along or (isinstance(error, RoundingError) and recipe not in wanted)

    planned: list[PlannedTrial] = []
    for trial in study.plan(workspace, include_paths):
        model = trial.model.name
        key = (trial.recipe.name, trial.budget, model)
        if key not in fits and key not in unmet:
            _refuse_turned(known, trial)
            try:
                with _placed(known, trial.recipe.name):
                    fits[key] = fit_budget(
                        trial.recipe,
                        configs[model],
                        trial.budget,
                        tolerance=trial.tolerance,
                        recipes=recipes,
                        counts=counts[model],
                    )
                    if study.train:
                        check_rounded(trial.recipe, fits[key].params, trial.model, configs[model], study.train.dtype)
            except (BudgetError, RoundingError) as error:
                fits.pop(key, None)
                unmet[key] = error
            except MethodError as error:  # a plug-in that is broken stops those who ask for it by name
                if trial.recipe.name not in along:
                    raise
                unmet[key] = error
        if key in fits:
            planned.append(PlannedTrial(trial, fits[key]))
        elif may_go(trial.recipe.name, unmet[key]):
            left_out.append((trial, str(unmet[key])))
    if errors := [error for (name, *_), error in unmet.items() if not may_go(name, error)]:
        kinds = {type(error) for error in errors}
        raise (kinds.pop() if len(kinds) == 1 else BenchError)("\n".join(dict.fromkeys(map(str, errors))))
    leaders = {name: leader.name for name, leader in known.leaders.items()}
    reasons = [recipe.reason for recipe in recipes.unreadable.values()] + [task.reason for task in files.unreadable]
    return Plan(
        study,
        planned,
        configs,
        estimate.task_sizes(files, study.tasks),
        leaders,
        tuple(left_out),
        tuple(map(one_line, reasons)),
        counts,
    )


@contextmanager
def _placed(known: Catalogue, recipe: str) -> Iterator[None]:
    """Around fitting a recipe: an error says where in the study's file it stands, if an ablation of the study makes it.

    A mapping of coordinates is how the study says what has to change together.
    """
    try:
        yield
    except BenchError as error:
        if recipe not in known.places:
            raise
        advice = "Where other coordinates have to move with it, give them in one mapping of the list."
        kind = BudgetError if isinstance(error, BudgetError) else BenchError
        raise kind(f"{known.places[recipe]}: {error} {advice}") from error


def _refuse_turned(known: Catalogue, trial: Trial) -> None:
    """Raise BenchError where an ablation changes what the trial's budget turns: the budget would undo it."""
    name, params, leader = trial.recipe.name, trial.recipe.params, known.leaders.get(trial.recipe.name)
    if leader is None or name not in known.places or isinstance(trial.budget, Native):
        return
    knob = trial.recipe.knob or registry.get(trial.recipe.method).knob_of(params)
    if knob is not None and params.get(knob) != leader.params.get(knob):
        raise BenchError(
            f"{known.places[name]}: It changes {knob}, which the budget {trial.budget} sets. Ask for several budgets "
            f"instead, such as {{recipes: [{leader.name}], budgets: [r4, r8]}} in parts."
        )
