"""Processes of a run killed at random moments, and what that has cost.

``python -m tests.support.kills 40`` breaks so many runs of a tiny study on purpose and prints a line for each.
"""

from __future__ import annotations

import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mosld_bench.records.store import Store
from tests.conftest import REPOSITORY
from tests.support.runs import timeless

STUDY = "tiny"
#: Whom a kill is of, by how the name of its process begins.
VICTIMS = {"driver": "", "worker": "ray::RayWorker", "head": "gcs_server", "raylet": "raylet"}
_END_SECONDS = 900.0
_LEAVE_SECONDS = 60.0


@dataclass(frozen=True)
class Kill:
    """One run that was broken, and the same command after it."""

    victim: str
    seconds: float
    """After its start."""
    code: int
    """With which the broken run ended."""
    ended_seconds: float
    """From the kill to the end of the run."""
    recorded: int
    """Trials with a record after the broken run."""
    problems: tuple[str, ...]
    """What was lost, ran again, differs or was left behind."""


class Runs:
    """Runs of one study in copies of a workspace, with a folder of temporary files of their own. To be closed."""

    def __init__(self, template: Path, words: Sequence[str]) -> None:
        """``template``: a workspace; ``words``: of the command line."""
        self._template, self._words = template, words
        self._place = Path(tempfile.mkdtemp(prefix="k", dir="/tmp"))  # short, for the sockets of Ray
        self._root, self._temp = self._place / "root", self._place / "t"
        start = time.monotonic()
        self._fresh()
        driver = self._start()
        try:
            code = driver.wait(_END_SECONDS)
        finally:
            driver.kill()
        self.seconds = time.monotonic() - start
        self._whole = self._content()
        if code or not self._whole:
            raise RuntimeError((self._place / "log").read_text())

    def close(self) -> None:
        """Remove all that is left."""
        shutil.rmtree(self._place)

    def kill(self, victim: str, seconds: float) -> Kill:
        """Kill ``victim`` so many seconds after the start of a run, and let the same command finish it."""
        self._fresh()
        driver = self._start()
        start = time.monotonic()
        with suppress(subprocess.TimeoutExpired):
            driver.wait(seconds)
        with suppress(ProcessLookupError):
            os.kill(process_of(victim, driver.pid), signal.SIGKILL)
        killed = time.monotonic()
        try:
            code = driver.wait(_END_SECONDS)
        except subprocess.TimeoutExpired:
            driver.kill()
            code = driver.wait()
        ended, problems = time.monotonic(), list[str]()
        if ended - killed > _END_SECONDS:
            problems.append("the run hung")
        before = self._records()
        if code not in {0, 1, 2, -signal.SIGKILL}:
            problems.append(f"the run ended with {code}")
        if code in {1, 2} and "Traceback" in (self._place / "log").read_text():
            problems.append("the run ended with a traceback")
        if self._start().wait(_END_SECONDS):
            problems.append(f"the same command did not finish it: {(self._place / 'log').read_text()}")
        after = self._records()
        problems += [f"{name} was lost" for name in self._whole.keys() - after.keys()]
        problems += [f"{name} ran again" for name in before if after.get(name) != before[name]]
        problems += [f"{name} differs" for name, content in self._content().items() if content != self._whole[name]]
        problems += [f"{left} was left behind" for left in self._left()]
        return Kill(victim, killed - start, code, ended - killed, len(before), tuple(problems))

    def _fresh(self) -> None:
        for folder in (self._root, self._temp):
            shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(self._template, self._root)
        self._temp.mkdir()

    def _start(self) -> subprocess.Popen[bytes]:
        with (self._place / "log").open("wb") as log:
            return subprocess.Popen(
                [sys.executable, "-m", "mosld_bench", "run", STUDY, *self._words, "--root", str(self._root)],
                stdout=log, stderr=log, env={**os.environ, "TMPDIR": str(self._temp), "PYTHONPATH": str(REPOSITORY)},
            )  # fmt: skip

    def _records(self) -> dict[str, bytes]:
        paths = (self._root / "results" / STUDY).glob("*/record.json")
        return {path.parent.name: path.read_bytes() for path in paths}

    def _content(self) -> dict[str, Any]:
        """Trial -> its numbers and those of its items; what time they took, and the commit, are left out."""
        store = Store(self._root / "results")
        content = {}
        for record in store.records(STUDY):
            items = store.items(record.trial)
            content_of = record.model_dump(mode="json")
            content_of["meta_info"] = {k: v for k, v in content_of["meta_info"].items() if k not in {"commit", "dirty"}}
            numbers = timeless(content_of)
            content[record.trial_id] = (numbers, None if items is None else items.to_json(double_precision=15))
        return content

    def _left(self) -> list[str]:
        """Files aside, folders and processes that are there a while after the end."""
        end = time.monotonic() + _LEAVE_SECONDS
        while (
            left := [*self._aside(), *map(str, self._temp.glob("mosld-*")), *working_in(self._place)]
        ) and time.monotonic() < end:
            time.sleep(1)
        return left

    def _aside(self) -> list[str]:
        folders = (self._root / "results", self._root / "reports")
        return [str(path) for folder in folders for path in folder.rglob(".*")]


def working_in(place: Path) -> Iterator[str]:
    """Processes with an open file, or their current folder, below ``place``: their numbers and names."""
    for process in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            links = [process / "cwd", *(process / "fd").iterdir()]
            if any(str(link.readlink()).startswith(f"{place}{os.sep}") for link in links):
                yield f"process {process.name} ({(process / 'comm').read_text().strip()})"


def process_of(victim: str, driver: int) -> int:
    """The process of a victim among those that ``driver`` has started; the driver itself where there is none yet."""
    parents, names = dict[int, int](), dict[int, str]()
    for folder in Path("/proc").glob("[0-9]*"):
        with suppress(OSError, IndexError):
            number = int(folder.name)
            parents[number] = int((folder / "stat").read_text().rpartition(")")[2].split()[1])
            words = (folder / "cmdline").read_bytes().split(b"\0")
            names[number] = Path(words[0].decode(errors="replace")).name
    for number, name in names.items():
        above = number
        while above and above != driver:
            above = parents.get(above, 0)
        if above and VICTIMS[victim] and name.startswith(VICTIMS[victim]):
            return number
    return driver


def moments(count: int, seed: int, seconds: float) -> Iterator[tuple[str, float]]:
    """Whom to kill, and when within ``seconds``: every victim as often as the others, at random moments."""
    draw = random.Random(seed)
    for number in range(count):
        yield list(VICTIMS)[number % len(VICTIMS)], draw.uniform(0, seconds)


def main(template: Path, count: int, seed: int) -> None:
    """Break ``count`` runs in copies of ``template`` and print what came of each."""
    with closing(Runs(template, ("--methods", "lora", "--seeds", "0,1,2", "--cpus", "1"))) as runs:
        print(f"undisturbed: {runs.seconds:.0f} s", flush=True)
        for victim, seconds in moments(count, seed, runs.seconds):
            print(runs.kill(victim, seconds), flush=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]) if len(sys.argv) > 3 else 0)
