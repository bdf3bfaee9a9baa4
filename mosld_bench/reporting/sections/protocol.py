"""The section Protocol: model, training, scoring and tasks, and what is equal for all rows and what is not."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import pandas as pd

from mosld_bench.format import listed
from mosld_bench.reporting.analysis import Analysis
from mosld_bench.reporting.document import Section, paragraph, section
from mosld_bench.reporting.forgetting import text_loss, text_title
from mosld_bench.reporting.labels import MISSING, count, named, parameter_label, percent
from mosld_bench.reporting.table import Column, Line, Table
from mosld_bench.spec.trial import ModelSpec, TrainSpec
from mosld_bench.spec.tuning import RateSource


def protocol(analysis: Analysis) -> Section:
    """The study's own text, its protocol point by point, and its tasks; of a study that trains nothing, its models."""
    study = analysis.study
    return section(
        "Protocol",
        paragraph(study.about) if study.about else None,
        _protocol_table(analysis),
        _task_table(analysis) if study.trains else None,
        appendix=True,
    )


#: What a point of the protocol is about, and what it says.
_Point = tuple[str, str]


def _protocol_table(analysis: Analysis) -> Table:
    """The points of the protocol, and what is equal for all rows and what is not; points without a text left out."""
    spec = analysis.study.train
    groups: dict[str, list[_Point]] = {"": [_models(analysis)]}
    if spec is not None:
        groups[""] += [*_training(analysis, spec), _seeds(analysis), *_scoring(analysis)]
        groups |= {"Equal for all rows of a block": _equal(analysis), "Not equal": _unequal(analysis)}
    lines: list[Line] = []
    for heading, points in groups.items():
        lines += [Line.heading(heading, ruled=True)] if heading else []
        lines += [Line.of(*point) for point in points if point[1]]
    return Table(
        "protocol",
        "The protocol of the study.",
        (Column("Point", "left"), Column("In this study", "wrap")),
        tuple(lines),
        pd.DataFrame([point for points in groups.values() for point in points if point[1]], columns=["point", "text"]),
    )


def _models(analysis: Analysis) -> _Point:
    used = {trial.model.name: trial.model for trial in analysis.trials}
    texts = [
        f"{name} (revision {(model.revision or 'not pinned')[:12]}{_rounded(model)})" for name, model in used.items()
    ]
    return "Model" if len(texts) == 1 else "Models", listed(texts)


def _rounded(model: ModelSpec) -> str:
    """What is done to the weights of a model as it is loaded, with a comma before it; empty where that is nothing."""
    if model.load is None:
        return ""
    kinds = {"nf4": "4 bits in blocks of 64 (nf4)", "int8": "8 bits by row (int8)"}
    return f", the frozen weights of its linear layers rounded to {kinds[model.load]}"


def _training(analysis: Analysis, spec: TrainSpec) -> list[_Point]:
    """How every trial trains, and on what."""
    at_most = f" (at most {100 * spec.warmup_limit:g} % of all)" if spec.warmup_limit < 1 else ""
    held_out = f"{100 * spec.validation_fraction:g} % of each training split, never trained on, for the validation loss"
    return [
        ("Length", f"{spec.steps:,} steps" if spec.steps else f"{spec.epochs:g} epochs"),
        ("Batch", f"{spec.batch_size} examples"),
        ("Optimiser", _optimizers(analysis)),
        ("Peak rate", f"{spec.learning_rate:g}, times the recipe's factor"),
        ("Schedule", f"{spec.schedule} after {spec.warmup_steps} warm-up steps{at_most}"),
        ("Weight decay", f"{spec.weight_decay:g}"),
        ("Gradients", f"clipped at {spec.gradient_clip:g}" if spec.gradient_clip else "not clipped"),
        ("Example", f"at most {spec.max_length} tokens"),
        ("Micro-batch", f"at most {spec.micro_tokens:,} tokens"),
        ("Precision", _precision(spec)),
        ("Held out", held_out),
        ("Training items", _drawn(analysis, spec)),
        ("Mixed in", _mixed_in(analysis)),
    ]


def _drawn(analysis: Analysis, spec: TrainSpec) -> str:
    """How many items of the training splits are drawn; empty where all of them are."""
    if isinstance(spec.task_items, dict):
        each = named([f"{count:,} of {analysis.title(task)}" for task, count in spec.task_items.items()], "tasks")
        return f"at most {each}, fixed samples"
    amounts = analysis.study.task_items or filter(None, [spec.task_items])
    counts = [f"{count:,}" for count in amounts]
    return f"at most {' or '.join(counts)} of each split, a fixed sample" if counts else ""


_OPTIMIZERS = {"adamw": "AdamW", "adafactor": "Adafactor"}


def _optimizers(analysis: Analysis) -> str:
    """'AdamW (Adafactor for Full fine-tuning)'."""
    users: dict[str, dict[str, None]] = {}
    for row in analysis.trained:
        users.setdefault(_OPTIMIZERS[row.recipe.optimizer], {})[row.recipe.title] = None
    if not users:
        return "no optimiser, as nothing is trained"
    most, *others = sorted(users, key=lambda name: -len(users[name]))
    return most + (f" ({'; '.join(f'{name} for {named(list(users[name]))}' for name in others)})" if others else "")


def _precision(train: TrainSpec) -> str:
    if train.dtype == "float32":
        return "float32"
    return (
        "bfloat16 (what trains is kept in float32; for scoring, weights of the base model that trained are rounded to "
        "bfloat16, adapters stay as they are)"
    )


def _mixed_in(analysis: Analysis) -> str:
    """What is trained on beside the tasks; empty where nothing is."""
    general = analysis.study.general
    if not general:
        return ""
    amounts = listed([f"{amount:,}" for amount in general.items])
    return f"{analysis.title(general.task)}, in amounts of {amounts} items, never scored"


def _seeds(analysis: Analysis) -> _Point:
    """The seeds of all rows together, and whether each row has them all."""
    of_rows = [{record.trial.seed for record in row.records} for row in analysis.trained]
    seeds = sorted(set().union(*of_rows))
    uneven = "" if all(len(of_row) == len(seeds) for of_row in of_rows) else "; not every row has all of them: see n"
    return "Seeds", f"{', '.join(map(str, seeds)) or 'none'}{uneven}"


def _scoring(analysis: Analysis) -> list[_Point]:
    """What is scored, and as far as the definitions tell, how many solved examples a prompt shows and of what part."""
    limit = analysis.study.evaluate.limit
    items = f"a fixed sample of at most {limit} items a task" if limit else "all items of the task"
    examples: dict[str, list[str]] = {}
    scored: dict[str, list[str]] = {}
    for task in analysis.task_names:
        if definition := analysis.tasks.get(task):
            examples.setdefault(str(definition.get("num_fewshot") or "none"), []).append(analysis.title(task))
            if scored_by := analysis.scored_by(task):
                scored.setdefault(f"their {scored_by}", []).append(analysis.title(task))
    return [
        ("Scoring", f"the primary metric of each task, as lm-eval defines it, on {items}"),
        ("Solved examples", _by_value(examples) + " in a prompt" if examples else ""),
        ("Options", f"scored by {_by_value(scored)}" if scored else ""),
        ("Cut items", _cut(analysis)),
        ("Held-out text", _held_out_text(analysis)),
    ]


def _held_out_text(analysis: Analysis) -> str:
    """What the loss is taken of that tells what was forgotten; empty where the study names no text."""
    losses = [loss for record in analysis.records if (loss := text_loss(record))]
    if not losses:
        return ""
    return (
        f"{text_title(analysis)}, {losses[0].documents:,} documents, {losses[0].tokens:,} tokens that are predicted, "
        "each once, in windows of the length of an example; scored after training and on the frozen base, trained on "
        "by none"
    )


def _cut(analysis: Analysis) -> str:
    """Which items were longer than the model's window or the study's limit, so that something of them was cut off."""
    parts = []
    for what, counts in (
        ("trained on", [record.train_info.cut_items for record in analysis.records if record.train_info]),
        ("scored", [record.eval_info.cut_items for record in analysis.records if record.eval_info]),
    ):
        tasks = dict.fromkeys(task for cut in counts for task in cut)
        titles = [f"{max(cut.get(task, 0) for cut in counts):,} of {analysis.title(task)}" for task in tasks]
        if titles:
            parts.append(f"of the items {what} {named(titles)}")
    if not parts:
        return ""
    return (
        f"{', and '.join(parts)} are longer than the model takes, or than the study allows (the most in any trial: a "
        "method with virtual tokens leaves less room); they lose the beginning of their prompt, or the end of an "
        "answer that is longer still"
    )


def _by_value(titles: Mapping[str, Sequence[str]]) -> str:
    """'none', or where tasks differ 'none (MCTest and MMLU) and 5 (GSM8K)'."""
    return listed([value if len(titles) == 1 else f"{value} ({named(of)})" for value, of in titles.items()])


def _task_table(analysis: Analysis) -> Table:
    sizes: dict[str, tuple[int, int]] = {}  # task -> items trained on, items of the validation loss
    for record in analysis.records:
        if info := record.train_info:
            sizes |= {task: (n, info.validation_items.get(task, 0)) for task, n in info.train_items.items()}
    lines: list[Line] = []
    numbers = []
    for domain in analysis.domains:
        heading = ""
        for task in _by_kind(analysis, analysis.tasks_in(domain)):
            kind, metric, scale = analysis.kind(task), analysis.metric(task), analysis.scale(task)
            above, heading = heading, f"{domain.label}, {kind}" if kind else domain.label
            if heading != above:
                lines.append(Line.heading(heading, ruled=bool(lines) and not above))
            train, validation = sizes.get(task, (None, None))
            lines.append(
                Line.of(
                    analysis.title(task),
                    count(train),
                    count(validation),
                    count(metric.items if metric else None),
                    percent(metric.chance if metric else None),
                    analysis.metric_name(task) + ("" if scale.higher_is_better else ", lower is better") or MISSING,
                )
            )
            numbers.append(
                {
                    "task": task,
                    "title": analysis.title(task),
                    "kind": kind,
                    "role": domain.value,
                    "train_items": train,
                    "validation_items": validation,
                    "test_items": metric.items if metric else None,
                    "chance": metric.chance if metric else None,
                    "metric": analysis.scales.primary.get(task),
                    **({} if analysis.shares else {"scale": scale.range.value}),
                    **({} if analysis.shares else {"higher_is_better": scale.higher_is_better}),
                }
            )
    whole = ("train_items", "validation_items", "test_items")
    return Table(
        "tasks",
        "Tasks by role and kind, with the items that are trained on, that the validation loss is taken over, and that "
        "are scored. Chance is the expected score of a uniform guess in per cent.",
        (
            Column("Task", "left"),
            *map(Column, ("Train", "Valid.", "Test", "Chance")),
            Column("Metric", "left"),
        ),
        tuple(lines),
        pd.DataFrame(numbers).astype(dict.fromkeys(whole, "Int64")),
    )


def _by_kind(analysis: Analysis, tasks: Sequence[str]) -> list[str]:
    """The tasks, those of a kind together, in the order of the study otherwise."""
    kinds = dict.fromkeys(map(analysis.kind, tasks))
    return [task for kind in kinds for task in tasks if analysis.kind(task) == kind]


def _equal(analysis: Analysis) -> list[_Point]:
    """What all rows of a block share, and how close size-matched rows come to their budget."""
    matched = [row for row in analysis.trained if row.matched and row.records]
    residuals = [abs(r.size.residual) for row in matched for r in row.records if r.size and r.size.residual is not None]
    within = f"{math.ceil(1e4 * max(residuals) - 1e-6) / 100:.2f} %" if residuals else ""
    return [
        (
            "Shared",
            "base model, prompts, loss (answer tokens only), training items, length of training, batch size, schedule "
            "and precision, and scoring; a digest over these (Provenance) keeps records made under other conditions "
            "out of this report",
        ),
        (
            "Size",
            f"size-matched rows have the trainable parameters of their budget, routers counted, to within {within}"
            if residuals
            else "",
        ),
    ]


def _unequal(analysis: Analysis) -> list[_Point]:
    """What differs between rows beside the method: learning rates, sizes, adapted modules."""
    recipes = [recipe for recipe in analysis.recipes if recipe.method != "base"]
    scaled = dict.fromkeys(
        f"{recipe.title} (× {recipe.learning_rate_scale:g})" for recipe in recipes if recipe.learning_rate_scale != 1
    )
    unmatched = dict.fromkeys(row.recipe.title for row in analysis.trained if not row.ranked)
    modules: dict[str, dict[str, None]] = {}  # adapted modules -> titles of the recipes
    for recipe in recipes:
        if "target_modules" in recipe.params:
            modules.setdefault(parameter_label(recipe.params["target_modules"]), {})[recipe.title] = None
    rates = f"scaled for {named(list(scaled))}. " if scaled else ""
    return [
        ("Learning rate", rates + origin_of_rates(analysis)),
        ("Size", f"not matched, and left out of all comparisons: {named(list(unmatched))}" if unmatched else ""),
        (
            "Equal rank",
            "need not be equal size: the more matrices, the more parameters. Rows of equal rank are compared with each "
            "other, as the MoSLD paper does, and never with rows of equal size"
            if any(row.ranked and not row.matched for row in analysis.trained)
            else "",
        ),
        (
            "Adapted modules",
            "; ".join(f"{names} in {named(list(titles))}" for names, titles in modules.items())
            if len(modules) > 1
            else "",
        ),
    ]


def origin_of_rates(analysis: Analysis) -> str:
    """Where the factors on the study's learning rate come from, recipe by recipe: the one place that words it."""
    trained = {row.recipe.name: row.recipe.title for row in analysis.trained}
    leaders = analysis.leaders
    of_hand = {name for name in trained if analysis.study.rate_source(name, leaders.get(name)) is RateSource.HAND}
    by_hand = [title for name, title in trained.items() if name in of_hand]
    others = [title for name, title in trained.items() if name not in of_hand]
    if not by_hand:
        return (
            "No factor was chosen for this study: each is its recipe's own. A method that would profit from another "
            "rate is at a disadvantage that these tables do not show"
        )
    whose = f"of {named(by_hand)}, not those of {named(others)}," if others else "of all methods"
    ablated = {trained.get(leaders[name], leaders[name]) for name in of_hand & leaders.keys()}
    as_around = f"; those of ablations are that of {named(sorted(ablated))}" if ablated else ""
    by = "written in the study by hand, each once for all budgets, settings and seeds"
    return f"The factors {whose} are {by}{as_around}"
