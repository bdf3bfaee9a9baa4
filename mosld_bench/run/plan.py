"""What a study will run and what that will take: its trials with their budgets solved, priced, as one prints them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.table import Table

from mosld_bench.cost import estimate as pricing
from mosld_bench.cost.estimate import Price
from mosld_bench.cost.memory import Shape, UnknownShapeError
from mosld_bench.errors import UnknownNameError
from mosld_bench.methods import registry
from mosld_bench.records import published
from mosld_bench.spec.recipe import load_recipes
from mosld_bench.spec.study import Study
from mosld_bench.spec.task_files import TaskFiles
from mosld_bench.spec.trial import Condition, Trial
from mosld_bench.spec.workspace import Workspace

if TYPE_CHECKING:
    from transformers import PreTrainedConfig

    from mosld_bench.spec.trial import Fit, PlannedTrial


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
                    known[key] = pricing.price(trial, fit, shape, self.sizes, _checkpoints(trial))
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
        whys = (pricing.fits(price, gpu_bytes) for price in self.prices if price)
        return list(dict.fromkeys(why for why in whys if why))


def _checkpoints(trial: Trial) -> bool:
    return registry.get(trial.recipe.method).checkpoints(trial.recipe.params)


def make(
    study: Study, workspace: Workspace, include_paths: tuple[Path, ...] = (), model_root: Path | None = None
) -> Plan:
    """Plan ``study`` and solve every budget, each once. Reads configurations, no weights and no data."""
    from mosld_bench.inputs.models import load_config
    from mosld_bench.methods.fit import Counts, fit_budget

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
            seen[key] = fit_budget(trial.recipe, configs[name], trial.budget, trial.tolerance, recipes, counts[name])
        jobs.append(PlannedTrial(trial, seen[key]))
    files = TaskFiles.scan((workspace.tasks, *include_paths))
    return Plan(study, jobs, configs, pricing.task_sizes(files, study.tasks))


def table(plan: Plan, width: int = 160) -> Table:
    """One line a recipe and condition, over its tasks and seeds.

    Columns without a value are left out; where ``width`` characters do not hold all others, so are those that follow
    from the rest, since a number that is cut tells nothing.
    """
    narrow = width < _WIDE
    rows = list(_rows(plan))
    names = [name for name in rows[0] if any(row[name] for row in rows)] if rows else []
    names = [name for name in names if not (narrow and name in {"target", "of all"})]
    look: dict[str, Any] = {"box": None, "padding": (0, 1, 0, 0)} if narrow else {}
    shown = Table(title=f"{plan.study.name}: {len(plan.jobs)} trials on {plan.study.model_names}", **look)
    for name in names:
        left = name in {"recipe", "setting", "budget", "model", "general"}
        shown.add_column(name, justify="left" if left else "right", no_wrap=True)
    for row in rows:
        shown.add_row(*(row[name] for name in names))
    return shown


_WIDE = 130  # characters


def _rows(plan: Plan) -> Iterator[dict[str, str]]:
    lines: dict[tuple[str, Condition], list[tuple[PlannedTrial, Price | None]]] = {}
    for job, price in zip(plan.jobs, plan.prices, strict=True):
        lines.setdefault((job[0].recipe.name, job[0].condition), []).append((job, price))
    for (recipe, condition), members in lines.items():
        fit = members[0][0][1]
        prices = [price for _, price in members if price]
        hours = [price.hours for price in prices if price.hours is not None]
        yield {
            "recipe": recipe,
            "setting": condition.setting,
            "budget": condition.budget,
            "model": condition.model.rsplit("/", 1)[-1] if len(plan.study.models) > 1 else "",
            "general": f"{condition.general:,}" if plan.study.general else "",
            "trials": str(len(members)),
            "target": f"{fit.target:,}" if fit.target is not None else "",
            "trainable": f"{fit.trainable:,}",
            "residual": f"{fit.residual:+.2%}" if fit.residual is not None else "",
            "of all": f"{fit.trainable / fit.total:.2%}",
            "GB": f"{max(price.memory.total for price in prices) / 1e9:.1f}" if prices else "",
            "GPU-hours": f"{sum(hours):,.1f}" if prices and len(hours) == len(prices) else "",
        }


def _hours(hours: float) -> str:
    return f"{hours:,.0f}" if hours >= 10 else f"{hours:.2g}"


def sentences(plan: Plan, gpus: int, gpu_bytes: float, core_rate: Callable[[str], float] | None = None) -> list[str]:
    """The bill in words, what it rests on, and what is refused.

    ``core_rate``: on a machine without a GPU, the FLOP/s of one of its cores in a dtype (`meters.core_rate`).
    """
    prices = [price for price in plan.prices if price]
    if not prices and plan.study.train:
        return ["No estimate of time and memory: it is made for transformers alone, and this model's shape is another."]
    if not prices:
        return ["Nothing is trained or scored: parameters are counted, which takes seconds."]
    total = pricing.summary(prices, gpus)
    said = []
    if total.gpu_hours is None:
        said.append("No estimate of hours: the tasks give no size (metadata.size) in their definitions.")
    else:
        rates = ", ".join(f"{rate / 1e12:.0f} TFLOP/s in {dtype}" for dtype, rate in pricing.SUSTAINED.items())
        part = f" ({total.unknown} trials on tasks of unknown size left out)" if total.unknown else ""
        said.append(
            f"An estimate, not a measurement: {_hours(total.gpu_hours)} GPU-hours{part}, "
            f"{_hours(total.wall_hours or 0)} hours on {gpus} GPUs at one trial a GPU, if a GPU sustains {rates}."
        )
        said += _without_gpu(plan, prices, core_rate) if core_rate else []
    said.append(f"The largest trial takes about {total.most_memory / 1e9:.1f} GB of a GPU.")
    said += [f"Refused: {why}" for why in plan.refusals(gpu_bytes)]
    return said


def _without_gpu(plan: Plan, prices: Sequence[Price], core_rate: Callable[[str], float]) -> list[str]:
    """What the plan takes on the cores of this machine; silent where nobody would wait for it."""
    from mosld_bench.trial.device import cores

    assert plan.study.train is not None, "a plan with prices trains"
    dtype, each = plan.study.train.dtype, plan.study.resources.cpus_per_trial
    side_by_side = max(1, int(cores() / each))
    rate = core_rate(dtype)
    hours = pricing.summary(prices, side_by_side).wall_hours or 0.0
    hours *= pricing.SUSTAINED[dtype] / (rate * pricing.REACHED[dtype] * each)
    if hours > _LONG:
        return []
    return [
        f"Without a GPU, on this machine: about {_hours(hours)} hours with {side_by_side} trials at a time, if a trial "
        f"reaches {pricing.REACHED[dtype]:.0%} of the {rate / 1e9:.0f} GFLOP/s at which a core multiplies matrices."
    ]


_LONG = 1000  # hours
