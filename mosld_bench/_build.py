"""Hatch build hook: a wheel carries methods/, tasks/, studies and published tables under mosld_bench/_bundled/.

An editable install reads the live folders instead, so that nothing of it can go stale.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface


class CustomBuildHook(BuildHookInterface):  # type: ignore[type-arg,misc]
    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        if version == "editable":
            return
        root = Path(self.root)
        files = [p for folder in ("methods", "tasks") for p in (root / folder).rglob("*") if p.is_file()]
        files += [*(root / "reports").glob("*/*.yaml"), *(root / "results" / "published").glob("*")]
        for path in files:
            if "__pycache__" not in path.parts:
                build_data["force_include"][str(path)] = f"mosld_bench/_bundled/{path.relative_to(root)}"
