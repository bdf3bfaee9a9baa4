"""What a study will run and what that will take: its trials with their budgets solved, priced, as one prints them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mosld_bench.cost import estimate as pricing
from mosld_bench.cost.estimate import Price
from mosld_bench.cost.memory import Shape, UnknownShapeError
from mosld_bench.errors import UnknownNameError
from mosld_bench.methods import registry
from mosld_bench.records import published
from mosld_bench.spec.recipe import load_recipes
from mosld_bench.spec.study import Study
from mosld_bench.spec.task_files import TaskFiles
from mosld_bench.spec.trial import Condition, Fit, PlannedTrial, Trial
from mosld_bench.spec.workspace import Workspace

if TYPE_CHECKING:
    from transformers import PreTrainedConfig


@dataclass(frozen=True)
class Plan:
    """The trials of a study, each with its fitted budget."""

    study: Study
    jobs: list[PlannedTrial]
    configs: dict[str, PreTrainedConfig]
    sizes: dict[str, pricing.TaskSize | None]

    @cached_property
    def prices(self) -> list[Price | None]:
        """What each trial will take; None where nothing is trained or scored, or the model is of another kind."""
        known: dict[tuple[str, Condition, tuple[str, ...]], Price | None] = {}
        found: list[Price | None] = []
        for trial, fit in self.jobs:
            key = trial.recipe.name, trial.condition, trial.train_on
            if trial.train is not None and key not in known:
                try:
                    shape = Shape.of(self.configs[trial.model.name])
                except UnknownShapeError:
                    known[key] = None
                else:
                    known[key] = pricing.price(trial, fit, shape, self.sizes, checkpoints=_checkpoints(trial))
            found.append(known.get(key))
        return found

    def longest_first(self, jobs: Sequence[PlannedTrial]) -> list[PlannedTrial]:
        """``jobs`` of this plan by falling price, so that no worker is left alone with a long trial at the end.

        Model by model, the dearest first, since a worker keeps one base model at a time. Equals and trials without a
        price stay in their order, what trains nothing behind them.
        """
        hours = self.hours(jobs)
        dearest: dict[str, float] = {}
        for trial, _ in jobs:
            dearest[trial.model.name] = max(dearest.get(trial.model.name, 0.0), hours[trial.id])
        models = sorted(dearest, key=lambda name: -dearest[name])
        return sorted(jobs, key=lambda job: (models.index(job[0].model.name), -hours[job[0].id], not job[0].train_on))

    def hours(self, jobs: Sequence[PlannedTrial]) -> dict[str, float]:
        """Trial of ``jobs`` -> its estimated GPU-hours, 0 where there is no estimate."""
        known = {trial.id: price.hours for (trial, _), price in zip(self.jobs, self.prices, strict=True) if price}
        return {trial.id: known.get(trial.id) or 0.0 for trial, _ in jobs}

    def rows(self) -> list[dict[str, Any]]:
        """Every trial as plain data."""
        found = []
        for (trial, fit), price in zip(self.jobs, self.prices, strict=True):
            row = {
                "id": trial.id, "recipe": trial.recipe.name, "setting": trial.setting, "train_on": trial.train_on,
                "budget": trial.budget, "model": trial.model.name, "seed": trial.seed, "protocol": trial.protocol,
                "general_items": trial.condition.general, **fit.model_dump(),
                "memory_bytes": price.memory.total if price else None, "gpu_hours": price.hours if price else None,
            }  # fmt: skip
            found.append(row)
        return found

    def refusals(self, gpu_bytes: float) -> list[str]:
        """Why trials do not fit a GPU of ``gpu_bytes``, each reason once."""
        whys = (pricing.why_too_large(price, gpu_bytes) for price in self.prices if price)
        return list(dict.fromkeys(why for why in whys if why))


def _checkpoints(trial: Trial) -> bool:
    return registry.get(trial.recipe.method).checkpoints(trial.recipe.params)


def make(
    study: Study, workspace: Workspace, include_paths: tuple[Path, ...] = (), model_root: Path | None = None
) -> Plan:
    """Plan ``study`` and solve every budget, each once. Reads configurations, no weights and no data."""
    from mosld_bench.inputs.models import load_config
    from mosld_bench.methods import Counts, fit_budget

    for name in study.published:
        if name not in published.FILES:
            raise UnknownNameError("published table", name, published.FILES)
    recipes = load_recipes(workspace.methods)
    configs = {model.name: load_config(model, model_root) for model in study.models}
    counts = {name: Counts(config) for name, config in configs.items()}
    seen: dict[tuple[str, str, str], Fit] = {}
    jobs: list[PlannedTrial] = []
    for trial in study.plan(workspace, include_paths):
        key = (trial.recipe.name, trial.budget, trial.model.name)
        if key not in seen:
            name = trial.model.name
            seen[key] = fit_budget(
                trial.recipe,
                configs[name],
                trial.budget,
                tolerance=trial.tolerance,
                recipes=recipes,
                counts=counts[name],
            )
        jobs.append(PlannedTrial(trial, seen[key]))
    files = TaskFiles.scan((workspace.tasks, *include_paths))
    return Plan(study, jobs, configs, pricing.task_sizes(files, study.tasks))
