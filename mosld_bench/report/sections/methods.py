"""The section Methods: the design space, the recipes' coordinates in it, and where they depart from the papers."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd

from mosld_bench.format import listed
from mosld_bench.report.analysis import Analysis
from mosld_bench.report.document import Block, Equation, Run, Section, bullets, paragraph, section
from mosld_bench.report.labels import MISSING, parameter_label
from mosld_bench.report.table import Column, Line, Table
from mosld_bench.spec.design_space import Coordinates
from mosld_bench.spec.recipe import Recipe


def methods(analysis: Analysis) -> Section:
    """What is compared: mixtures by their coordinates, other methods by their parameters, and a text on each."""
    recipes = [recipe for recipe in analysis.recipes if recipe.method != "base"]
    mixtures = [recipe for recipe in recipes if recipe.method == "mixture"]
    others = [recipe for recipe in recipes if recipe.method != "mixture"]
    return section(
        "Methods",
        *(_design_space(mixtures) if mixtures else []),
        _other_table(others) if others else None,
        *map(_about, recipes),
        *_deviations(recipes),
    )


def _design_space(recipes: Sequence[Recipe]) -> list[Block]:
    """The equation that all mixture methods are points of, and their coordinates."""
    return [
        paragraph(
            f"{listed([recipe.title for recipe in recipes])} "
            f"{'is a point' if len(recipes) == 1 else 'are points'} of one design space and run "
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
        _mixture_table(recipes),
    ]  # fmt: skip


def _mixture_table(recipes: Sequence[Recipe]) -> Table:
    scaled = any(recipe.learning_rate_scale != 1 for recipe in recipes)
    points = {recipe.name: Coordinates.of(recipe.params) for recipe in recipes}
    texts = {recipe.name: _coordinates(recipe, points[recipe.name], scaled) for recipe in recipes}
    modules = {parameter_label(recipe.params.get("target_modules")) for recipe in recipes}
    ranks = {(point.r, point.lora_alpha) for point in points.values()}
    notes = [f"Adapted modules: {modules.pop()}."] if len(modules) == 1 else []
    if len(ranks) == 1:
        r, alpha = ranks.pop()
        notes.append(f"Rank {r} and alpha {alpha} before the budget is fitted; alpha / r is kept.")
    return Table(
        "methods",
        "The mixture methods by their coordinates. *: gates of the chosen experts renormalised to sum to one.",
        tuple(Column(title, "left") for title in texts[recipes[0].name]),
        tuple(Line.of(*cells.values()) for cells in texts.values()),
        pd.DataFrame([{"recipe": name, **cells} for name, cells in texts.items()]),
        tuple(notes),
    )


def _coordinates(recipe: Recipe, point: Coordinates, scaled: bool) -> dict[str, str]:
    """Column title -> what it says of a recipe; with its factor on the learning rate if ``scaled``."""
    if point.top_k is None:
        routing = "dense"
    else:
        capacity = f", capacity {point.capacity:g}" if point.capacity else ""
        routing = f"top {point.top_k}{'*' if point.renormalize else ''}{capacity}"
    texts = {
        "Method": recipe.title,
        "Shared": MISSING if point.share == "none" else point.share,
        "Experts": parameter_label(point.experts),
        "Routing": routing,
        "Balance": _balance(point) if point.balance_coef else MISSING,
        "Dropout": ", ".join(_dropout(place, rate, point) for place, rate in point.dropouts.items()) or MISSING,
    }
    return texts | ({"lr ×": f"{recipe.learning_rate_scale:g}"} if scaled else {})


def _balance(point: Coordinates) -> str:
    """The weight of the balance loss, with what sets the loss apart from Switch's, averaged over modules."""
    form = " of counts" if point.balance_form == "counts" else ""
    return f"{point.balance_coef:g}{form}" + (", layers summed" if point.balance_reduce == "sum" else "")


def _dropout(place: str, rate: float, point: Coordinates) -> str:
    """The rate and its place, with the matrix where it is not the shared one."""
    named = point.dropout_matrix != "shared" and place in {"weight", "update"}
    return f"{rate:g} on {place}" + (f" of {point.dropout_matrix}" if named else "")


def _other_table(recipes: Sequence[Recipe]) -> Table:
    lines, numbers = [], []
    for recipe in recipes:
        params = "; ".join(f"{key.replace('_', ' ')} {parameter_label(value)}" for key, value in recipe.params.items())
        scale = f"{recipe.learning_rate_scale:g}"
        lines.append(Line.of(recipe.title, recipe.method, params or MISSING, scale))
        numbers.append({"recipe": recipe.name, "method": recipe.method, "params": params, "learning_rate_scale": scale})
    columns = (Column("Method", "left"), Column("Code", "left"), Column("Parameters", "wrap"), Column("lr ×"))
    return Table("other-methods", "The other methods.", columns, tuple(lines), pd.DataFrame(numbers))


def _about(recipe: Recipe) -> Block:
    """The recipe's own text and the paper that it is from."""
    source = f" [{recipe.paper}]" if recipe.paper else ""
    text = recipe.about or f"The method {recipe.method} with the settings of the recipe {recipe.name}."
    return paragraph(Run(f"{recipe.title}. ", "bold"), text + source)


def _deviations(recipes: Sequence[Recipe]) -> list[Block]:
    """Where recipes depart from the papers; what several share is told once."""
    titles: dict[str, list[str]] = {}
    for recipe in recipes:
        for deviation in recipe.deviations:
            titles.setdefault(deviation, []).append(recipe.title)
    deviations: dict[str, list[str]] = {}
    for deviation, of in titles.items():
        deviations.setdefault(listed(of), []).append(deviation)
    if not deviations:
        return []
    return [
        paragraph(Run("Deviations from the papers. ", "bold")),
        bullets(f"{of}: {' '.join(texts)}" for of, texts in deviations.items()),
    ]
