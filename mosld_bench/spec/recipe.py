"""Recipes: named settings of a method, one YAML file each in methods/.

include: mosld.yaml         # one level; `params` are merged key by key
title: MoSL
params: {dropout: 0.0, dropout_on: none}
deviations: {dropout: null} # those of the included file stay but for the one of that name
"""

from __future__ import annotations

import re
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, NamedTuple, get_args

from pydantic import AfterValidator, BeforeValidator, Field, field_validator

from mosld_bench.errors import BadFileError, UnknownNameError
from mosld_bench.format import one_line
from mosld_bench.spec.names import MAX_NAME
from mosld_bench.spec.recipe_files import recipe_files
from mosld_bench.spec.yaml_file import Grown, parse, read_including, read_yaml

Optimizer = Literal["adamw", "adafactor"]

#: Every optimiser that a recipe may name.
OPTIMIZERS: tuple[Optimizer, ...] = get_args(Optimizer)

#: main: the paper's methods; ablation: one setting of them changed; controls: what routing, learning A and the choice
#: of layers are worth; since: methods that came after; peft: those of PEFT beside LoRA; own: of plug-ins and users.
Group = Literal["main", "ablation", "controls", "since", "peft", "own"]

GROUPS: tuple[Group, ...] = get_args(Group)

#: Words that select recipes by their group: `all` those of the paper, `everything` every one.
SELECTORS: dict[str, tuple[Group, ...]] = {
    "all": ("main",),
    "everything": GROUPS,
    **{group: (group,) for group in GROUPS},
}


_NAME = re.compile(r"[a-z0-9][a-z0-9._-]*")

#: What YAML 1.1 took for true or false and YAML 1.2 takes for text. To a method's library any text is true.
_WORDS = frozenset({"yes", "no", "on", "off", "y", "n", "true", "false"})


def _named(deviations: Any) -> Any:
    """A list of deviations by name, where each is its own; others as they are."""
    return {str(item): item for item in deviations} if isinstance(deviations, list) else deviations


def _appended(path: Path, inherited: Any, own: Any) -> Any:
    """The ``own`` deviations of the file at ``path`` after those that it inherits; each a list, or a mapping by name.

    Under the name of an inherited one, another sentence takes its place, and null leaves it out.

    Raises BadFileError for a null under a name that is not inherited. What is neither list nor mapping stays as it is.
    """
    before, after = map(_named, (inherited, own))
    if not isinstance(before, dict) or not isinstance(after, dict):
        return own
    if unknown := [str(name) for name, sentence in after.items() if sentence is None and name not in before]:
        names = ", ".join(map(str, before)) or "none"
        raise BadFileError(f"{path}, deviations: leaves out {', '.join(unknown)}; those inherited are {names}.")
    return before | after


def _sentences(deviations: Any) -> Any:
    """The sentences of deviations by name, each once and without null; others as they are."""
    if not isinstance(deviations, dict):
        return deviations
    sentences = [sentence for sentence in deviations.values() if sentence is not None]
    return tuple(sentence for place, sentence in enumerate(sentences) if sentence not in sentences[:place])


class Recipe(Grown):
    """A named setting of a method: what `--methods` selects and what a row of a table is."""

    later: ClassVar[frozenset[str]] = frozenset({"fixed_size"})

    name: str = Field(description="that of its file")
    title: Annotated[str, AfterValidator(one_line)] = Field(description="as printed in tables, in one line")
    method: str = Field(description="a registered method, or module:Class")
    paper: str = Field("", description="where the method is from")
    about: str = Field("", description="one or two sentences for the report's method section")
    group: Group = Field("main", description="`--methods all` selects main, a group's name that group")
    order: int = Field(100, description="place among the rows of a table; equals go by name")
    params: dict[str, Any] = Field({}, description="the method's own settings, such as rank, experts and dropout")
    knob: str | None = Field(None, description="the field that the budget turns, where the method leaves it open")
    learning_rate_scale: float = Field(1.0, gt=0, le=10**6, description="multiplies the study's learning rate")
    fixed_size: bool = Field(
        False, description="whether it has its native size under every budget, apart from the rows of equal size"
    )
    optimizer: Optimizer = Field("adamw", description="adafactor keeps next to no state")
    deviations: Annotated[tuple[str, ...], BeforeValidator(_sentences)] = Field(
        (), description="where the recipe differs from its paper, and why"
    )

    @field_validator("name")
    @classmethod
    def _refuse_other_names(cls, value: str) -> str:
        if not _NAME.fullmatch(value) or len(value) > MAX_NAME:
            raise ValueError(
                f"a recipe is named by its file: a-z, 0-9 and ._-, a letter or digit first, up to {MAX_NAME} characters"
            )
        if value in SELECTORS:
            raise ValueError(f"a recipe is named by its file, and {value!r} selects recipes by their group")
        return value

    @field_validator("params")
    @classmethod
    def _refuse_words_for_truth_values(cls, value: dict[str, Any]) -> dict[str, Any]:
        for path, word in _texts(value):
            if word.lower() in _WORDS:
                raise ValueError(f"{path} is the word {word!r}; write true or false")
        return value

    @property
    def identity(self) -> dict[str, Any]:
        """What of a recipe changes the numbers; without what is at its default, so that a new field changes none."""
        wanted = {"name", "method", "params", "knob", "learning_rate_scale", "optimizer"}
        return self.model_dump(mode="json", include=wanted, exclude_defaults=True)

    @classmethod
    def load(cls, path: Path) -> Recipe:
        """Read one file, its deviations after those of the file that it includes.

        Raises BadFileError with every problem of the file, each with its key.
        """
        content, own = read_including(path, ("params",)), read_yaml(path)
        included = read_yaml(path.parent / str(own["include"])) if "include" in own else {}
        if "deviations" in own:  # read_including has them in place of those of the included file
            content["deviations"] = _appended(path, included.get("deviations", []), own["deviations"])
        return parse(cls, path, content | {"name": path.stem})


def _texts(value: Any, path: str = "") -> Iterator[tuple[str, str]]:
    """Every text in nested settings, with the path of its keys."""
    if isinstance(value, Mapping):
        for key, inner in value.items():
            yield from _texts(inner, f"{path}.{key}" if path else str(key))
    elif isinstance(value, str):
        yield path, value


#: Words that take whatever there is: a recipe of theirs that a study cannot run is left out, and no error.
_TAKE_WHAT_CAN_BE = SELECTORS.keys() - {"all", "main"}


def taken_along(recipes: Mapping[str, Recipe], wanted: Iterable[str]) -> set[str]:
    """Names of the recipes that are in ``wanted`` by a word such as ``everything`` alone, and not by name or as main.

    Such a word is no promise that every one of its recipes has a size that meets a budget.
    """
    wanted = set(wanted)
    by_word = select(recipes, sorted(_TAKE_WHAT_CAN_BE & wanted))
    asked = {recipe.name for recipe in select(recipes, sorted({"all", "main"} & wanted))} | wanted
    return {recipe.name for recipe in by_word} - asked


class Unreadable(NamedTuple):
    """A file of methods/ that is no recipe: why not, and its group as far as that can be told."""

    path: Path
    reason: str
    group: Group | None


class Recipes(dict[str, Recipe]):
    """The recipes of a folder by name, in the order of the tables.

    ``unreadable``: name -> a file that is no recipe. It stops what asks for it and nothing else.
    """

    unreadable: dict[str, Unreadable]

    def __init__(self, recipes: Mapping[str, Recipe], unreadable: Mapping[str, Unreadable] | None = None) -> None:
        super().__init__(recipes)
        if unreadable is None:
            unreadable = recipes.unreadable if isinstance(recipes, Recipes) else {}
        self.unreadable = dict(unreadable)


def load_recipes(folder: Path) -> Recipes:
    """The recipes of a folder and of plug-ins, and the files that are none."""
    recipes, unreadable = list[Recipe](), dict[str, Unreadable]()
    for path in recipe_files(folder).values():
        try:
            recipes.append(Recipe.load(path))
        except BadFileError as error:
            unreadable[path.stem] = Unreadable(path, str(error), _group_of(path))
    recipes.sort(key=lambda recipe: (recipe.order, recipe.name))
    return Recipes({recipe.name: recipe for recipe in recipes}, unreadable)


def _group_of(path: Path) -> Group | None:
    """The group of a file that is no recipe; None where it cannot be told."""
    try:
        named = read_including(path, ()).get("group", Recipe.model_fields["group"].default)
    except BadFileError:
        return None
    return next((group for group in GROUPS if group == named), None)


def recipe_named(recipes: Mapping[str, Recipe], name: str, hint: str = "", *, also_known: Iterable[str] = ()) -> Recipe:
    """The recipe of that name. Raises BadFileError where its file is none, UnknownNameError where there is no file.

    ``hint`` and ``also_known``: where the name is from, and what else may stand there.
    """
    if name in recipes:
        return recipes[name]
    if isinstance(recipes, Recipes) and name in recipes.unreadable:
        raise BadFileError(f"The recipe {name!r} cannot be used: {recipes.unreadable[name].reason}")
    raise UnknownNameError("recipe", name, [*recipes, *also_known], hint)


def _of_groups(recipes: Mapping[str, Recipe], word: str) -> dict[str, Recipe]:
    """The recipes that a word of `SELECTORS` selects. Raises BadFileError where a file of such a group is no recipe."""
    groups = SELECTORS[word]
    for name, file in recipes.unreadable.items() if isinstance(recipes, Recipes) else ():
        if file.group in groups:
            raise BadFileError(
                f"The recipe {name!r} is of the group {file.group}, which {word!r} asks for, and cannot be used: "
                f"{file.reason}"
            )
    return {recipe.name: recipe for recipe in recipes.values() if recipe.group in groups}


def write_recipe(folder: Path, name: str, text: str) -> Recipe:
    """Write the recipe ``name`` with the YAML ``text`` into ``folder``, and read it. What is no recipe is not written.

    Raises BadFileError for it.
    """
    with tempfile.TemporaryDirectory() as scratch:
        tried = Path(scratch) / f"{name}.yaml"
        tried.write_text(text, encoding="utf-8")
        recipe = Recipe.load(tried)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{name}.yaml").write_text(text, encoding="utf-8")
    return recipe


def select(
    recipes: Mapping[str, Recipe], wanted: Sequence[str], words: Mapping[str, Sequence[str]] | None = None
) -> list[Recipe]:
    """The recipes of names and of the words of `SELECTORS`, in the order given, each once.

    ``words``: others that stand for several names, such as those of a study's ablations.

    Raises UnknownNameError, and BadFileError where one that is asked for has a file that is no recipe.
    """
    chosen: dict[str, Recipe] = {}
    hint = f"Recipes are the YAML files in methods/; {', '.join(SELECTORS)} select several by their group."
    for name in wanted:
        if name in SELECTORS:
            chosen |= _of_groups(recipes, name)
        elif words and name in words:
            chosen |= {member: recipes[member] for member in words[name]}
        else:
            chosen[name] = recipe_named(recipes, name, hint, also_known=(*SELECTORS, *(words or ())))
    return list(chosen.values())
