"""The section Protocol: model, tasks, training and scoring, and what is equal for all rows and what is not."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import pandas as pd

from mosld_bench.format import listed
from mosld_bench.report.analysis import Analysis
from mosld_bench.report.document import Run, Section, paragraph, section
from mosld_bench.report.labels import MISSING, count, parameter_label, percent
from mosld_bench.report.table import Column, Line, Table
from mosld_bench.spec.trial import TrainSpec


def protocol(analysis: Analysis) -> Section:
    """The study's own text, its protocol in words, its tasks, and what a reader has to know of the comparison."""
    study, train = analysis.study, analysis.study.train
    about = paragraph(study.about) if study.about else None
    model = Run("Model. " if len(study.models) == 1 else "Models. ", "bold"), f"{_models(analysis)}. "
    if train is None:
        return section("Protocol", about, paragraph(*model))
    limit = study.evaluate.limit
    items = f"a fixed sample of at most {limit} items a task." if limit else "all items of the task."
    return section(
        "Protocol",
        about,
        paragraph(
            *model,
            Run("Training. ", "bold"),
            _training(analysis, train),
            Run("Seeds. ", "bold"),
            _seeds(analysis),
            Run("Scoring. ", "bold"),
            f"The primary metric of each task, as lm-eval defines it, on {items}{_prompts(analysis)}{_cut(analysis)}",
        ),
        _task_table(analysis),
        paragraph(Run("What is equal. ", "bold"), _equal(analysis)),
        paragraph(Run("What is not. ", "bold"), _unequal(analysis)),
    )


def _models(analysis: Analysis) -> str:
    pinned = {trial.model.name: trial.model.revision for trial in analysis.trials}
    return listed([f"{name} (revision {(revision or 'not pinned')[:12]})" for name, revision in pinned.items()])


def _training(analysis: Analysis, train: TrainSpec) -> str:
    length = f"{train.steps:,} steps" if train.steps else f"{train.epochs:g} epochs"
    clip = f"gradients clipped at {train.gradient_clip:g}" if train.gradient_clip else "no gradient clipping"
    at_most = f" (at most {100 * train.warmup_limit:g} % of all)" if train.warmup_limit < 1 else ""
    return (
        f"{length} in batches of {train.batch_size} examples by {_optimizers(analysis)}, peak learning rate "
        f"{train.learning_rate:g} (times the recipe's factor), {train.schedule} schedule after "
        f"{train.warmup_steps} warm-up steps{at_most}, weight decay {train.weight_decay:g}, {clip}. "
        f"At most {train.max_length} tokens an example, at most {train.micro_tokens:,} in a micro-batch, in "
        f"{_precision(train)}. {100 * train.validation_fraction:g} % of each training split is held out for "
        f"the validation loss and never trained on. {_samples(analysis, train)}"
    )


_OPTIMIZERS = {"adamw": "AdamW", "adafactor": "Adafactor"}


def _optimizers(analysis: Analysis) -> str:
    """'AdamW (Adafactor for Full fine-tuning)'."""
    users: dict[str, dict[str, None]] = {}
    for row in analysis.trained:
        users.setdefault(_OPTIMIZERS[row.recipe.optimizer], {})[row.recipe.title] = None
    if not users:
        return "no optimiser, as nothing is trained"
    most, *others = sorted(users, key=lambda name: -len(users[name]))
    return most + (f" ({'; '.join(f'{name} for {listed(list(users[name]))}' for name in others)})" if others else "")


def _precision(train: TrainSpec) -> str:
    if train.dtype == "float32":
        return "float32"
    return (
        "bfloat16 (what trains is kept in float32; for scoring, weights of the base model that trained are rounded to "
        "bfloat16, adapters stay as they are)"
    )


def _samples(analysis: Analysis, train: TrainSpec) -> str:
    """What of the training splits is used, and what is mixed in beside them."""
    general, text = analysis.study.general, ""
    if train.task_items:
        text = f"Of each training split at most {train.task_items:,} items are used, a fixed sample. "
    if general:
        amounts = listed([f"{amount:,}" for amount in general.items])
        text += f"Mixed in, in amounts of {amounts} items that are never scored: {analysis.title(general.task)}. "
    return text


def _seeds(analysis: Analysis) -> str:
    """The seeds of all rows together, and whether each row has them all."""
    of_rows = [{record.trial.seed for record in row.records} for row in analysis.trained]
    seeds = sorted(set().union(*of_rows))
    uneven = "" if all(len(of_row) == len(seeds) for of_row in of_rows) else " Not every row has all of them: see n."
    return f"{', '.join(map(str, seeds)) or 'none'}.{uneven} "


def _prompts(analysis: Analysis) -> str:
    """How many solved examples a prompt shows and what of an option is scored, as far as the definitions tell."""
    examples: dict[str, list[str]] = {}
    scored: dict[str, list[str]] = {}
    for task in analysis.task_names:
        if definition := analysis.tasks.get(task):
            examples.setdefault(str(definition.get("num_fewshot") or "none"), []).append(analysis.title(task))
            if scored_by := analysis.scored_by(task):
                scored.setdefault(f"their {scored_by}", []).append(analysis.title(task))
    facts = {"Solved examples in a prompt": examples, "Options are scored by": scored}
    return "".join(f" {fact}: {_by_value(titles)}." for fact, titles in facts.items() if titles)


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
            parts.append(f"of the items {what} {listed(titles)}")
    if not parts:
        return ""
    return (
        f" Longer than the model takes, or than the study allows, are {', and '.join(parts)} (the most in any trial: a "
        f"method with virtual tokens leaves less room); they lose the beginning of their prompt, or the end of an "
        f"answer that is longer still."
    )


def _by_value(titles: Mapping[str, Sequence[str]]) -> str:
    """'none', or where tasks differ 'none (MCTest and MMLU) and 5 (GSM8K)'."""
    return listed([value if len(titles) == 1 else f"{value} ({listed(of)})" for value, of in titles.items()])


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


def _equal(analysis: Analysis) -> str:
    """What all rows of a block share, and how close size-matched rows come to their budget."""
    matched = [row for row in analysis.trained if row.matched and row.records]
    residuals = [abs(r.size.residual) for row in matched for r in row.records if r.size and r.size.residual is not None]
    text = (
        "All rows of a block share the base model, the prompts, the loss (answer tokens only), the "
        "training items, the length of training, batch size, schedule and precision, and the scoring; a "
        "digest over these (Provenance) keeps records made under other conditions out of this report."
    )
    if residuals:
        text += (
            " Size-matched rows have the trainable parameters of their budget, routers counted, to within "
            f"{math.ceil(1e4 * max(residuals) - 1e-6) / 100:.2f} %."
        )
    return text


def _unequal(analysis: Analysis) -> str:
    """What differs between rows beside the method: learning rates, sizes, adapted modules."""
    recipes = [recipe for recipe in analysis.recipes if recipe.method != "base"]
    scaled = dict.fromkeys(
        f"{recipe.title} (× {recipe.learning_rate_scale:g})" for recipe in recipes if recipe.learning_rate_scale != 1
    )
    unmatched = dict.fromkeys(row.recipe.title for row in analysis.trained if not row.ranked)
    modules = {
        recipe.title: parameter_label(recipe.params["target_modules"])
        for recipe in recipes
        if "target_modules" in recipe.params
    }
    sentences = []
    if scaled:
        sentences.append(f"The learning rate is scaled for {listed(list(scaled))}.")
    if unmatched:
        sentences.append(f"Not matched in size, and left out of all comparisons: {listed(list(unmatched))}.")
    if any(row.ranked and not row.matched for row in analysis.trained):
        sentences.append(
            "Rows of equal rank need not be equal in size: the more matrices, the more parameters. They are compared "
            "with each other, as the MoSLD paper does, and never with rows of equal size."
        )
    if len(set(modules.values())) > 1:
        titles: dict[str, list[str]] = {}
        for title, names in modules.items():
            titles.setdefault(names, []).append(title)
        sentences.append(f"Adapted modules differ: {'; '.join(f'{n} in {listed(t)}' for n, t in titles.items())}.")
    return " ".join([*sentences, _tuning(analysis)])


def _tuning(analysis: Analysis) -> str:
    """For which methods this study's learning rates were tuned."""
    trained = {row.recipe.name: row.recipe.title for row in analysis.trained}
    tuned = [title for name, title in trained.items() if name in analysis.study.learning_rate_scales]
    others = [title for name, title in trained.items() if name not in analysis.study.learning_rate_scales]
    if not tuned:
        return (
            "No learning rate was tuned for each method and budget; a method that would profit from another "
            "one is at a disadvantage that these tables do not show."
        )
    whose = f"of {listed(tuned)}, not those of {listed(others)}," if others else "of all methods"
    return f"The learning rates {whose} were tuned for this model, each once for all budgets, settings and seeds."
