"""A machine of a cluster that does not see the driver's files: a node of Ray from which a mount hides them."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from mosld_bench.records.record import Record
from mosld_bench.scheduling import make_plan
from mosld_bench.scheduling.node_files import MODEL_ROOT
from mosld_bench.scheduling.ray_executor import RayExecutor
from mosld_bench.spec.study import Study
from mosld_bench.spec.workspace import Workspace
from mosld_bench.trial.session import WorkerConfig
from tests.conftest import REPOSITORY
from tests.support.runs import run_inline, silent, timeless

pytestmark = [
    pytest.mark.cluster,
    pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::DeprecationWarning", "ignore::FutureWarning"),
]

#: In a namespace of its own: the folder of the workspace is empty, and a copy of its model lies elsewhere.
NODE = """mount -t tmpfs tmpfs {root} && cd / && exec {python} -m ray.scripts.scripts start --address={address} \
--num-cpus=1 --num-gpus=0 --block"""


def node(root: Path, address: str, **env: str) -> subprocess.Popen[bytes]:
    script = NODE.format(root=root, python=sys.executable, address=address)
    return subprocess.Popen(
        ["unshare", "--user", "--map-root-user", "--mount", "sh", "-c", script],
        env={**os.environ, "PYTHONPATH": str(REPOSITORY), "RAY_USAGE_STATS_ENABLED": "0", **env},
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True,
    )  # fmt: skip


@pytest.fixture
def elsewhere(tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The address of a cluster whose only cores are on a node that has the model, and nothing else of the workspace."""
    hidden = ["unshare", "--user", "--map-root-user", "--mount", "mount", "-t", "tmpfs", "tmpfs", str(tiny)]
    if shutil.which("unshare") is None or subprocess.run(hidden, capture_output=True, check=False).returncode:
        pytest.skip("this system lets nobody mount a disk of his own")
    monkeypatch.setenv("PYTHONPATH", str(REPOSITORY))
    monkeypatch.setenv("RAY_USAGE_STATS_ENABLED", "0")
    from ray.cluster_utils import Cluster

    before = signal.getsignal(signal.SIGTERM)
    (tmp_path / "models" / "own").mkdir(parents=True)
    shutil.copytree(tiny / "model", tmp_path / "models" / "own" / "model")
    cluster = Cluster()
    process = None
    try:
        cluster.add_node(num_cpus=0, num_gpus=0, include_dashboard=False)
        process = node(tiny, cluster.address, **{MODEL_ROOT: str(tmp_path / "models")})
        yield str(cluster.address)
    finally:
        if process is not None:
            os.killpg(process.pid, signal.SIGTERM)
            process.wait(timeout=30)
        cluster.shutdown()
        signal.signal(signal.SIGTERM, before)


def _of_no_commit(record: Record) -> object:
    """The record without its times, and without the state of the checkout, which may change in mid-test."""
    content = record.model_dump(mode="json")
    content["meta_info"] = {k: v for k, v in content["meta_info"].items() if k not in {"commit", "dirty"}}
    return timeless(content)


def test_trials_on_a_machine_without_the_files_give_what_they_give_here(
    elsewhere: str, tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Tasks and their data are sent; the model is found in the folder that the machine itself names."""
    (tiny / "models" / "own").mkdir(parents=True)
    shutil.move(tiny / "model", tiny / "models" / "own" / "model")
    monkeypatch.chdir(tiny)
    workspace, overrides = Workspace(tiny, tiny), {"recipes": ["lora"], "seeds": [0], "model": {"name": "own/model"}}
    study = Study.load(workspace.study_file("tiny"), overrides)
    planned = make_plan(study, workspace, model_root=tiny / "models").planned
    config = WorkerConfig((str(workspace.tasks),), study.resources, model_root=str(tiny / "models"))
    with closing(RayExecutor(config, address=elsewhere)) as executor:
        outcomes = {outcome.record.trial_id: outcome for outcome in executor.run(planned, silent(planned))}
    assert len(outcomes) == len(planned)
    for alone in run_inline(planned, config, tmp_path / "results"):
        outcome = outcomes[alone.record.trial_id]
        assert outcome.record.error is None
        assert _of_no_commit(outcome.record) == _of_no_commit(alone.record)
        assert outcome.items is not None
        assert alone.items is not None
        assert outcome.items.equals(alone.items)
