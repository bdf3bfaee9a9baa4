"""Trials on a Ray cluster that was started elsewhere: two nodes on this machine, joined by their address."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import closing, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

import mosld_bench
from mosld_bench.errors import LostError, ResourceError
from mosld_bench.methods.builtin import PeftMethod
from mosld_bench.records.record import Outcome
from mosld_bench.scheduling import ray_executor
from mosld_bench.scheduling.executor import Unfit
from mosld_bench.scheduling.ray_executor import RayExecutor
from mosld_bench.spec.trial import Fit, Resources, Trial
from mosld_bench.trial.session import Progress, WorkerConfig
from tests.conftest import REPOSITORY
from tests.support import light_ray
from tests.support.runs import prepare, run_inline, silent, timeless

pytestmark = [
    pytest.mark.cluster,
    pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::DeprecationWarning", "ignore::FutureWarning"),
]

NODE = {"num_cpus": 1, "num_gpus": 0, "include_dashboard": False}
NOTES = "MOSLD_BENCH_TEST_NODES"  # names the folder where every node leaves a note


class Noting(PeftMethod):
    """LoRA; a node that trains it leaves a file with its id for a name, and in it where it found the package."""

    def before_step(self, model: torch.nn.Module) -> None:
        import ray

        if ray.is_initialized():
            node = ray.get_runtime_context().get_node_id()
            (Path(os.environ[NOTES]) / node).write_text(mosld_bench.__file__)


@pytest.fixture
def notes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder for the notes of nodes that start after this."""
    folder = tmp_path / "notes"
    folder.mkdir()
    monkeypatch.setenv(NOTES, str(folder))
    return folder


@pytest.fixture
def cluster(notes: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """Two nodes with a core each, whose workers import the package and the tests from here."""
    monkeypatch.setenv("PYTHONPATH", str(REPOSITORY))
    monkeypatch.setenv(light_ray.NOTES, str(notes))
    monkeypatch.setenv(light_ray.SECONDS, "3")
    monkeypatch.setenv("RAY_USAGE_STATS_ENABLED", "0")
    from ray.cluster_utils import Cluster

    before = signal.getsignal(signal.SIGTERM)
    cluster = Cluster()
    try:
        for _ in range(2):
            cluster.add_node(**NODE)
        yield cluster
    finally:
        cluster.shutdown()
        signal.signal(signal.SIGTERM, before)


@pytest.fixture
def address(cluster: Any) -> str:
    """Where the two nodes are to be joined."""
    return str(cluster.address)


class Watcher:
    """Keeps what it is told."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def show(self, progress: Progress) -> None:
        """Nothing."""

    def say(self, line: str) -> None:
        self.lines.append(line)


@pytest.mark.parametrize("graceful", [True, False])
def test_a_node_that_goes_costs_its_trial_alone_and_one_that_joins_is_used(
    cluster: Any, notes: Path, monkeypatch: pytest.MonkeyPatch, graceful: bool
) -> None:
    light_ray.sleeping(monkeypatch)
    planned, watcher = light_ray.planned(8), Watcher()
    config = WorkerConfig((), Resources())
    with closing(RayExecutor(config, address=cluster.address)) as executor:
        outcomes = executor.run(planned, watcher)
        ended = [next(outcomes)]
        (gone,) = cluster.worker_nodes
        cluster.remove_node(gone, allow_graceful=graceful)
        ended += [next(outcomes)]
        joined = cluster.add_node(**NODE)
        ended += outcomes
    assert sorted(outcome.record.trial_id for outcome in ended) == sorted(trial.id for trial, _ in planned)
    assert {outcome.record.status for outcome in ended} == {"finished"}
    begun = [line.split()[0] for note in notes.iterdir() for line in note.read_text().splitlines()]
    assert joined.node_id in begun
    assert len(begun) <= len(planned) + 1  # the one that it had begun, once more
    assert len(watcher.lines) == len(begun) - len(planned)


class Choosy(light_ray.Sleeper):
    """The first machine to begin notes itself in the file ``unfit``: it cannot run trials, or ``every`` one cannot."""

    def run(self, trial: Trial, fit: Fit) -> Outcome | Unfit:  # type: ignore[override]
        note = Path(os.environ[light_ray.NOTES]).parent / "unfit"
        with suppress(FileExistsError), note.open("x") as file:
            file.write(self.where())
        if note.read_text() in {self.where(), "every"}:
            return Unfit(self.where(), f"The machine {self.where()} lacks data.")
        return super().run(trial, fit)


def test_a_machine_that_cannot_run_trials_leaves_them_to_the_others(
    address: str, notes: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ray_executor, "RayWorker", Choosy)
    planned, watcher, config = light_ray.planned(3), Watcher(), WorkerConfig((), Resources())
    with closing(RayExecutor(config, address=address)) as executor:
        outcomes = list(executor.run(planned, watcher))
    assert sorted(outcome.record.trial_id for outcome in outcomes) == sorted(trial.id for trial, _ in planned)
    assert {outcome.record.status for outcome in outcomes} == {"finished"}
    unfit = (notes.parent / "unfit").read_text()
    assert watcher.lines == [f"The machine {unfit} lacks data. That machine gets no more trials."]
    assert unfit not in {note.read_text().split()[0] for note in notes.iterdir()}
    (notes.parent / "unfit").write_text("every")
    with closing(RayExecutor(config, address=address)) as executor, pytest.raises(LostError) as lost:
        list(executor.run(planned, watcher))
    assert str(lost.value).startswith("No machine is left that can run trials of this study. The machine ")
    assert len(watcher.lines) == 3


def test_a_trial_of_two_gpus_has_them_on_one_machine(
    cluster: Any, notes: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two machines of three GPUs each, as they tell Ray, have room for two such trials at a time and not for three."""
    monkeypatch.setenv(light_ray.SECONDS, "1")
    light_ray.sleeping(monkeypatch)
    with_gpus = [cluster.add_node(**NODE | {"num_gpus": 3}) for _ in range(2)]
    planned, config = light_ray.planned(4), WorkerConfig((), Resources(gpus_per_trial=2))
    with closing(RayExecutor(config, address=cluster.address)) as executor:
        outcomes = list(executor.run(planned, Watcher()))
        assert executor._pool is not None
        assert executor._pool.size == 2
    assert [outcome.record.status for outcome in outcomes] == ["finished"] * 4
    told = [line.split() for note in notes.iterdir() for line in note.read_text().splitlines()]
    assert {node for node, *_ in told} == {node.node_id for node in with_gpus}
    for _, _, gpus, devices in told:
        assert len(set(gpus.split(","))) == 2
        assert devices == "cuda:0,cuda:1"
    config = replace(config, resources=Resources(gpus_per_trial=4))
    refusal = pytest.raises(ResourceError, match=r"A trial takes 4 GPUs .*, and no machine has more than 3\.")
    with closing(RayExecutor(config, address=cluster.address)) as executor, refusal:
        executor.run(planned, Watcher())


def test_trials_run_on_both_nodes_and_give_what_they_give_in_this_process(
    tiny: Path, address: str, notes: Path
) -> None:
    recipe = (tiny / "methods" / "lora.yaml").read_text().replace("method: peft", f'method: "{__name__}:Noting"')
    (tiny / "methods" / "noting.yaml").write_text(recipe)
    _, planned, config = prepare(tiny, recipes=["noting"], frozen_base=False, seeds=[0, 1, 2, 3])
    with closing(RayExecutor(config, gpus=1, address=address)) as executor, pytest.raises(ResourceError) as refused:
        executor.run(planned, silent(planned))
    assert str(refused.value) == "--gpus 1 was asked for, but the Ray cluster has 0."
    with closing(RayExecutor(config, address=address)) as executor:
        outcomes = {outcome.record.trial_id: outcome for outcome in executor.run(planned, silent(planned))}
    assert {note.read_text() for note in notes.iterdir()} == {mosld_bench.__file__}
    assert len(list(notes.iterdir())) == 2
    assert len(outcomes) == 4
    for alone in run_inline(planned, config, tiny / "results"):
        outcome = outcomes[alone.record.trial_id]
        assert outcome.record.error is None
        assert timeless(outcome.record.model_dump(mode="json")) == timeless(alone.record.model_dump(mode="json"))
        assert outcome.items is not None
        assert alone.items is not None
        assert outcome.items.equals(alone.items)
        assert outcome.adapter is not None
        assert alone.adapter is not None
        assert outcome.adapter.keys() == alone.adapter.keys()
        weights = "adapter_model.safetensors"  # the configuration beside it lists sets in the order of a process
        assert outcome.adapter[weights] == alone.adapter[weights]
