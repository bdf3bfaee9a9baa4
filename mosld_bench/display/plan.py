"""A plan in the terminal: its table, and what it will take in words."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from rich.box import HEAVY_HEAD
from rich.table import Table

from mosld_bench.cost import estimate
from mosld_bench.cost.estimate import Price
from mosld_bench.cost.probe import Probe
from mosld_bench.format import hours_text, listed
from mosld_bench.scheduling.plan import Plan
from mosld_bench.spec.trial import Condition, PlannedTrial
from mosld_bench.spec.tuning import RateSource

_WIDE = 130  # characters, which hold every column
_TELLING_HOURS = 0.0005  # of a GPU; of a model so small that no row comes to it a column would tell nothing
_LONG = 1000  # hours, which nobody waits for on a machine without a GPU


def plan_table(plan: Plan, width: int = 160) -> Table:
    """One line a recipe and condition, over its tasks and seeds.

    Columns without a value are left out; where ``width`` characters do not hold all others, so are those that follow
    from the rest, since a number that is cut tells nothing.
    """
    narrow = width < _WIDE
    rows = list(_rows(plan))
    columns = [name for name in rows[0] if any(row[name] for row in rows)] if rows else []
    columns = [name for name in columns if not (narrow and name in {"target", "of all"})]
    table = Table(
        title=f"{plan.study.name}: {len(plan.planned)} trials on {plan.study.model_names}",
        box=None if narrow else HEAVY_HEAD,
        padding=(0, 1, 0, 0) if narrow else (0, 1),
    )
    for name in columns:
        left = name in {"recipe", "setting", "budget", "model", "general", "items", "rates"}
        table.add_column(name, justify="left" if left else "right", no_wrap=name != "recipe", overflow="fold")
    for row in rows:
        table.add_row(*(row[name] for name in columns))
    return table


def _rows(plan: Plan) -> Iterator[dict[str, str]]:
    """Column -> cell, for every recipe and condition in the order of the plan."""
    cells: dict[tuple[str, Condition], list[tuple[PlannedTrial, Price | None]]] = {}
    for planned, price in zip(plan.planned, plan.prices, strict=True):
        cells.setdefault((planned.trial.recipe.name, planned.trial.condition), []).append((planned, price))
    asked = {part.rates for part in plan.study.products()}
    telling = any(
        sum(price.hours or 0 for _, price in members if price) >= _TELLING_HOURS for members in cells.values()
    )
    for (recipe, condition), members in cells.items():
        fit = members[0][0].fit
        prices = [price for _, price in members if price]
        hours = [price.gpu_hours for price in prices if price.gpu_hours is not None]
        yield {
            "recipe": recipe,
            "setting": condition.setting,
            "budget": condition.budget,
            "model": condition.model.rsplit("/", 1)[-1] if len(plan.study.models) > 1 else "",
            "general": f"{condition.general:,}" if plan.study.general else "",
            "items": f"{condition.items:,}" if condition.items else "",
            "rates": condition.rate.replace("_", "-") if any(rates != ("chosen",) for rates in asked) else "",
            "trials": str(len(members)),
            "target": f"{fit.target:,}" if fit.target is not None else "",
            "trainable": f"{fit.trainable:,}",
            "residual": f"{fit.residual:+.2%}" if fit.residual is not None else "",
            "of all": f"{fit.trainable / fit.total:.2%}",
            "GB": f"{max(price.memory.total for price in prices) / 1e9:.1f}" if prices else "",
            "GPU-hours": _rounded(sum(hours)) if prices and len(hours) == len(prices) and telling else "",
        }


def _rounded(hours: float) -> str:
    return f"{hours:,.1f}" if hours > 0.95 else f"{hours:.2g}"


def plan_sentences(
    plan: Plan,
    gpus: int,
    gpu_bytes: float,
    core_rate: Callable[[str], float] | None = None,
    probe: Probe | None = None,
) -> list[str]:
    """What the plan takes in words, what the estimate rests on, and which trials do not fit a GPU of ``gpu_bytes``.

    ``core_rate``: on a machine without a GPU, dtype -> FLOP/s of one of its cores (`trial.device.core_rate`), which is
    not asked for where a ``probe`` has measured a trial.
    """
    prices = [price for price in plan.prices if price]
    if not prices and plan.study.trains:
        return ["No estimate of time and memory: it is made for transformers alone, and this model's shape is another."]
    if not prices:
        return ["Nothing is trained or scored: parameters are counted, which takes seconds.", *left_out_sentences(plan)]
    total, each = estimate.summary(prices, gpus), plan.study.resources.gpus
    sentences, on_cores = [], probe is not None or total.gpu_hours is None
    if probe:
        sentences += _probed(plan, prices, probe)
    elif total.gpu_hours is None:
        sentences.append("No estimate of hours: the tasks give no size (metadata.size) in their definitions.")
    else:
        rates = ", ".join(f"{rate / 1e12:.0f} TFLOP/s in {dtype}" for dtype, rate in estimate.SUSTAINED_FLOPS.items())
        left_out = f" ({total.unknown} trials on tasks of unknown size left out)" if total.unknown else ""
        each_trial = "one trial a GPU" if each == 1 else f"one trial for {each} of them, one of which works at a time"
        sentences.append(
            f"An estimate, not a measurement, which --probe makes: {hours_text(total.gpu_hours)} GPU-hours{left_out}, "
            f"{hours_text(total.wall_hours or 0)} hours on {gpus} GPUs at {each_trial}, if a GPU sustains {rates}."
        )
        without_gpu = _without_gpu(plan, prices, core_rate) if core_rate else []
        sentences, on_cores = sentences + without_gpu, bool(without_gpu)
    sentences += _rates(plan)
    of_each = "a GPU" if each == 1 else f"the fullest of its {each} GPUs"
    on_cpu = (
        f"; without one a worker takes about {total.most_process / 1e9:.1f} GB in the end"
        if core_rate and on_cores
        else ""
    )
    sentences.append(
        f"The largest trial takes about {total.most_memory / 1e9:.1f} GB of {of_each} by estimate{on_cpu}."
    )
    sentences += left_out_sentences(plan)
    return sentences + [f"Refused: {reason}" for reason in plan.refusals(gpu_bytes)]


def left_out_sentences(plan: Plan) -> list[str]:
    """Which recipes are taken along by a word and cannot be run at a budget, and which files are not read, and why."""
    unread = [f"Not read, and not asked for: {reason}" for reason in plan.unreadable]
    return list(dict.fromkeys(f"Left out: {reason}" for _, reason in plan.left_out)) + unread


def _rates(plan: Plan) -> Iterator[str]:
    """Where the learning rates are from; silent where every recipe trains at its own."""
    study = plan.study
    recipes: dict[RateSource, list[str]] = {}
    for name in dict.fromkeys(trial.recipe.name for trial in plan.trials if trial.train_on):
        recipes.setdefault(study.rate_source(name, plan.leaders.get(name)), []).append(name)
    if set(recipes) - {RateSource.RECIPE}:
        told = [f"{source.label} for {listed(names)}" for source, names in recipes.items()]
        search = f" ({study.tuning.results}, digest {study.tuning.digest})" if study.tuning else ""
        yield f"Factors on the learning rate: {'; '.join(told)}{search}."


def _probed(plan: Plan, prices: Sequence[Price], probe: Probe) -> list[str]:
    """What was measured, and what the plan takes by that on this machine."""
    from mosld_bench.trial.device import cores

    step = "" if probe.step_seconds is None else f"{probe.steps} steps at {probe.step_seconds:.2g} s each and "
    of = "its process" if probe.device == "cpu" else "the GPU"
    measured = (
        f"Measured on this machine ({probe.device}), of the largest trial, {probe.label}: {step}{probe.items} test "
        f"items, and at most {probe.memory / 1e9:.1f} GB of {of}."
    )
    hours = [hours for price in prices if (hours := probe.hours(price)) is not None]
    if not hours:
        return [measured, "No hours come of it: the tasks give no size (metadata.size) in their definitions."]
    resources = plan.study.resources
    if probe.device == "cpu":
        slots = max(1, int(cores() / resources.cpus_per_trial))
    else:
        import torch

        slots = max(1, int(torch.cuda.device_count() / resources.gpus_per_trial))
    unknown = len(prices) - len(hours)
    left_out = f", {unknown} trials on tasks of unknown size left out" if unknown else ""
    return [
        measured,
        f"By that, with the others scaled by their estimated FLOPs{left_out}: {hours_text(sum(hours))} hours of one "
        f"trial at a time, {hours_text(estimate.side_by_side(hours, slots))} hours with {slots} side by side, if they "
        f"do not slow each other.",
    ]


def _without_gpu(plan: Plan, prices: Sequence[Price], core_rate: Callable[[str], float]) -> list[str]:
    """What the plan takes on the cores of this machine; silent where nobody would wait for it."""
    from mosld_bench.trial.device import cores

    assert plan.study.train is not None, "a plan with prices trains"
    dtype, cores_per_trial = plan.study.train.dtype, plan.study.resources.cpus_per_trial
    side_by_side = max(1, int(cores() / cores_per_trial))
    rate = core_rate(dtype)
    hours = estimate.side_by_side([price.hours for price in prices if price.hours is not None], side_by_side)
    hours = estimate.on_cores(hours, dtype, rate, cores_per_trial)
    if hours > _LONG:
        return []
    return [
        f"Without a GPU, on this machine: about {hours_text(hours)} hours with {side_by_side} trials at a time, if a "
        f"trial reaches {estimate.REACHED_SHARE[dtype]:.0%} of the {rate / 1e9:.0f} GFLOP/s at which a core multiplies "
        f"matrices."
    ]
