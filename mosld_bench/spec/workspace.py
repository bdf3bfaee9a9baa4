"""Where the four folders are: methods/ and tasks/ (what goes in), results/ and reports/ (what comes out).

`Workspace.find` looks in this order: the folder given by ``--root``; the current folder, if it has ``methods`` and
``tasks``; the checkout that the package lies in (an editable install); the copies that a wheel carries. In the last
case ``results`` and ``reports`` are made in the current folder and studies are read from both.
"""

from __future__ import annotations

import os
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from mosld_bench.errors import BenchError, UnknownNameError

_PACKAGE = Path(__file__).parents[1]
_INPUTS = ("methods", "tasks")


def cache_home() -> Path:
    """Where ``mosld-bench fetch`` puts what it gets: $MOSLD_BENCH_CACHE, else a folder in the user's cache."""
    configured = os.environ.get("MOSLD_BENCH_CACHE")
    if configured:
        return Path(configured)
    return Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "mosld-bench"


@dataclass(frozen=True)
class Workspace:
    """The folders of a call: declarations are read from ``inputs``, records and reports written to ``outputs``.

    Both are the same folder but for an installed wheel, whose declarations lie within the package.
    """

    inputs: Path
    outputs: Path

    @classmethod
    def find(cls, root: Path | None = None) -> Workspace:
        """The workspace for this call. Raises BenchError where ``root`` lacks one of the folders that go in."""
        if root is not None:
            for needed in _INPUTS:
                if not (root / needed).is_dir():
                    raise BenchError(
                        f"--root {root} has no {needed!r} folder; give a folder laid out like a mosld-bench checkout."
                    )
            return cls(root, root)
        for candidate in (Path.cwd(), _PACKAGE.parent):
            if all((candidate / needed).is_dir() for needed in _INPUTS):
                return cls(candidate, candidate)
        return cls(_PACKAGE / "_bundled", Path.cwd())

    @property
    def methods(self) -> Path:
        """The recipes, one YAML file each."""
        return self.inputs / "methods"

    @property
    def own_methods(self) -> Path:
        """Where a recipe of the user's own is put: beside the others, or where these are a wheel's, in the outputs."""
        return self.outputs / "methods"

    @property
    def tasks(self) -> Path:
        """The task definitions, in lm-eval's YAML."""
        return self.inputs / "tasks"

    @property
    def results(self) -> Path:
        """The records: the folder of a `Store`."""
        return self.outputs / "results"

    @property
    def published(self) -> Path:
        """The tables that papers print, and how they were made."""
        return self.inputs / "results" / "published"

    @property
    def reports(self) -> Path:
        """The studies and their reports, one folder a study."""
        return self.outputs / "reports"

    def studies(self) -> dict[str, Path]:
        """Name -> study.yaml, for every study in reach; one of the user's own wins over a bundled one."""
        files: dict[str, Path] = {}
        for base in (self.inputs, self.outputs):
            for path in sorted((base / "reports").glob("*/study.yaml")):
                files[path.parent.name] = path
        return files

    def study_file(self, name: str) -> Path:
        """The study.yaml of a study given by name, by its folder or by the file. Raises UnknownNameError."""
        path = Path(name)
        with suppress(OSError, ValueError):  # a name that is too long for a path, or holds a NUL, is none
            if path.suffix in {".yaml", ".yml"} and path.is_file():
                return path
            if (path / "study.yaml").is_file() and len(path.parts) > 1:
                return path / "study.yaml"
        known = self.studies()
        if name not in known:
            raise UnknownNameError("study", name, known, "A study is a folder reports/NAME with a study.yaml.")
        return known[name]
