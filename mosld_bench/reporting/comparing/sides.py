"""Sides: what the two names of a comparison stand for, and which of their rows are set against each other."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from enum import StrEnum
from pathlib import Path

from mosld_bench.errors import BenchError, UnknownNameError
from mosld_bench.format import listed
from mosld_bench.reporting.comparing.pairs import Member, Pair
from mosld_bench.reporting.comparing.sources import Source, read_folder, read_study
from mosld_bench.reporting.labels import short_label
from mosld_bench.reporting.rows import Row
from mosld_bench.spec.plain_file import is_folder, is_regular
from mosld_bench.spec.workspace import Workspace

_HINT = (
    "A name is that of a recipe (of --study; or RECIPE@STUDY, RECIPE@FOLDER), of a study, or of a folder: of a trial's "
    "record, or of a study's records."
)
_MOST_ROWS = 6  # that a sentence names


class Kind(StrEnum):
    """What a name stands for."""

    RECIPE = "recipe"
    STUDY = "study"
    FOLDER = "folder of records"
    TRIAL = "trial's folder"


@dataclass(frozen=True)
class Side:
    """One of the two that are compared: the rows of a source that have records. ``name``: as it was given."""

    name: str
    kind: Kind
    source: Source
    rows: tuple[Row, ...]


@dataclass
class SideReader:
    """Finds what names stand for and reads it, a study or folder once. ``study``: that of bare names of recipes."""

    workspace: Workspace
    study: str
    include_paths: tuple[Path, ...] = ()
    _sources: dict[Path, Source] = field(default_factory=dict)

    def read(self, name: str) -> Side:
        """The side that ``name`` stands for. Raises BenchError where it stands for nothing, or for several things."""
        recipe, at, where = name.partition("@")
        place = self._place(name)
        if at and place is None:
            return self._recipe(name, recipe, where)
        of_methods = Path(name).name == name and is_regular(self.workspace.methods / f"{name}.yaml")
        if of_methods and place is not None:
            kind, path = place
            raise BenchError(
                f"{name!r} is a recipe and a {kind}. Write {name}@{self.study} for the recipe, "
                f"{_written(kind, path)} for the {kind}."
            )
        if of_methods or (place is None and self._has_recipe(name)):
            return self._recipe(name, name, self.study)
        if place is None:
            if len(Path(name).parts) > 1:
                raise BenchError(f"There is no folder {name}. {_HINT}")
            recipes = (path.stem for path in self.workspace.methods.glob("*.yaml"))
            raise UnknownNameError("recipe, study or folder", name, [*recipes, *self.workspace.studies()], _HINT)
        source = self._source(*place)
        return Side(name, place[0], source, tuple(row for row in source.analysis.rows if row.records))

    def _place(self, name: str) -> tuple[Kind, Path] | None:
        """The study.yaml, or the folder of records, that ``name`` stands for; None where there is neither."""
        path, file = Path(name), None
        with suppress(UnknownNameError):
            file = self.workspace.study_file(name)
        of_records = is_folder(path) and not is_regular(path / "study.yaml")
        of_records = of_records and (len(path.parts) > 1 or path.is_absolute() or _holds_records(path))
        if file is None:
            kind = Kind.TRIAL if is_regular(path / "record.json") else Kind.FOLDER
            return (kind, path) if of_records else None
        if of_records and path.resolve() != (self.workspace.results / name).resolve():
            raise BenchError(
                f"{name!r} is a study and a folder of records. Write {_written(Kind.STUDY, file)} for the study, "
                f"{_written(Kind.FOLDER, path)} for the folder."
            )
        return Kind.STUDY, file

    def _has_recipe(self, name: str) -> bool:
        """Whether the records of --study are of a recipe of that name; one that methods/ no longer has, say."""
        place = self._place(self.study)
        with suppress(BenchError):
            return place is not None and bool(self._source(*place).rows_of(name))
        return False

    def _recipe(self, name: str, recipe: str, where: str) -> Side:
        """The rows of a recipe in a study or folder."""
        place = self._place(where)
        if place is None:
            raise UnknownNameError("study or folder of records", where, self.workspace.studies(), _HINT)
        source = self._source(*place)
        rows = source.rows_of(recipe)
        if not rows:
            recorded = {row.recipe.name for row in source.analysis.rows if row.records}
            raise UnknownNameError("recipe with a record", recipe, recorded, f"These have one in {source.name}.")
        return Side(name, Kind.RECIPE, source, rows)

    def _source(self, kind: Kind, path: Path) -> Source:
        key = path.resolve()
        if key not in self._sources:
            read = read_study if kind is Kind.STUDY else read_folder
            self._sources[key] = read(path, self.workspace, self.include_paths)
        return self._sources[key]


def _written(kind: Kind, path: Path) -> str:
    """A study.yaml's folder, or a folder, so that nothing else is called so."""
    return str(path.parent if kind is Kind.STUDY else path.absolute())


def _holds_records(folder: Path) -> bool:
    patterns = ("record.json", "*/record.json", "*/*/record.json")
    return any(next(folder.glob(pattern), None) for pattern in patterns)


# Which rows are set against each other


def narrowed(side: Side, budgets: Collection[str], settings: Collection[str]) -> Side:
    """The side with its rows of these budgets and settings; of all where none is given.

    An untrained model has neither, and stays. Raises BenchError where no row is left.
    """
    rows = tuple(
        row
        for row in side.rows
        if row.frozen or ((not budgets or row.budget in budgets) and (not settings or row.setting in settings))
    )
    if not rows:
        asked = listed([*budgets, *settings])
        raise BenchError(f"{side.name} has no row of {asked}; it has {_labels(side.rows)}.")
    return replace(side, rows=rows)


def matched(ours: Side, theirs: Side) -> tuple[list[Pair], list[str]]:
    """The rows of the two sides that are set against each other, and sentences on those that are left out.

    Two recipes meet in every block that both stand in: setting, budget, general data and, where there are several, base
    model. A row without a budget (an untrained model, full fine-tuning) meets every budget. Of two studies or folders
    rows of one recipe and block meet. Where each side has one row, as a trial's folder has, the two meet in any case.

    Raises BenchError where no two rows meet, or all that do are the same.
    """
    whole = bool({Kind.STUDY, Kind.FOLDER} & {ours.kind, theirs.kind})
    if whole and Kind.RECIPE in {ours.kind, theirs.kind}:
        of_recipe, other = (ours, theirs) if ours.kind is Kind.RECIPE else (theirs, ours)
        recipe = of_recipe.name.partition("@")[0]
        raise BenchError(
            f"{of_recipe.name} is a recipe, and {other.name} a whole {other.kind}: {recipe}@{other.name} is the recipe "
            "there."
        )
    rows = [(row, other) for row in ours.rows for other in theirs.rows if _meet(row, other, ours, theirs, whole)]
    if not rows and len(ours.rows) == len(theirs.rows) == 1:
        rows = [(ours.rows[0], theirs.rows[0])]
    if not rows:
        of = "recipe and block" if whole else "block"
        raise BenchError(
            f"{ours.name} and {theirs.name} have no {of} in common: {ours.name} has {_labels(ours.rows, whole)}; "
            f"{theirs.name} has {_labels(theirs.rows, whole)}. Two trials' folders are compared whatever they are of."
        )
    if ours.source is theirs.source and all(row is other for row, other in rows):
        raise BenchError(f"{ours.name} and {theirs.name} are the same rows of {ours.source.name}.")
    left = [
        f"Only {side.name} has {_labels(lone, whole)}."
        for side, place in ((ours, 0), (theirs, 1))
        if (lone := [row for row in side.rows if all(row is not pair[place] for pair in rows)])
    ]
    return [Pair(Member(row, ours.source), Member(other, theirs.source)) for row, other in rows], left


def _meet(row: Row, other: Row, ours: Side, theirs: Side, whole: bool) -> bool:
    """Whether two rows are compared; ``whole``: of two studies, and so by recipe."""
    models = [{r.trial.model.name for r in member.records} for member in (row, other)]
    several = any(len(side.source.analysis.study.models) > 1 for side in (ours, theirs))
    if several and models[0] != models[1]:
        return False
    same = row.condition._replace(model="") == other.condition._replace(model="")
    if whole or same:
        return same and (row.recipe.name == other.recipe.name or not whole)
    if row.frozen or other.frozen:
        return row.frozen != other.frozen
    amounts = [(member.setting, member.condition.general, member.condition.items) for member in (row, other)]
    alike = amounts[0] == amounts[1]
    return alike and not (row.ranked and other.ranked)


def _labels(rows: Sequence[Row], with_recipe: bool = False) -> str:
    """The blocks of rows, and the recipes."""
    labels = [short_label(row.condition) for row in rows]
    if with_recipe:
        labels = [f"{row.recipe.name} ({label})" for row, label in zip(rows, labels, strict=True)]
    return listed(labels, most=_MOST_ROWS, noun="rows")
