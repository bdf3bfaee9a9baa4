"""Who runs which trial: order, retries and workers that are replaced."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from mosld_bench.records.record import Outcome, Record
from mosld_bench.run import ray_executor as launch
from mosld_bench.spec.trial import Fit
from tests.support.runs import prepare, silent

pytestmark = pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::DeprecationWarning")


class Ray:
    """Answers at once: the n-th trial ends as ``script`` says, a record's status or an error of Ray."""

    class exceptions:  # noqa: N801
        class RayError(Exception):
            pass

    def __init__(self, script: list[str]) -> None:
        self.script, self.hired, self.killed, self.ran_on = iter(script), list[Any](), list[Any](), list[Any]()
        self.asked: dict[object, tuple[Any, Any]] = {}

    def remote(self, worker: type) -> Any:
        return self

    def options(self, **options: Any) -> Any:
        return SimpleNamespace(remote=lambda *around: self.hired.append(self._worker()) or self.hired[-1])

    def _worker(self) -> Any:
        worker = SimpleNamespace(progress=SimpleNamespace(remote=object))
        worker.run = SimpleNamespace(remote=lambda trial, fit: self._ask(worker, trial))
        return worker

    def _ask(self, worker: Any, trial: Any) -> object:
        answer = object()
        self.asked[answer] = worker, trial
        return answer

    def wait(self, asked: list[Any], num_returns: int, timeout: float) -> tuple[list[Any], list[Any]]:
        return [one for one in asked if one in self.asked][:num_returns], []

    def get(self, answer: object) -> Outcome:
        worker, trial = self.asked.pop(answer)
        self.ran_on.append(worker)
        status = next(self.script)
        if status == "died":
            raise self.exceptions.RayError(status)
        return Outcome(Record(trial=trial, trial_id=trial.id, status=status, size=Fit.model_construct()))

    def kill(self, worker: Any) -> None:
        self.killed.append(worker)


@pytest.mark.parametrize(
    ("device", "script", "workers"),
    [
        ("cpu", ["failed", "finished", "finished"], 1),
        ("cuda", ["failed", "finished", "finished"], 2),  # the device may be of no use to that process
        ("cpu", ["died", "finished", "finished", "finished"], 2),
        ("cuda", ["died", "died", "finished", "failed", "finished"], 4),
    ],
)
def test_a_worker_that_may_be_spent_is_replaced(tiny: Path, device: str, script: list[str], workers: int) -> None:
    _, jobs, around = prepare(tiny)
    ray = Ray(script)
    around = dataclasses.replace(around, device=device)
    outcomes = launch._drive(ray, jobs, around, {"num_cpus": 1}, 1, tiny / "results", silent(jobs), lambda: None)
    assert len(outcomes) == 3
    assert len(ray.hired) == workers
    assert ray.killed == ray.hired[: workers - 1]
    spent = [worker for worker, status in zip(ray.ran_on, script, strict=True) if status == "died"]
    assert all(worker in ray.killed for worker in spent)
