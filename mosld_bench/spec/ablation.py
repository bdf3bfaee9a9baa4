"""Ablations of a study: recipes made of another by changes to its params, one factor at a time or crossed.

ablate:
  around: mosld
  vary:
    top_k: [1, 2, null]                                # the value that mosld has is mosld itself
    experts: [4, [2, 4, 6, 8]]
    dropout: [0, 0.2, {dropout: 0.1, dropout_on: hidden}]  # what moves together is a mapping
factorial:
  around: mosld
  cross:
    share: [none, down]
    dropout: [{dropout: 0, dropout_on: none}, {dropout: 0.1, dropout_on: weight}]

A recipe file that differs in its name alone is taken in place of one that would be made, so that its records are found
again; the others are named after what they change, and need no file.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from itertools import product
from typing import Annotated, Any, NamedTuple

from pydantic import BeforeValidator, Field, field_validator

from mosld_bench.errors import BadFileError
from mosld_bench.format import listed
from mosld_bench.spec.design_space import Coordinates, dropout_rates
from mosld_bench.spec.names import MAX_NAME
from mosld_bench.spec.recipe import Recipe, Recipes, recipe_named
from mosld_bench.spec.yaml_file import Strict, parse

_NOT_OF_A_NAME = re.compile(r"[^a-z0-9._-]+")
_LONGEST_VALUE = 40  # characters of a value in a name; of a longer one, a digest follows its beginning


def _several(value: Any) -> Any:
    """A single value as a list of one."""
    return list(value) if isinstance(value, list | tuple) else [value]


#: The values of a factor: each is that of the coordinate of its name, or a mapping of coordinates that move together.
Values = Annotated[tuple[Any, ...], BeforeValidator(_several), Field(min_length=1)]


def _refuse_empty_mappings(factors: Mapping[str, tuple[Any, ...]]) -> None:
    for name, values in factors.items():
        for value in values:
            if isinstance(value, Mapping) and not value:
                raise ValueError(f"{name} has an empty mapping; it takes coordinates with their values")


class Ablate(Strict):
    """Recipes that differ from one in a single factor each."""

    around: str = Field(description="the recipe that each of them changes, which need not be planned by name")
    vary: dict[str, Values] = Field(
        min_length=1, description="factor -> its values; a factor whose values are all mappings may have any name"
    )

    @field_validator("vary")
    @classmethod
    def _check_values(cls, value: dict[str, tuple[Any, ...]]) -> dict[str, tuple[Any, ...]]:
        _refuse_empty_mappings(value)
        return value

    def variants(self, recipes: Mapping[str, Recipe]) -> list[Variant]:
        """Every value of every factor as a recipe: of ``recipes`` the one that means the same, or else a new one.

        Raises UnknownNameError where ``around`` is none of them, and BadFileError for a value that no recipe can have.
        """
        around = _around(recipes, self.around, "ablate")
        maker = _Maker(around, recipes)
        return [
            Variant(factor, changes, maker.recipe(changes, place), place)
            for factor, values in self.vary.items()
            for i, value in enumerate(values)
            for changes in [_changes(factor, value)]
            for place in [f"ablate.vary.{factor}, value {i + 1}"]
        ]


class Factorial(Strict):
    """Recipes of every combination of the levels of some factors."""

    around: str = Field(description="the recipe that each of them changes")
    cross: dict[str, Values] = Field(
        min_length=2, description="factor -> its levels, the first of which effects are counted from"
    )

    @field_validator("cross")
    @classmethod
    def _check_values(cls, value: dict[str, tuple[Any, ...]]) -> dict[str, tuple[Any, ...]]:
        _refuse_empty_mappings(value)
        if single := [name for name, levels in value.items() if len(levels) < 2]:
            raise ValueError(f"{listed(single)} has one level; a factor has two or more")
        return value

    @property
    def levels(self) -> tuple[int, ...]:
        """How many levels each factor has."""
        return tuple(map(len, self.cross.values()))

    def cells(self, recipes: Mapping[str, Recipe]) -> list[Cell]:
        """Every combination as a recipe, in the order of the levels, the last factor fastest; see `Ablate.variants`.

        Raises BadFileError, too, where two factors change one coordinate, or two combinations are one recipe.
        """
        around = _around(recipes, self.around, "factorial")
        maker, cells = _Maker(around, recipes), []
        for places in product(*map(range, self.levels)):
            changes: dict[str, Any] = {}
            for (factor, levels), place in zip(self.cross.items(), places, strict=True):
                own = _changes(factor, levels[place])
                if both := sorted(own.keys() & changes.keys()):
                    raise BadFileError(f"factorial.cross: {factor} and another factor change {listed(both)}.")
                changes |= own
            levels_text = ", ".join(f"{name} level {i + 1}" for name, i in zip(self.cross, places, strict=True))
            where = f"factorial.cross, {levels_text}"
            cells.append(Cell(places, maker.recipe(changes, where), where))
        names = [cell.recipe.name for cell in cells]
        if twice := sorted({name for name in names if names.count(name) > 1}):
            raise BadFileError(f"factorial.cross: two combinations of levels are the recipe {listed(twice)}.")
        return cells


class Variant(NamedTuple):
    """A value of a factor: what it changes, the recipe that comes of it, and its place in the study's file."""

    factor: str
    changes: dict[str, Any]
    recipe: Recipe
    place: str


class Cell(NamedTuple):
    """A combination of levels, by their positions; the recipe that comes of it, and its place in the study's file."""

    levels: tuple[int, ...]
    recipe: Recipe
    place: str


@dataclass(frozen=True)
class Catalogue:
    """The recipes that a study may name: those of files, and those that its ablations make.

    ``words``: what stands for several in a list of recipes, as `all` does -> their names. ``leaders``: recipe of an
    ablation -> the one that it is around, whose learning rate is its own too. ``places``: recipe that was made -> the
    place in the study's file.
    """

    recipes: Recipes
    words: dict[str, tuple[str, ...]] = field(default_factory=dict)
    leaders: dict[str, Recipe] = field(default_factory=dict)
    places: dict[str, str] = field(default_factory=dict)


#: The keys of a study that make recipes; as words in a list of recipes, all of theirs.
WORDS = ("ablate", "factorial")


def catalogue(ablate: Ablate | None, factorial: Factorial | None, recipes: Mapping[str, Recipe]) -> Catalogue:
    """``recipes`` and those that the ablations make. Raises what `Ablate.variants` and `Factorial.cells` raise."""
    found = Catalogue(Recipes(recipes))
    for word, of_study in zip(WORDS, (ablate, factorial), strict=True):
        if of_study is None:
            continue
        around = _around(recipes, of_study.around, word)
        alike = {  # whose factor on the learning rate is another is another recipe
            name: recipe
            for name, recipe in found.recipes.items()
            if recipe.learning_rate_scale == around.learning_rate_scale
        }
        members = of_study.variants(alike) if isinstance(of_study, Ablate) else of_study.cells(alike)
        for member in members:
            recipe = member.recipe
            if found.recipes.setdefault(recipe.name, recipe) != recipe:
                raise BadFileError(
                    f"{member.place} makes a recipe named {recipe.name!r}, and there is another of that name. Rename "
                    "that one."
                )
            if recipe.name not in recipes:
                found.places.setdefault(recipe.name, member.place)
            if recipe.name != around.name:
                found.leaders.setdefault(recipe.name, around)
        found.words[word] = tuple(dict.fromkeys(member.recipe.name for member in members))
    return found


def leaders(ablate: Ablate | None, factorial: Factorial | None, recipes: Mapping[str, Recipe]) -> dict[str, str]:
    """Of ``recipes``, as a study has planned them, those of its ablations -> the recipe that they are around."""
    found: dict[str, str] = {}
    for of_study in (ablate, factorial):
        if of_study is not None and of_study.around in recipes:
            members = of_study.variants(recipes) if isinstance(of_study, Ablate) else of_study.cells(recipes)
            names = (member.recipe.name for member in members)
            found |= {name: of_study.around for name in names if name in recipes and name not in found}
    return {name: leader for name, leader in found.items() if name != leader}


def _around(recipes: Mapping[str, Recipe], name: str, key: str) -> Recipe:
    return recipe_named(recipes, name, f"It is named in the study's {key}.around.")


def _changes(factor: str, value: Any) -> dict[str, Any]:
    """Coordinate -> what the value of a factor sets it to."""
    changes = value if isinstance(value, Mapping) else {factor: value}
    return {str(key): _plain(of_key) for key, of_key in changes.items()}


def _plain(value: Any) -> Any:
    """The value with whole floats as integers, so that 0 and 0.0 are one, and sequences as lists."""
    if isinstance(value, float) and value.is_integer():
        return int(value)
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    return value


class _Maker:
    """Makes recipes of ``around``, each meaning once: of ``recipes`` where one has it, or else a new one."""

    def __init__(self, around: Recipe, recipes: Mapping[str, Recipe]) -> None:
        self._around = around
        self._known: dict[str, Recipe] = {meaning(around): around}
        others = sorted(recipes.values(), key=lambda each: each.learning_rate_scale != around.learning_rate_scale)
        for recipe in others:
            self._known.setdefault(meaning(recipe), recipe)

    def recipe(self, changes: Mapping[str, Any], place: str) -> Recipe:
        """The recipe with these params changed; ``place`` is named where it cannot be."""
        params = {**self._around.params, **_with_what_follows(changes, self._around.params)}
        before = _filled(self._around)
        changed = {key: of for key, of in params.items() if key not in before or _text(of) != _text(before[key])}
        label = listed([change_label(key, value) for key, value in changed.items()])
        made = parse(
            Recipe,
            place,
            self._around.model_dump()
            | {
                "name": _name(self._around.name, changed),
                "title": f"{self._around.title}, {label}",
                "about": f"{self._around.title} with {label}.",
                "group": "ablation",
                "params": params,
            },
        )
        return self._known.setdefault(meaning(made), made)


def _with_what_follows(changes: Mapping[str, Any], params: Mapping[str, Any]) -> dict[str, Any]:
    """The changes with those that leave no choice: a rate of 0 drops nowhere, and what drops nowhere has the rate 0."""
    changes = dict(changes)
    if "dropout" in changes and "dropout_on" in params and not _rates(changes["dropout"] or 0, "input"):
        changes = {"dropout_on": "none", **changes}
        if "dropout_matrix" in params:
            changes = {"dropout_matrix": "shared", **changes}
    elif changes.get("dropout_on") == "none" and "dropout" in params:
        changes = {"dropout": 0, **changes}
    return changes


def _filled(recipe: Recipe) -> dict[str, Any]:
    """The params of a recipe, with the defaults of the design space where it is a point of it."""
    defaults = asdict(Coordinates.of(recipe.params)) if recipe.method == "mixture" else {}
    return {key: _plain(value) for key, value in {**defaults, **recipe.params}.items()}


def meaning(recipe: Recipe) -> str:
    """Text that is the same for recipes that differ in nothing but their name, title and factor on the learning rate.

    Of a point of the design space, what it leaves open is at its default, dropouts are by place, a list of equal
    numbers of experts is that number, and modules are in any order.
    """
    params = _filled(recipe)
    if recipe.method == "mixture":
        rates = _rates(params.pop("dropout"), params.pop("dropout_on"))
        of_matrix = {"weight", "update"} & rates.keys()
        if not of_matrix:
            params.pop("dropout_matrix")
        elif params["dropout_matrix"] == "shared":
            params["dropout_matrix"] = "up" if params["share"] == "up" else "down"
        if isinstance(params["experts"], list) and len(set(map(str, params["experts"]))) == 1:
            params["experts"] = params["experts"][0]
        params["dropouts"] = rates
    for key in ("target_modules", "exclude_modules"):
        if isinstance(params.get(key), list):
            params[key] = sorted(map(str, params[key]))
    return _text([recipe.method, params, recipe.knob, recipe.optimizer])


def _text(value: Any) -> str:
    """Text that tells true from 1, and not 1 from 1.0."""
    return json.dumps(_plain(value), sort_keys=True, default=str)


def _rates(dropout: Any, dropout_on: Any) -> dict[str, Any]:
    """`dropout_rates`; of what are no rates, something that is one only with itself: the method refuses it later."""
    try:
        return dict(dropout_rates(dropout, dropout_on))
    except TypeError:
        return {_text(dropout_on): _text(dropout)}


def _name(around: str, changed: Mapping[str, Any]) -> str:
    """'mosld.top_k-1': the recipe and what is changed, in the order of the alphabet."""
    name = ".".join([around, *(f"{_slug(key)}-{_slug(changed[key])}" for key in sorted(changed))])
    return name if len(name) <= MAX_NAME else f"{name[: MAX_NAME - 9]}-{_digest(name)}"


def _slug(value: Any) -> str:
    """A value in the letters of a recipe's name; what these do not tell, a digest does."""
    text = "-".join(_words(value))
    slug = _NOT_OF_A_NAME.sub("-", text)[:_LONGEST_VALUE].strip("-")
    return slug if slug == text else f"{slug}-{_digest(text)}".strip("-")


def _words(value: Any) -> Iterator[str]:
    if isinstance(value, Mapping):
        for key in sorted(value):
            yield from (str(key), *_words(value[key]))
    elif isinstance(value, list):
        for item in value:
            yield from _words(item)
    else:
        yield "none" if value is None else str(value).lower() if isinstance(value, bool) else _short(value)


def _short(value: Any) -> str:
    """A value without the end that nearly all names of linear layers have."""
    return str(value).removesuffix("_proj")


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:8]


#: Coordinate -> how a heading has it, where that is not its name with spaces.
_LABELS = {
    "r": "rank",
    "lora_alpha": "alpha",
    "share": "sharing",
    "top_k": "top-K",
    "renormalize": "renormalised",
    "balance_coef": "balance weight",
    "dropout_on": "place of dropout",
    "target_modules": "modules",
}
_SHARED = {"none": "nothing", "down": "A", "up": "B", "both": "A and B"}


def factor_label(factor: str) -> str:
    """A factor as a heading has it: 'top-K', 'balance weight'."""
    return _LABELS.get(factor, factor.replace("_", " "))


def value_label(key: str, value: Any) -> str:
    """The value of a coordinate: '2-4-6-8', 'dense', 'A' for the shared matrix, 'q, v' for modules."""
    if key == "share":
        return _SHARED.get(str(value), str(value))
    if key == "top_k" and value is None:
        return "dense"
    if isinstance(value, bool) or value is None:
        return {True: "yes", False: "no", None: "none"}[value]
    if isinstance(value, list | tuple):
        numbers = all(isinstance(item, int) for item in value)
        return ("-" if numbers else ", ").join(value_label("", item) for item in value)
    if isinstance(value, Mapping):
        return ", ".join(f"{value_label('', of_key)} on {name}" for name, of_key in value.items())
    return f"{value:g}" if isinstance(value, float) else _short(value)


def change_label(key: str, value: Any) -> str:
    """A change of a coordinate in words: 'top-K 1', 'sharing A'."""
    if key == "renormalize":
        return f"gates {'' if value else 'not '}renormalised"
    if key == "dropout_on":
        return f"dropout on {value}"
    return f"{factor_label(key)} {value_label(key, value)}"


def level_label(factor: str, value: Any) -> str:
    """The value of a factor: of its own coordinate, and of those that move with it, which are named.

    A dropout is told by its rate and place: '0.1 on hidden'.
    """
    changes = _changes(factor, value)
    if changes.keys() <= {"dropout", "dropout_on"} and not isinstance(changes.get("dropout"), dict):
        rate, place = changes.get("dropout"), changes.get("dropout_on")
        if rate is not None:
            return value_label("", rate) + (f" on {place}" if place not in (None, "none") else "")
        return str(place)
    if len(changes) == 1:
        return value_label(*next(iter(changes.items())))
    own = [value_label(key, of_key) for key, of_key in changes.items() if key == factor]
    return ", ".join(own + [change_label(key, of_key) for key, of_key in changes.items() if key != factor])
