"""What a shell completes: names of studies, recipes and tasks, alone or by comma. Loads no torch, and never fails."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path

import typer

from mosld_bench.errors import BenchError

_Names = Callable[["_Place"], Iterable[str]]


class _Place:
    """The workspace and the folders of tasks that a command line so far names."""

    def __init__(self, context: typer.Context) -> None:
        from mosld_bench.spec.workspace import Workspace

        root, more = context.params.get("root"), context.params.get("include_path")
        self.workspace = Workspace.find(Path(root) if root else None)
        self.task_folders = (self.workspace.tasks, *map(Path, more or ()))


def _studies(place: _Place) -> Iterable[str]:
    return place.workspace.studies()


def _recipes(place: _Place) -> Iterable[str]:
    """By their files, which are not read."""
    return (path.stem for path in place.workspace.methods.glob("*.yaml"))


def _selectors(place: _Place) -> Iterable[str]:
    from mosld_bench.spec.recipe import SELECTORS

    return (*SELECTORS, *_recipes(place))


def _tasks(place: _Place) -> Iterable[str]:
    from mosld_bench.spec.task_files import TaskFiles

    return TaskFiles.scan(place.task_folders).paths


def _completing(names: _Names, *, by_comma: bool) -> Callable[[typer.Context, str], list[str]]:
    """What typer asks for the names that begin as what was typed; ``by_comma``: after the last comma of it."""

    def complete(ctx: typer.Context, incomplete: str) -> list[str]:
        before, comma, last = incomplete.rpartition(",") if by_comma else ("", "", incomplete)
        with suppress(BenchError, OSError):  # whoever presses a key asked for no error
            left = set(names(_Place(ctx))) - set(before.split(","))
            return [f"{before}{comma}{name}" for name in sorted(left) if name.startswith(last)]
        return []

    return complete


#: For ``autocompletion`` of an argument or option: one name, or several by comma.
study_name = _completing(_studies, by_comma=False)
recipe_name = _completing(_recipes, by_comma=False)
recipe_names = _completing(_selectors, by_comma=True)
task_name = _completing(_tasks, by_comma=False)
task_names = _completing(_tasks, by_comma=True)
