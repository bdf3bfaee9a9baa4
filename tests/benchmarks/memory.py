"""Memory: of one step of a layer, and of whole trials of SmolLM2-135M in a process of their own."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Iterator

import torch

from mosld_bench.scheduling import make_plan
from mosld_bench.spec.study import Study
from mosld_bench.spec.workspace import Workspace
from mosld_bench.trial.device import resident
from mosld_bench.trial.execute import execute
from mosld_bench.trial.session import Session, WorkerConfig
from tests.benchmarks import real
from tests.benchmarks.side_by_side import Row, alone
from tests.conftest import REPOSITORY

RECIPES = ("lora", "mola", "mosld", "full")
TRIALS = 3  # of a process, one after another


def run(rounds: int) -> Iterator[Row]:
    """The resident memory of each recipe's trials; the trials of a process stand in for ``rounds``."""
    for recipe in RECIPES:
        child = subprocess.run(
            [sys.executable, "-m", "tests.benchmarks.memory", recipe],
            cwd=REPOSITORY, check=True, capture_output=True, text=True,
        )  # fmt: skip
        measured = json.loads(child.stdout.splitlines()[-1])
        yield alone(
            "memory", f"SmolLM2-135M, {recipe}: batch 8 of 256 tokens, float32; a trial's largest resident memory",
            [peak / 1e9 for peak in measured["peaks"]], unit="GB", wanted="<= 3",
            note=f"{TRIALS} trials in one process; "
                 f"between them {', '.join(f'{n / 1e9:.2f}' for n in measured['rests'])} GB",
        )  # fmt: skip


def trials(recipe: str) -> None:
    """Run trials of the study `smollm2` on stories longer than the cut-off.

    Prints JSON: the peak resident memory of each trial and what remains resident after it, in bytes.
    """
    real.threads()
    workspace = Workspace.find(REPOSITORY)
    changes = {
        "recipes": [recipe], "in_domain": ["mctest", "commonsense_qa"], "out_of_domain": [],
        "train.steps": 2, "train.dtype": "float32", "train.max_length": 256, "train.validation_items": 8,
        "evaluate.limit": 10, "seeds": list(range(TRIALS)),
    }  # fmt: skip
    plan = make_plan(Study.load(workspace.study_file("smollm2"), changes), workspace)
    session = Session(WorkerConfig((str(workspace.tasks),), plan.study.resources, str(real.data_root())))
    peaks, rests = [], []
    for trial, fit in plan.planned:
        if not trial.train_on:
            continue
        record = execute(trial, session, fit).record
        assert record.status == "finished", record.error
        peaks.append(record.peak_memory_bytes)
        rests.append(resident())
    print(json.dumps({"peaks": peaks, "rests": rests}))


def peak(work: Callable[[], object]) -> int:
    """The most bytes of tensors that ``work`` held at once beyond those there before it, by torch's profiler."""
    work()  # gradients and kernels' own buffers are there from now on
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True) as profiled:
        work()
    events = [event for event in profiled.profiler.kineto_results.events() if event.name() == "[memory]"]
    now = most = 0
    for event in sorted(events, key=lambda event: event.start_ns()):
        now += event.nbytes()
        most = max(most, now)
    return most


if __name__ == "__main__":
    trials(sys.argv[1])
