"""The repository's folder, and workspaces made of it. Importing this sets nothing: what is no test needs it as well."""

from __future__ import annotations

import shutil
from pathlib import Path

REPOSITORY = Path(__file__).parents[2]


def declarations(root: Path) -> Path:
    """``root`` as a workspace with the repository's recipes, tasks, published tables and studies, and no record."""
    for folder in ("methods", "tasks", "results/published"):
        shutil.copytree(REPOSITORY / folder, root / folder)
    for file in REPOSITORY.glob("reports/*/*.yaml"):  # with what a search has found for it
        (root / "reports" / file.parent.name).mkdir(parents=True, exist_ok=True)
        shutil.copy(file, root / "reports" / file.parent.name)
    return root
