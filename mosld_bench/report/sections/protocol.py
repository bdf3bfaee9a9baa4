"""The sections on what was compared, and how: Methods from the recipes, Protocol from the study."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import pandas as pd

from mosld_bench.format import listed
from mosld_bench.report import labels
from mosld_bench.report.analysis import Analysis
from mosld_bench.report.document import Block, Equation, Run, Section, bullets, paragraph, section
from mosld_bench.report.table import Cell, Column, Line, Table
from mosld_bench.spec.design_space import Coordinates
from mosld_bench.spec.recipe import Recipe
from mosld_bench.spec.trial import Domain, TrainSpec


def methods(analysis: Analysis) -> Section:
    """What is compared: the design space, the recipes' coordinates in it, their texts and deviations."""
    recipes = [recipe for recipe in analysis.recipes if recipe.method != "base"]
    mixtures = [recipe for recipe in recipes if recipe.method == "mixture"]
    others = [recipe for recipe in recipes if recipe.method != "mixture"]
    blocks: list[Block | None] = []
    if mixtures:
        blocks += [
            paragraph(
                f"{listed([recipe.title for recipe in mixtures])} "
                f"{'is a point' if len(mixtures) == 1 else 'are points'} of one design space and run "
                "through the same code: two of them differ in coordinates that the table gives and, at "
                "equal size, in rank, and in nothing else. An adapted linear layer computes"
            ),
            Equation("mixture"),
            paragraph(
                "with frozen ", Run("W", "italic"), " and trained down-projections ", Run("A", "italic"),
                ", up-projections ", Run("B", "italic"), " and router; ", Run("g", "italic"),
                " is the softmax over the experts, or over the top k of them, renormalised where the "
                "table says so. Sharing down means one ",
                Run("A", "italic"), " for all experts of a layer, sharing up one ", Run("B", "italic"),
                ". Experts are given by depth, from the first layers to the last.",
            ),
            _mixture_table(mixtures),
        ]  # fmt: skip
    if others:
        blocks.append(_other_table(others))
    for recipe in recipes:
        source = f" [{recipe.paper}]" if recipe.paper else ""
        text = recipe.about or f"The method {recipe.method} with the settings of the recipe {recipe.name}."
        blocks.append(paragraph(Run(f"{recipe.title}. ", "bold"), text + source))
    deviations: dict[str, list[str]] = {}
    for recipe in recipes:
        for deviation in recipe.deviations:
            deviations.setdefault(deviation, []).append(recipe.title)
    together: dict[str, list[str]] = {}
    for text, titles in deviations.items():
        together.setdefault(listed(titles), []).append(text)
    if together:
        blocks.append(paragraph(Run("Deviations from the papers. ", "bold")))
        blocks.append(bullets(f"{titles}: {' '.join(texts)}" for titles, texts in together.items()))
    return section("Methods", *blocks)


def _mixture_table(recipes: Sequence[Recipe]) -> Table:
    lines, numbers = [], []
    scaled = any(recipe.learning_rate_scale != 1 for recipe in recipes)
    names = ["Method", "Shared", "Experts", "Routing", "Balance", "Dropout", *(["lr ×"] if scaled else [])]
    for recipe in recipes:
        point = Coordinates.of(recipe.params)
        texts = {
            "Method": recipe.title,
            "Shared": {"none": "–"}.get(point.share, point.share),
            "Experts": labels.parameter_label(point.experts),
            "Routing": "dense"
            if point.top_k is None
            else f"top {point.top_k}"
            + ("*" if point.renormalize else "")
            + (f", capacity {point.capacity:g}" if point.capacity else ""),
            "Balance": f"{point.balance_coef:g}" if point.balance_coef else "–",
            "Dropout": f"{point.dropout:g} on {point.dropout_on}" if point.dropout else "–",
            **({"lr ×": f"{recipe.learning_rate_scale:g}"} if scaled else {}),
        }
        lines.append(Line(tuple(map(Cell, texts.values()))))
        numbers.append({"recipe": recipe.name, **texts})
    modules = {labels.parameter_label(recipe.params.get("target_modules")) for recipe in recipes}
    alphas = {(point.r, point.lora_alpha) for point in (Coordinates.of(recipe.params) for recipe in recipes)}
    shared = [f"Adapted modules: {modules.pop()}."] if len(modules) == 1 else []
    if len(alphas) == 1:
        r, alpha = alphas.pop()
        shared.append(f"Rank {r} and alpha {alpha} before the budget is fitted; alpha / r is kept.")
    columns = tuple(Column(name, "left") for name in names)
    caption = "The mixture methods by their coordinates. *: gates of the chosen experts renormalised to sum to one."
    return Table("methods", caption, columns, tuple(lines), pd.DataFrame(numbers), tuple(shared), wide=False)


def _other_table(recipes: Sequence[Recipe]) -> Table:
    lines, numbers = [], []
    for recipe in recipes:
        params = "; ".join(
            f"{key.replace('_', ' ')} {labels.parameter_label(value)}" for key, value in recipe.params.items()
        )
        scale = f"{recipe.learning_rate_scale:g}"
        lines.append(Line((Cell(recipe.title), Cell(recipe.method), Cell(params or "–"), Cell(scale))))
        numbers.append({"recipe": recipe.name, "method": recipe.method, "params": params, "learning_rate_scale": scale})
    columns = (Column("Method", "left"), Column("Code", "left"), Column("Parameters", "wrap"), Column("lr ×"))
    return Table("other-methods", "The other methods.", columns, tuple(lines), pd.DataFrame(numbers))


def protocol(analysis: Analysis) -> Section:
    """Model, tasks, training and scoring, and what is equal for all rows and what not."""
    study, train = analysis.study, analysis.study.train
    models = Run("Model. " if len(study.models) == 1 else "Models. ", "bold"), f"{_models(analysis)}. "
    if train is None:
        return section("Protocol", paragraph(study.about) if study.about else None, paragraph(*models))
    length = f"{train.steps:,} steps" if train.steps else f"{train.epochs:g} epochs"
    clip = f"gradients clipped at {train.gradient_clip:g}" if train.gradient_clip else "no gradient clipping"
    limit = study.evaluate.limit
    return section(
        "Protocol",
        paragraph(study.about) if study.about else None,
        paragraph(
            *models, Run("Training. ", "bold"),
            f"{length} in batches of {train.batch_size} examples by {_optimizer(analysis)}, peak learning rate "
            f"{train.learning_rate:g} (times the recipe's factor), {train.schedule} schedule after "
            f"{train.warmup_steps} warm-up steps{_at_most(train)}, weight decay {train.weight_decay:g}, {clip}. "
            f"At most {train.max_length} tokens an example, at most {train.micro_tokens:,} in a micro-batch, in "
            f"{_precision(train)}. {100 * train.validation_fraction:g} % of each training split is held out for "
            "the validation loss and never trained on. "
            f"{_sampled(analysis)}",
            Run("Seeds. ", "bold"), _seeds(analysis),
            Run("Scoring. ", "bold"),
            "The primary metric of each task, as lm-eval defines it, on "
            + (f"a fixed sample of at most {limit} items a task." if limit else "all items of the task.")
            + _prompts(analysis),
        ),
        _task_table(analysis),
        paragraph(Run("What is equal. ", "bold"), _fairness(analysis)),
        paragraph(Run("What is not. ", "bold"), _confounders(analysis)),
    )  # fmt: skip


def _models(analysis: Analysis) -> str:
    pinned = {trial.model.name: trial.model.revision for trial in analysis.trials}
    return listed([f"{name} (revision {(revision or 'not pinned')[:12]})" for name, revision in pinned.items()])


def _seeds(analysis: Analysis) -> str:
    """The seeds of all rows together, and whether each row has them all."""
    of_rows = [{record.trial.seed for record in row.records} for row in analysis.trained]
    seeds = sorted(set().union(*of_rows))
    uneven = "" if all(len(own) == len(seeds) for own in of_rows) else " Not every row has all of them: see n."
    return f"{', '.join(map(str, seeds)) or 'none'}.{uneven} "


_OPTIMIZERS = {"adamw": "AdamW", "adafactor": "Adafactor"}


def _optimizer(analysis: Analysis) -> str:
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


def _at_most(train: TrainSpec) -> str:
    return f" (at most {100 * train.warmup_limit:g} % of all)" if train.warmup_limit < 1 else ""


def _sampled(analysis: Analysis) -> str:
    """What of the training splits is used, and what is mixed in beside them."""
    train, general = analysis.study.train, analysis.study.general
    text = ""
    if train and train.task_items:
        text = f"Of each training split at most {train.task_items:,} items are used, a fixed sample. "
    if general:
        amounts = listed([f"{amount:,}" for amount in general.items])
        text += f"Mixed in, in amounts of {amounts} items that are never scored: {analysis.title(general.task)}. "
    return text


def _prompts(analysis: Analysis) -> str:
    """How many solved examples a prompt shows and what of an option is scored, as far as the definitions tell."""
    shown: dict[str, list[str]] = {}
    scored: dict[str, list[str]] = {}
    for task in analysis.task_names:
        if definition := analysis.tasks.get(task):
            shown.setdefault(str(definition.get("num_fewshot") or "none"), []).append(analysis.title(task))
            if by := analysis.scored_by(task):
                scored.setdefault(f"their {by}", []).append(analysis.title(task))
    said = {"Solved examples in a prompt": shown, "Options are scored by": scored}
    return "".join(f" {what}: {_by_value(found)}." for what, found in said.items() if found)


def _by_value(found: Mapping[str, Sequence[str]]) -> str:
    """'none', or where tasks differ 'none (MCTest and MMLU) and 5 (GSM8K)'."""
    return listed([value if len(found) == 1 else f"{value} ({listed(titles)})" for value, titles in found.items()])


def _task_table(analysis: Analysis) -> Table:
    sizes: dict[str, tuple[int, int]] = {}
    for record in analysis.records:
        info = record.train_info
        for task, items in (info.train_items if info else {}).items():
            sizes[task] = items, info.validation_items.get(task, 0) if info else 0
    lines: list[Line] = []
    numbers, last = [], ""
    for task in _by_kind(analysis):
        metric, inside = analysis.metric(task), task in analysis.study.in_domain
        domain = Domain.IN if inside else Domain.OUT
        role = domain.label
        heading = f"{role}, {analysis.kind(task)}" if analysis.kind(task) else role
        if heading != last:
            lines.append(Line((Cell(heading),), ruled=bool(last) and not last.startswith(role)))
            last = heading
        train, validation = sizes.get(task, (None, None))
        texts = [
            analysis.title(task),
            labels.count(train),
            labels.count(validation),
            labels.count(metric.items if metric else None),
            labels.percent(metric.chance if metric else None),
            metric.metric.removesuffix(",none") if metric else labels.MISSING,
        ]
        lines.append(Line(tuple(map(Cell, texts))))
        numbers.append(
            {
                "task": task,
                "title": analysis.title(task),
                "kind": analysis.kind(task),
                "role": domain.value,
                "train_items": train,
                "validation_items": validation,
                "test_items": metric.items if metric else None,
                "chance": metric.chance if metric else None,
                "metric": metric.metric if metric else None,
            }
        )
    whole = ("train_items", "validation_items", "test_items")
    return Table(
        "tasks",
        "Tasks by role and kind, with the items that are trained on, that the validation loss is taken over, and that "
        "are scored. Chance is the "
        "expected score of a uniform guess in per cent.",
        (
            Column("Task", "left"),
            *map(Column, ("Train", "Valid.", "Test", "Chance")),
            Column("Metric", "left"),
        ),
        tuple(lines),
        pd.DataFrame(numbers).astype(dict.fromkeys(whole, "Int64")),
    )


def _by_kind(analysis: Analysis) -> list[str]:
    """The in-domain tasks, then the others, those of a kind together, in the order of the study otherwise."""
    parts = (analysis.study.in_domain, analysis.study.out_of_domain)
    kinds = [list(dict.fromkeys(map(analysis.kind, part))) for part in parts]
    return [
        task
        for part, order in zip(parts, kinds, strict=True)
        for kind in order
        for task in part
        if analysis.kind(task) == kind
    ]


def _fairness(analysis: Analysis) -> str:
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


def _confounders(analysis: Analysis) -> str:
    recipes = [row.recipe for row in analysis.trained]
    scaled = dict.fromkeys(
        f"{recipe.title} (× {recipe.learning_rate_scale:g})" for recipe in recipes if recipe.learning_rate_scale != 1
    )
    unmatched = list(dict.fromkeys(row.recipe.title for row in analysis.trained if not row.ranked))
    ranks = any(row.ranked and not row.matched for row in analysis.trained)
    modules = {
        recipe.title: labels.parameter_label(recipe.params["target_modules"])
        for recipe in recipes
        if "target_modules" in recipe.params
    }
    parts = []
    if scaled:
        parts.append(f"The learning rate is scaled for {listed(list(scaled))}.")
    if unmatched:
        parts.append(f"Not matched in size, and left out of all comparisons: {listed(unmatched)}.")
    if ranks:
        parts.append(
            "Rows of equal rank need not be equal in size: the more matrices, the more parameters. They are compared "
            "with each other, as the MoSLD paper does, and never with rows of equal size."
        )
    if len(set(modules.values())) > 1:
        by_names: dict[str, list[str]] = {}
        for title, names in modules.items():
            by_names.setdefault(names, []).append(title)
        parts.append(f"Adapted modules differ: {'; '.join(f'{n} in {listed(t)}' for n, t in by_names.items())}.")
    return " ".join([*parts, _tuning(analysis)])


def _tuning(analysis: Analysis) -> str:
    """For which methods this study's learning rates were tuned."""
    trained = dict.fromkeys((row.recipe.name, row.recipe.title) for row in analysis.trained)
    tuned = [title for name, title in trained if name in analysis.study.learning_rate_scales]
    others = [title for name, title in trained if name not in analysis.study.learning_rate_scales]
    if not tuned:
        return (
            "No learning rate was tuned for each method and budget; a method that would profit from another "
            "one is at a disadvantage that these tables do not show."
        )
    whose = f"of {listed(tuned)}, not those of {listed(others)}," if others else "of all methods"
    return f"The learning rates {whose} were tuned for this model, each once for all budgets, settings and seeds."
