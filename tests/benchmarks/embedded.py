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
    """One row: the command's wall time at both revisions.

    A round takes minutes; ``extra`` are words that make the command shorter, to try the benchmark out.
    """
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
    yield faster(
        "embedded", command, against=f"revision {BEFORE}", ours=ours, other=other,
        note="wall time, from the command to the PDF",
    )  # fmt: skip


def _timed(checkout: Path, root: Path, extra: Sequence[str]) -> float:
    """Seconds of the command by ``checkout``'s code, with its declarations in a fresh ``root``.

    Raises RuntimeError where Python imports other code than that, or the command fails.
    """
    for name in ("methods", "tasks", "reports/embedded", "results/published"):
        shutil.copytree(checkout / name, root / name)
    environment = {**os.environ, "PYTHONPATH": str(checkout)}
    locate = [sys.executable, "-c", "import mosld_bench; print(mosld_bench.__file__)"]
    imported = subprocess.run(locate, cwd=root, env=environment, capture_output=True, text=True, check=True).stdout
    if not Path(imported).is_relative_to(checkout):
        raise RuntimeError(f"The code of {checkout} was to be measured, but {imported.strip()} is what Python imports.")
    started = time.perf_counter()
    done = subprocess.run(
        [sys.executable, "-m", "mosld_bench", *COMMAND, *extra, "--root", str(root)],
        cwd=root, capture_output=True, text=True, env=environment,
    )  # fmt: skip
    seconds = time.perf_counter() - started
    if done.returncode:
        raise RuntimeError(f"The command failed in {checkout}:\n{done.stdout[-2000:]}{done.stderr[-2000:]}")
    shutil.rmtree(root)
    return seconds


def _git(*words: str) -> None:
    subprocess.run(["git", "-C", str(REPOSITORY), *words], check=True, capture_output=True)
