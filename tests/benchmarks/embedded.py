"""The whole of the embedded default by the command line, against this repository at an earlier revision."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

from tests.benchmarks.side_by_side import Row, faster
from tests.conftest import REPOSITORY

BEFORE = "256cec3"  # before anything was made faster
COMMAND = ("run", "--methods", "all")


def run(rounds: int, extra: Sequence[str] = ()) -> Iterator[Row]:
    """``extra``: words that make the command shorter, to try this out. A round takes minutes."""
    with TemporaryDirectory(prefix="mosld-embedded-") as folder:
        before = Path(folder) / "before"
        _git("worktree", "add", "--detach", str(before), BEFORE)
        try:
            ours, other = [], []
            for turn in range(rounds):
                ours.append(_timed(REPOSITORY, Path(folder) / f"ours-{turn}", extra))
                other.append(_timed(before, Path(folder) / f"before-{turn}", extra))
        finally:
            _git("worktree", "remove", "--force", str(before))
    command = " ".join(("mosld-bench", *COMMAND, *extra))
    yield faster("embedded", command, f"revision {BEFORE}", ours, other,
                 note="wall time, from the command to the PDF")  # fmt: skip


def _timed(checkout: Path, root: Path, extra: Sequence[str]) -> float:
    """Seconds of the command by ``checkout``'s code, with its declarations in a fresh ``root``."""
    for name in ("methods", "tasks", "reports/embedded", "results/published"):
        shutil.copytree(checkout / name, root / name)
    own = {**os.environ, "PYTHONPATH": str(checkout)}
    asked = [sys.executable, "-c", "import mosld_bench; print(mosld_bench.__file__)"]
    found = subprocess.run(asked, cwd=root, env=own, capture_output=True, text=True, check=True).stdout
    if not Path(found).is_relative_to(checkout):
        raise RuntimeError(f"The code of {checkout} was to be measured, but {found.strip()} is what Python finds.")
    started = time.perf_counter()
    done = subprocess.run(
        [sys.executable, "-m", "mosld_bench", *COMMAND, *extra, "--root", str(root)],
        cwd=root, capture_output=True, text=True, env=own,
    )  # fmt: skip
    seconds = time.perf_counter() - started
    if done.returncode:
        raise RuntimeError(f"The command failed in {checkout}:\n{done.stdout[-2000:]}{done.stderr[-2000:]}")
    shutil.rmtree(root)
    return seconds


def _git(*words: str) -> None:
    subprocess.run(["git", "-C", str(REPOSITORY), *words], check=True, capture_output=True)
