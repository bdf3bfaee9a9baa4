"""Every table that goes to a terminal, and the sentences below it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from statistics import median
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from mosld_bench.cost import estimate
from mosld_bench.cost.estimate import Price
from mosld_bench.format import digits, short_count
from mosld_bench.records.profile import Entry, Profile, Timed
from mosld_bench.run.plan import Plan
from mosld_bench.spec.trial import Condition, PlannedTrial


def plan_table(plan: Plan, width: int = 160) -> Table:
    """One line a recipe and condition, over its tasks and seeds.

    Columns without a value are left out; where ``width`` characters do not hold all others, so are those that follow
    from the rest, since a number that is cut tells nothing.
    """
    narrow = width < _WIDE
    rows = list(_plan_rows(plan))
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


def _plan_rows(plan: Plan) -> Iterator[dict[str, str]]:
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


def plan_sentences(
    plan: Plan, gpus: int, gpu_bytes: float, core_rate: Callable[[str], float] | None = None
) -> list[str]:
    """The bill in words, what it rests on, and what is refused.

    ``core_rate``: on a machine without a GPU, the FLOP/s of one of its cores in a dtype (`meters.core_rate`).
    """
    prices = [price for price in plan.prices if price]
    if not prices and plan.study.train:
        return ["No estimate of time and memory: it is made for transformers alone, and this model's shape is another."]
    if not prices:
        return ["Nothing is trained or scored: parameters are counted, which takes seconds."]
    total = estimate.summary(prices, gpus)
    said = []
    if total.gpu_hours is None:
        said.append("No estimate of hours: the tasks give no size (metadata.size) in their definitions.")
    else:
        rates = ", ".join(f"{rate / 1e12:.0f} TFLOP/s in {dtype}" for dtype, rate in estimate.SUSTAINED_FLOPS.items())
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
    hours = estimate.summary(prices, side_by_side).wall_hours or 0.0
    hours *= estimate.SUSTAINED_FLOPS[dtype] / (rate * estimate.REACHED_SHARE[dtype] * each)
    if hours > _LONG:
        return []
    return [
        f"Without a GPU, on this machine: about {_hours(hours)} hours with {side_by_side} trials at a time, if a trial "
        f"reaches {estimate.REACHED_SHARE[dtype]:.0%} of the {rate / 1e9:.0f} GFLOP/s at which a core multiplies "
        f"matrices."
    ]


_LONG = 1000  # hours


def profile_table(profile: Profile, width: int = 160) -> Table:
    """One line a recipe. Where ``width`` characters do not hold all: short counts, then no ranges and fewer columns."""
    for counts, few in ((False, False), (True, False)):
        shown = _table(profile, counts, few)
        if Console(width=1000).measure(shown).maximum <= width:
            return shown
    return _table(profile, True, True)


def _table(profile: Profile, counts: bool, few: bool) -> Table:
    """``counts``: short ones; ``few``: columns, and no ranges."""
    kind = "random weights, " if profile.random_weights else ""
    shown = Table(
        title=f"{profile.study}: {profile.model.name}, {kind}{profile.dtype} on {profile.device}",
        box=None if few else SIMPLE_HEAD,
        padding=(0, 1, 0, 0),
    )
    columns = [(title, list(map(cell, profile.entries))) for title, cell in _columns(profile, counts, few)]
    columns = [(title, cells) for title, cells in columns if any(cells)]
    for title, _ in columns:
        shown.add_column(title, justify="left" if title == "recipe" else "right", no_wrap=True)
    for cells in zip(*(cells for _, cells in columns), strict=True):
        shown.add_row(*cells)
    return shown


def _columns(profile: Profile, counts: bool, few: bool) -> list[tuple[str, Callable[[Entry], str]]]:
    unit, name = profile.flop_unit

    def count(value: int) -> str:
        return short_count(value) if counts else f"{value:,}"

    def rate(what: Timed) -> Callable[[Entry], str]:
        return lambda entry: digits(found.median) if (found := profile.rate(entry, what)) else ""

    def times(what: Timed) -> Callable[[Entry], str]:
        def cell(entry: Entry) -> str:
            found = profile.relative(entry, what)
            if not found:
                return ""
            return f"{found.median:.2f}" + ("" if few else f" ({found.low:.2f}–{found.high:.2f})")

        return cell

    def mib(values: Sequence[int]) -> str:
        return f"{median(values) / 2**20:,.0f}" if values else ""

    def step(entry: Entry) -> str:
        return f"{entry.flops.step / unit:,.2f}" if entry.flops.step is not None else ""

    columns: list[tuple[str, bool, Callable[[Entry], str]]] = [
        ("recipe", True, lambda entry: entry.recipe.name),
        ("trainable", False, lambda entry: count(entry.fit.trainable)),
        ("active", True, lambda entry: count(entry.active)),
        ("stored", False, lambda entry: count(entry.stored)),
        (name, True, lambda entry: f"{entry.flops.forward / unit:,.2f}"),
        ("training", False, step),
        ("train/s", True, rate("train")),
        (f"×{profile.reference}", True, times("train")),
        ("MiB", True, lambda entry: mib(entry.train_memory)),
        ("prompt ms", True, lambda entry: digits(1e3 * median(entry.prompt))),
        ("×base", True, times("prompt")),
        ("decode/s", True, rate("decode")),
        ("×base", True, times("decode")),
        ("MiB decoding", False, lambda entry: mib(entry.decode_memory)),
    ]
    return [(title, cell) for title, always, cell in columns if always or not few]


def profile_sentences(profile: Profile) -> list[str]:
    """How to read the table."""
    given, gap = profile.load, profile.gap
    said = [
        f"Medians over {given.rounds} rounds. FLOPs are a token's; train/s and decode/s are tokens a second; × is time "
        f"against the frozen base, in training against {profile.reference}, each within a round.",
        f"Training: {given.batch} texts of {given.prompt_tokens} tokens. Prompts: {given.prompt_tokens} tokens, "
        f"{given.streams} at a time, {given.new_tokens} tokens decoded after each. MiB: {profile.memory_note}.",
        "Active parameters enter one token's output. The FLOPs are those computed: they include the experts that a "
        "router did not pick.",
    ]
    return said if gap is None else [*said, f"Counted and calculated FLOPs differ by at most {gap:.2%}."]


def results_table(main_csv: Path) -> Table:
    """The report's main table for the terminal."""
    import pandas as pd

    frame = pd.read_csv(main_csv)
    table = Table(title="mean scores in per cent, mean ± standard deviation over seeds")
    for column in ("recipe", "setting", "budget", "trainable", "in-domain", "out-of-domain", "seeds"):
        table.add_column(column, justify="left" if column in {"recipe", "setting", "budget"} else "right")

    def shown(mean: float, sd: float) -> str:
        if pd.isna(mean):
            return "–"
        return f"{100 * mean:.1f}" + ("" if pd.isna(sd) else f" ± {100 * sd:.1f}")

    for row in frame.to_dict("records"):
        means = [shown(row[f"{role}_mean"], row[f"{role}_sd"]) for role in ("in_domain", "out_of_domain")]
        count = row["trainable_parameters"]
        size = "–" if pd.isna(count) else f"{int(count):,}"
        table.add_row(row["recipe"], row["setting"], str(row["budget"]), size, *means, str(row["seeds"]))
    return table
