"""A plug-in as `pip install` leaves it, without pip: the package that `methods new` writes, and its entry points."""

from __future__ import annotations

import tomllib
from pathlib import Path

from mosld_bench.methods.scaffold import write_package


def installed(name: str, site: Path, kind: str = "module") -> Path:
    """A folder for PYTHONPATH below ``site`` with the new package of the method ``name``, installed."""
    write_package(name, site, kind=kind)
    root = site / name
    project = tomllib.loads((root / "pyproject.toml").read_text())["project"]
    info = root / f"{project['name'].replace('-', '_')}-{project['version']}.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {project['name']}\nVersion: {project['version']}\n")
    (info / "top_level.txt").write_text(name.replace("-", "_") + "\n")
    ((group, entries),) = project["entry-points"].items()
    lines = [f"{entry} = {value}" for entry, value in entries.items()]
    (info / "entry_points.txt").write_text("\n".join([f"[{group}]", *lines]) + "\n")
    return root
