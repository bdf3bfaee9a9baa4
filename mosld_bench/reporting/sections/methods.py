"""The sections on the recipes: what each trains and its place in the design space, and where it departs from papers."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd

from mosld_bench.format import listed
from mosld_bench.reporting.analysis import Analysis
from mosld_bench.reporting.document import Block, Equation, Run, Section, paragraph, section
from mosld_bench.reporting.labels import MISSING, named, parameter_label
from mosld_bench.reporting.sections.cost import knobs
from mosld_bench.reporting.table import Column, Line, Table
from mosld_bench.spec.design_space import Coordinates
from mosld_bench.spec.recipe import Recipe


def methods(analysis: Analysis) -> Section:
    """What is compared: a row a recipe, then mixtures by their coordinates and other methods by their parameters."""
    recipes = _trained(analysis)
    mixtures = [recipe for recipe in recipes if recipe.method == "mixture"]
    others = [recipe for recipe in recipes if recipe.method != "mixture"]
    return section(
        "Methods",
        _recipe_table(analysis, recipes),
        *(_design_space(mixtures) if mixtures else []),
        _other_table(others) if others else None,
        appendix=True,
    )


def _trained(analysis: Analysis) -> list[Recipe]:
    """The recipes that train something."""
    return [recipe for recipe in analysis.recipes if recipe.method != "base"]


def _titles(recipes: Sequence[Recipe]) -> str:
    """The recipes by title; of many the first ones, and how many more."""
    return named([recipe.title for recipe in recipes])


def _recipe_table(analysis: Analysis, recipes: Sequence[Recipe]) -> Table:
    """What each recipe trains and where, what sizes it, and its factor on the learning rate."""
    sized: dict[str, dict[str, None]] = {}  # recipe -> the parameters that a budget has set, of any row
    for row in analysis.trained:
        sized.setdefault(row.recipe.name, {}).update(dict.fromkeys(knobs(row)))
    lines: list[Line] = []
    numbers = []
    for recipe in recipes:
        where, knob = _where(recipe), ", ".join(key.replace("_", " ") for key in sized.get(recipe.name, ()))
        about = recipe.about or f"The method {recipe.method} with the settings of the recipe {recipe.name}."
        text = " ".join([about, *([f"In {where}."] if where else []), *([f"Sized by {knob}."] if knob else [])])
        scale, deviations = f"{recipe.learning_rate_scale:g}", len(recipe.deviations)
        paper = f" [{recipe.paper}]" if recipe.paper else ""
        lines.append(Line.heading(recipe.title + paper, ruled=bool(lines)))
        lines.append(Line.of(text, scale, str(deviations or MISSING)))
        numbers.append(
            {
                "recipe": recipe.name,
                "trains": recipe.about,
                "paper": recipe.paper,
                "where": where,
                "sized_by": knob,
                "learning_rate_scale": scale,
                "deviations": deviations,
            }
        )
    return Table(
        "recipes",
        "The recipes: what is trained, in which modules, and the parameters that set its size; the factor on the "
        "study's learning rate; how many deviations from its paper are listed under Deviations.",
        (Column("What is trained, and where", "wrap"), *map(Column, ("lr ×", "Dev."))),
        tuple(lines),
        pd.DataFrame(numbers),
    )


def _where(recipe: Recipe) -> str:
    """The modules that the recipe names: 'q_proj, v_proj; ffn mlp'; empty where it names none."""
    named = {key: parameter_label(value) for key, value in recipe.params.items() if key.endswith("_modules")}
    return "; ".join(f"{key.removesuffix('_modules')} {names}".removeprefix("target ") for key, names in named.items())


def _design_space(recipes: Sequence[Recipe]) -> list[Block]:
    """The equation that all mixture methods are points of, and their coordinates."""
    return [
        paragraph(
            f"{_titles(recipes)} "
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
    points = {recipe.name: Coordinates.of(recipe.params) for recipe in recipes}
    texts = {recipe.name: _coordinates(recipe, points[recipe.name]) for recipe in recipes}
    others = {name: ", ".join(_others(point)) for name, point in points.items()}
    if any(others.values()):
        texts = {name: {**cells, "Other": others[name] or MISSING} for name, cells in texts.items()}
    modules = {parameter_label(recipe.params.get("target_modules")) for recipe in recipes}
    ranks = {(point.r, point.lora_alpha) for point in points.values()}
    notes = [f"Adapted modules: {modules.pop()}."] if len(modules) == 1 else []
    if len(ranks) == 1:
        r, alpha = ranks.pop()
        notes.append(f"Rank {r} and alpha {alpha} before the budget is fitted; alpha / r is kept.")
    notes += [
        note for setting, note in _NOTES.items() if any(setting in vars(point).values() for point in points.values())
    ]
    return Table(
        "methods",
        "The mixture methods by their coordinates. *: gates of the chosen experts renormalised to sum to one.",
        tuple(Column(title, "left") for title in texts[recipes[0].name]),
        tuple(Line.of(*cells.values()) for cells in texts.values()),
        pd.DataFrame([{"recipe": name, **cells} for name, cells in texts.items()]),
        tuple(notes),
    )


#: Value of a coordinate -> what the table says below, where a recipe has it.
_NOTES = {
    "both": "Where both are shared, an expert is a square core between them.",
    "uniform": "Uniform: every gate is one over the number of experts.",
    "magnitude": "By magnitude: the gates of the largest outputs of down are 1, one row of it an expert.",
    "random": "Where up starts at random, what it adds at first is taken off.",
}


def _coordinates(recipe: Recipe, point: Coordinates) -> dict[str, str]:
    """Column title -> what it says of a recipe."""
    if point.router == "uniform":
        routing = "uniform"
    elif point.top_k is None:
        routing = "dense"
    else:
        capacity = f", capacity {point.capacity:g}" if point.capacity else ""
        by = " by magnitude" if point.router == "magnitude" else ""
        routing = f"top {point.top_k}{'*' if point.renormalize else ''}{by}{capacity}"
    return {
        "Method": recipe.title,
        "Shared": MISSING if point.share == "none" else point.share,
        "Experts": parameter_label(point.experts),
        "Routing": routing,
        "Balance": _balance(point) if point.balance_coef or point.balance_step else MISSING,
        "Dropout": ", ".join(_dropout(place, rate, point) for place, rate in point.dropouts.items()) or MISSING,
    }


def _others(point: Coordinates) -> list[str]:
    """What few recipes set, in words; nothing of what is at its default."""
    settings = {
        f"router reads {point.router_input}": point.router_input != "x",
        f"{listed(point.frozen)} frozen": point.frozen,
        f"down starts {point.down_init}": point.down_init != "gaussian",
        f"up starts {point.up_init}": point.up_init != "zero",
    }
    return [told for told, holds in settings.items() if holds]


def _balance(point: Coordinates) -> str:
    """The weight of the balance loss, with what sets it apart from Switch's mean over modules; the step of a bias."""
    form = " of counts" if point.balance_form == "counts" else ""
    loss = f"{point.balance_coef:g}{form}" + (", layers summed" if point.balance_reduce == "sum" else "")
    bias = f"bias by {point.balance_step:g}"
    return ", ".join([*([loss] if point.balance_coef else []), *([bias] if point.balance_step else [])])


def _dropout(place: str, rate: float, point: Coordinates) -> str:
    """The rate and its place, with the matrix where it is not the shared one."""
    named = point.dropout_matrix != "shared" and place in {"weight", "update"}
    where = {"expert_hidden": "hidden of each expert"}.get(place, place)
    return f"{rate:g} on {where}" + (f" of {point.dropout_matrix}" if named else "")


def _other_table(recipes: Sequence[Recipe]) -> Table:
    lines, numbers = [], []
    for recipe in recipes:
        params = "; ".join(f"{key.replace('_', ' ')} {parameter_label(value)}" for key, value in recipe.params.items())
        lines.append(Line.of(recipe.title, recipe.method, params or MISSING))
        numbers.append({"recipe": recipe.name, "method": recipe.method, "params": params})
    columns = (Column("Method", "left"), Column("Code", "left"), Column("Parameters", "wrap"))
    return Table("other-methods", "The other methods.", columns, tuple(lines), pd.DataFrame(numbers))


def deviations(analysis: Analysis) -> Section | None:
    """Where recipes depart from their papers, what several share told once; None where none does."""
    sharing: dict[str, list[Recipe]] = {}  # deviation -> the recipes that have it
    for recipe in _trained(analysis):
        for deviation in recipe.deviations:
            sharing.setdefault(deviation, []).append(recipe)
    if not sharing:
        return None
    together: dict[str, list[str]] = {}  # titles of recipes -> the deviations that just these have
    for deviation, recipes in sharing.items():
        together.setdefault(_titles(recipes), []).append(deviation)
    lines: list[Line] = []
    number = 0
    for titles, texts in together.items():
        lines.append(Line.heading(titles, ruled=bool(lines)))
        for text in texts:
            number += 1
            lines.append(Line.of(str(number), text))
    table = Table(
        "deviations",
        "Deviations of the recipes from their papers, and why.",
        (Column("No."), Column("Deviation", "wrap")),
        tuple(lines),
        pd.DataFrame(
            [{"recipe": recipe.name, "deviation": text} for text, recipes in sharing.items() for recipe in recipes]
        ),
    )
    return section("Deviations", table, appendix=True)
