"""What the functions take in more than one form: a study, a folder, names."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from mosld_bench.spec.study import Study
from mosld_bench.spec.workspace import Workspace

Place = Path | str


def study_of(study: Study | Place, workspace: Workspace) -> Study:
    """A study, as it is or by its name, folder or file. Raises UnknownNameError."""
    return study if isinstance(study, Study) else Study.load(workspace.study_file(str(study)))


def workspace_of(root: Place | None) -> Workspace:
    """The workspace at ``root``, or that of `Workspace.find`."""
    return Workspace.find(None if root is None else Path(root))


def paths(places: Sequence[Place]) -> tuple[Path, ...]:
    """One place or several."""
    return tuple(Path(place) for place in ([places] if isinstance(places, str | Path) else places))


def words(names: str | Sequence[str]) -> tuple[str, ...]:
    """One word or several; a single one is not taken for its letters."""
    return (names,) if isinstance(names, str) else tuple(names)
