"""Workers on Ray: how much of their time goes into trials, and how soon a warm one trains."""

from __future__ import annotations

import statistics
import time
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from rich.console import Console

from mosld_bench.records.record import Record
from mosld_bench.run import plan as planning
from mosld_bench.run import ray_executor as launch
from mosld_bench.run.progress import ProgressDisplay
from mosld_bench.spec.study import Study
from mosld_bench.spec.workspace import Workspace
from mosld_bench.trial import device as meters
from mosld_bench.trial.session import WorkerConfig
from tests.benchmarks.side_by_side import Row, alone
from tests.conftest import REPOSITORY

#: Of the embedded default: enough that every worker has warm trials, little enough for several rounds.
SHORT: dict[str, Any] = {"recipes": ["lora", "mola", "mosld"], "seeds": [0, 1], "train.steps": 60}


def run(rounds: int, whole: bool = True) -> Iterator[Row]:
    """``whole``: the embedded default too, once, as it takes minutes."""
    shares, loaded = [], []
    for _ in range(rounds):
        busy, warm, _ = _launched(SHORT)
        shares.append(busy)
        loaded += warm
    yield alone("scheduling", "a worker's second and later trials: start to first training step", loaded, "s", "<= 1",
                f"{len(loaded)} trials of {rounds} runs; spread over the trials")  # fmt: skip
    yield alone("scheduling", "busy share of the workers, 7 short trials", shares, "",
                note="the start of the workers is a large part of so short a run")  # fmt: skip
    if whole:
        busy, warm, trials = _launched({})
        yield alone("scheduling", "busy share of the workers, embedded default", [busy], "", ">= 0.85",
                    f"one run of {trials} trials; warm ones train after {statistics.median(warm):.2f} s")  # fmt: skip


class _Clock(ProgressDisplay):
    """Shows nothing; notes when Ray was up and when the last trial ended."""

    began = ended = 0.0

    def begin(self) -> None:
        self.began = time.perf_counter()

    def finish(self, record: Record) -> None:
        super().finish(record)
        self.ended = time.perf_counter()


def _launched(overrides: dict[str, Any]) -> tuple[float, list[float], int]:
    """(busy share of the workers since Ray is up, seconds until warm trials trained, trials)."""
    workspace = Workspace(REPOSITORY, REPOSITORY)
    plan = planning.make(Study.load(workspace.study_file("embedded"), overrides), workspace)
    around = WorkerConfig((str(workspace.tasks),), plan.study.resources)
    clock = _Clock(plan.hours(plan.jobs), Console(quiet=True))
    jobs, pool = plan.longest_first(plan.jobs), launch.Pool()
    with TemporaryDirectory(prefix="mosld-scheduling-") as folder:
        outcomes = launch.launch(jobs, around, pool, Path(folder), clock, begin=clock.begin)
    records = [outcome.record for outcome in outcomes]
    if errors := [one.error for one in records if one.status == "failed"]:
        raise RuntimeError(str(errors[0]))
    workers = launch.slots_of(launch.check_gpus(None), meters.cores(), pool, len(jobs))
    seconds = sum(float(one.meta_info["seconds"]) for one in records)
    busy = seconds / ((clock.ended - clock.began) * workers)
    return busy, _warm(records, workers), len(records)


def _warm(records: list[Record], workers: int) -> list[float]:
    """Of the trials that train, all but the first of every worker: these load the model and the tasks."""
    trained = [one for one in records if one.train_info]
    trained.sort(key=lambda one: str(one.meta_info["started"]))
    return [float(one.meta_info["loading_seconds"]) for one in trained[workers:]]
