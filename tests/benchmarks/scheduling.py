"""Workers on Ray: how much of their time goes into trials, and how soon a warm one trains."""

from __future__ import annotations

import statistics
import time
from collections.abc import Iterator
from contextlib import closing
from math import inf
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from rich.console import Console

from mosld_bench.records.record import Record
from mosld_bench.records.store import Store
from mosld_bench.scheduling import ProgressDisplay, make_plan
from mosld_bench.scheduling.checks import local_gpus
from mosld_bench.scheduling.ray_cluster import Node, Room
from mosld_bench.scheduling.ray_executor import RayExecutor
from mosld_bench.scheduling.ray_liveness import Process
from mosld_bench.spec.study import Study
from mosld_bench.spec.workspace import Workspace
from mosld_bench.trial.device import cores
from mosld_bench.trial.session import WorkerConfig
from tests.benchmarks.side_by_side import Row, alone
from tests.conftest import REPOSITORY

#: Of the embedded default: enough that every worker has warm trials, little enough for several rounds.
SHORT: dict[str, Any] = {"recipes": ["lora", "mola", "mosld"], "seeds": [0, 1], "train.steps": 60}


def run(rounds: int, whole: bool = True) -> Iterator[Row]:
    """Figures of short runs; with ``whole``, of the embedded default too, once, as it takes minutes."""
    shares, loaded = [], []
    for _ in range(rounds):
        busy, warm, _ = _launched(SHORT)
        shares.append(busy)
        loaded += warm
    yield alone("scheduling", "a worker's second and later trials: start to first training step", loaded,
                wanted="<= 1", note=f"{len(loaded)} trials of {rounds} runs; spread over the trials")  # fmt: skip
    yield alone("scheduling", "busy share of the workers, 7 short trials", shares, unit="",
                note="the start of the workers is a large part of so short a run")  # fmt: skip
    if whole:
        busy, warm, trials = _launched({})
        yield alone(
            "scheduling", "busy share of the workers, embedded default", [busy], unit="", wanted=">= 0.85",
            note=f"one run of {trials} trials; warm ones train after {statistics.median(warm):.2f} s",
        )  # fmt: skip


class _Clock(ProgressDisplay):
    """Shows nothing; notes when Ray was up and when the last trial ended."""

    began = ended = 0.0

    def begin(self) -> None:
        """Ray is up and the first trial starts."""
        self.began = time.perf_counter()

    def finish(self, record: Record) -> None:
        """A trial has ended; the last call counts."""
        super().finish(record)
        self.ended = time.perf_counter()


def _launched(overrides: dict[str, Any]) -> tuple[float, list[float], int]:
    """(busy share of the workers since Ray is up, seconds until warm trials trained, trials)."""
    workspace = Workspace(REPOSITORY, REPOSITORY)
    plan = make_plan(Study.load(workspace.study_file("embedded"), overrides), workspace)
    config = WorkerConfig((str(workspace.tasks),), plan.study.resources)
    clock = _Clock(plan.hours(plan.planned), Console(quiet=True))
    records = []
    with TemporaryDirectory(prefix="mosld-scheduling-") as folder, closing(RayExecutor(config)) as executor:
        outcomes = executor.run(plan.longest_first(plan.planned), clock)
        clock.begin()
        for outcome in outcomes:
            Store(Path(folder)).write(outcome)
            clock.finish(outcome.record)
            records.append(outcome.record)
    if errors := [record.error for record in records if record.status == "failed"]:
        raise RuntimeError(str(errors[0]))
    here = [Node("here", Process("", 0), local_gpus(None), cores())]
    workers = Room.of(config.resources, here, gpus=inf, cpus=inf, trials=len(records)).workers(here)
    seconds = sum(float(record.meta_info["seconds"]) for record in records)
    busy = seconds / ((clock.ended - clock.began) * workers)
    return busy, _warm(records, workers), len(records)


def _warm(records: list[Record], workers: int) -> list[float]:
    """Seconds of loading of the trials that train, without each worker's first, which loads model and tasks."""
    trained = sorted(
        (record for record in records if record.train_info), key=lambda record: str(record.meta_info["started"])
    )
    return [float(record.meta_info["loading_seconds"]) for record in trained[workers:]]
