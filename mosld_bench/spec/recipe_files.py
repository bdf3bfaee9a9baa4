"""Where recipes are found: the folder methods/, and the packages of plug-ins, which bring recipes of their own.

A plug-in is an installed distribution with an entry point of the group `mosld_bench.methods`; its recipes are the YAML
files in ``PACKAGE/recipes/``. Nothing of it is imported to find them.
"""

from __future__ import annotations

from collections.abc import Iterator
from importlib.metadata import entry_points
from importlib.util import find_spec
from pathlib import Path

#: The entry point group of methods, ours and those of other packages.
GROUP = "mosld_bench.methods"

_OURS = "mosld_bench"
_BUNDLED = Path(__file__).parents[1] / "_bundled"


def recipe_files(folder: Path) -> dict[str, Path]:
    """Name -> file, of every recipe in ``folder`` and of those of plug-ins; under one name that in the folder counts.

    Beside the recipes that an installed wheel carries, those in methods/ of the current folder are in reach.
    """
    folders = [*_of_plugins(), folder]
    if folder.is_relative_to(_BUNDLED):
        folders.append(Path("methods"))
    return {path.stem: path for each in folders for path in sorted(each.glob("*.yaml"))}


def _of_plugins() -> Iterator[Path]:
    """The folders of recipes of the installed plug-ins."""
    packages = {entry.value.partition(":")[0].partition(".")[0].strip() for entry in entry_points(group=GROUP)}
    for package in sorted(packages - {_OURS, ""}):
        try:
            found = find_spec(package)
        except (ImportError, ValueError):  # it is broken, which whoever asks for its method is told
            continue
        for place in (found.submodule_search_locations if found is not None else None) or ():
            yield Path(place) / "recipes"
