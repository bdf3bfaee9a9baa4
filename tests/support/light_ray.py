"""Trials on a real Ray without a model: a worker that sleeps, so that what is tested is Ray and costs little."""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path
from typing import Any

from mosld_bench.records.record import Outcome, Record
from mosld_bench.scheduling import ray_executor
from mosld_bench.scheduling.ray_executor import RayExecutor
from mosld_bench.spec.trial import Fit, PlannedTrial, Trial
from mosld_bench.trial.session import Progress, WorkerConfig

SECONDS = "MOSLD_BENCH_TEST_SECONDS"  # names how long a trial takes
NOTES = "MOSLD_BENCH_TEST_NOTES"  # names the folder in which a trial that begins notes its node


class Sleeper:
    """In place of `ray_executor.RayWorker`."""

    def __init__(self, config: WorkerConfig, threads: int, sent: object = None) -> None:
        self._trial, self._devices = "", config.devices

    def run(self, trial: Trial, fit: Fit) -> Outcome:
        self._trial = trial.id
        with Path(os.environ[NOTES], trial.id).open("a", encoding="utf-8") as file:
            gpus = os.environ.get("CUDA_VISIBLE_DEVICES") or "-"
            file.write(f"{self.where()} {os.getpid()} {gpus} {','.join(self._devices)}\n")
        time.sleep(float(os.environ[SECONDS]))
        return Outcome(Record.model_validate({"trial": trial, "trial_id": trial.id, "status": "finished"}))

    def where(self) -> str:
        import ray

        return str(ray.get_runtime_context().get_node_id())

    def progress(self) -> Progress | None:
        return Progress(self._trial, "training") if self._trial else None


class Teller:
    """A watcher that prints."""

    def show(self, progress: Progress) -> None:
        """Nothing."""

    def say(self, line: str) -> None:
        print("said", line, flush=True)


def sleeping(monkeypatch: Any = None) -> None:
    """Have workers sleep from now on."""
    if monkeypatch is None:
        ray_executor.RayWorker = Sleeper  # type: ignore[misc, assignment]
    else:
        monkeypatch.setattr(ray_executor, "RayWorker", Sleeper)


def planned(count: int) -> list[PlannedTrial]:
    """Trials that differ by their seed."""
    from tests.support.synthetic import RECIPES, make_study, make_trials

    fit = Fit(target=None, trainable=1, total=2, residual=None, params={})
    study = make_study(seeds=tuple(range(count)))
    return [PlannedTrial(trial, fit) for trial in make_trials(study, [RECIPES["lora"]])]


def main(count: int, cpus: int, address: str | None) -> None:
    """Run trials, and print how each ended; what ends the run is printed as well."""
    from contextlib import closing

    from mosld_bench.errors import LostError
    from mosld_bench.spec.trial import Resources

    sleeping()
    config = WorkerConfig(task_folders=(), resources=Resources())
    try:
        with closing(RayExecutor(config, cpus=cpus or None, address=address)) as executor:
            outcomes = executor.run(planned(count), Teller())
            print("up", flush=True)
            for outcome in outcomes:
                print("ended", outcome.record.trial_id, outcome.record.status, flush=True)
    except LostError as error:
        print(f"lost: {error}", flush=True)
        sys.exit(error.exit_code)


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]), sys.argv[3] if len(sys.argv) > 3 else None)
