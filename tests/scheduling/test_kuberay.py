"""`reports/kuberay.yaml`, as far as can be told without Kubernetes: its command runs, its volumes and roots fit."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Any

import yaml

from mosld_bench.scheduling import node_files
from tests.conftest import REPOSITORY, bench, declarations

JOB: dict[str, Any] = yaml.safe_load((REPOSITORY / "reports" / "kuberay.yaml").read_text(encoding="utf-8"))
CLUSTER = JOB["spec"]["rayClusterSpec"]
PODS = [group["template"]["spec"] for group in (CLUSTER["headGroupSpec"], *CLUSTER["workerGroupSpecs"])]


def test_its_command_is_one_of_this_package(tmp_path: Path) -> None:
    """With folders of this machine, and the plan in place of the run."""
    words = shlex.split(JOB["spec"]["entrypoint"])
    assert words[:2] == ["mosld-bench", "run"]
    assert words[words.index("--ray-address") + 1] == "auto"
    for folder in ("/workspace", "/models"):
        words = [word.replace(folder, str(tmp_path / folder[1:])) for word in words]
    declarations(tmp_path / "workspace")
    (tmp_path / "models").mkdir()
    done = bench(*words[1:], "--dry-run")
    assert done.returncode == 0, done.stderr
    assert "trials on HuggingFaceTB/SmolLM2-135M-Instruct" in done.stdout


def test_every_folder_that_it_names_is_mounted() -> None:
    words = shlex.split(JOB["spec"]["entrypoint"])
    named = {word for word in words if word.startswith("/")}
    for pod, folders in zip(PODS, (named, {"/models"}), strict=True):
        (container,) = pod["containers"]
        assert {mount["mountPath"] for mount in container["volumeMounts"]} == folders
        assert {mount["name"] for mount in container["volumeMounts"]} == {volume["name"] for volume in pod["volumes"]}


def test_workers_have_the_gpus_and_the_head_runs_no_trial() -> None:
    head, worker = (pod["containers"][0] for pod in PODS)
    assert CLUSTER["headGroupSpec"]["rayStartParams"]["num-cpus"] == "0"
    assert "nvidia.com/gpu" not in head["resources"]["limits"]
    assert int(worker["resources"]["limits"]["nvidia.com/gpu"]) > 0
    names = {variable["name"] for variable in worker["env"]}
    assert {node_files.MODEL_ROOT, node_files.DATA_ROOT} <= names
