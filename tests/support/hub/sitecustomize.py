"""A stand-in for the hub: in a process with this folder on PYTHONPATH, no download leaves the machine.

What the hub serves lies below $STAND_IN_HUB, as models/ORGANISATION/NAME and datasets/ORGANISATION/NAME.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Sequence
from fnmatch import fnmatch
from pathlib import Path

import huggingface_hub


def snapshot_download(
    repo_id: str,
    *,
    local_dir: str | Path,
    allow_patterns: Sequence[str],
    ignore_patterns: Sequence[str] = (),
    repo_type: str = "model",
    revision: str | None = None,
    dry_run: bool = False,
) -> str:
    """Copy the files of a repository that match, at whatever revision, into ``local_dir``; its path."""
    repository = Path(os.environ["STAND_IN_HUB"]) / f"{repo_type}s" / repo_id
    if not repository.is_dir():
        raise ConnectionError(f"the stand-in for the hub has no {repo_type} {repo_id}")
    for path in repository.rglob("*"):
        name = path.relative_to(repository).as_posix()
        wanted = any(fnmatch(name, pattern) for pattern in allow_patterns)
        if path.is_file() and wanted and not any(fnmatch(name, pattern) for pattern in ignore_patterns) and not dry_run:
            (Path(local_dir) / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(path, Path(local_dir) / name)
    return str(local_dir)


huggingface_hub.snapshot_download = snapshot_download  # type: ignore[assignment]
