"""`reports/slurm.sh` as Slurm would start it: a batch script on the first node, with `srun` for the others.

Slurm is played by scripts on PATH: `scontrol` names the nodes, `srun` starts the command as often as it has tasks, on
this machine, and `hostname` gives its loopback address where it is asked for all. Ray and the study are real.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.conftest import REPOSITORY

pytestmark = pytest.mark.cluster

SCRIPT = REPOSITORY / "reports" / "slurm.sh"

SRUN = """#!/bin/bash
echo "srun $*" >> "$SLURM_NOTES"
tasks=1
while [[ $1 == --* ]]; do [[ $1 == --ntasks=* ]] && tasks=${1#*=}; shift; done
trap 'kill -TERM "${pids[@]}"; wait' TERM
for _ in $(seq "$tasks"); do "$@" & pids+=($!); done
wait
"""


def slurm(tmp_path: Path, *, nodes: int, cores: int) -> dict[str, str]:
    """The environment of a job of ``nodes`` nodes with ``cores`` each; what was asked of Slurm is noted in a file."""
    commands = {
        "scontrol": f"printf '%s\\n' {' '.join(f'node{i}' for i in range(nodes))}",
        "hostname": 'if [ $# = 0 ]; then echo node0; else echo "fe80::1 127.0.0.1 10.0.0.1"; fi',
        "getent": "echo 127.0.1.1 STREAM node0; echo 127.0.1.1 DGRAM",
        "mosld-bench": f'exec "{sys.executable}" -m mosld_bench "$@"',
        "python": f'exec "{sys.executable}" "$@"',
        "ray": f'exec "{Path(sys.executable).with_name("ray")}" "$@"',
    }
    folder = tmp_path / "bin"
    folder.mkdir()
    for name, command in commands.items():
        (folder / name).write_text(f"#!/bin/bash\n{command}\n")
    (folder / "srun").write_text(SRUN)
    for file in folder.iterdir():
        file.chmod(0o755)
    job = {
        "SLURM_JOB_ID": str(os.getpid()),
        "SLURM_JOB_NODELIST": f"node[0-{nodes - 1}]",
        "SLURM_JOB_NUM_NODES": str(nodes),
        "SLURM_CPUS_ON_NODE": str(cores),
        "SLURM_NOTES": str(tmp_path / "notes"),
    }
    return {**os.environ, **job, "PATH": f"{folder}:{os.environ['PATH']}", "PYTHONPATH": str(REPOSITORY)}


def left_behind(job: str) -> list[str]:
    """The command lines of Ray's processes that belong to the cluster of a job."""
    port = str(20000 + int(job) % 10000)
    listing = subprocess.run(["ps", "-eo", "args", "ww"], capture_output=True, text=True, check=True).stdout
    return [line for line in listing.splitlines() if f"127.0.0.1:{port}" in line or f"--port={port}" in line]


@pytest.mark.skipif(not shutil.which("bash"), reason="the script is one of bash")
def test_a_study_runs_on_the_nodes_of_a_job_and_leaves_nothing_behind(tiny: Path, tmp_path: Path) -> None:
    environment = slurm(tmp_path, nodes=2, cores=1)  # a third would race the second for ports of this machine
    options = ["tiny", "--root", str(tiny), "--methods", "lora", "--seeds", "0,1,2"]
    done = subprocess.run(
        [SCRIPT, *options], cwd=tiny, env=environment, capture_output=True, text=True, timeout=500, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    records = [json.loads(path.read_text()) for path in tiny.glob("results/tiny/*/record.json")]
    assert {record["status"] for record in records} == {"finished"}
    assert len([record for record in records if record["train_info"]]) == 3
    assert (tiny / "reports" / "tiny" / "report.pdf").is_file()
    (asked,) = (tmp_path / "notes").read_text().splitlines()
    assert "--nodes=1 --ntasks=1 --exclude=node0 --cpus-per-task=1 ray start --address=127.0.0.1:" in asked
    assert not left_behind(environment["SLURM_JOB_ID"])


@pytest.mark.skipif(not shutil.which("bash"), reason="the script is one of bash")
def test_the_end_of_a_job_keeps_what_is_finished(tiny: Path, tmp_path: Path) -> None:
    """Slurm sends TERM two minutes before the time is over: the run ends as by Ctrl-C, and the cluster with it."""
    environment = slurm(tmp_path, nodes=1, cores=2)
    options = ["tiny", "--root", str(tiny), "--methods", "lora", "--seeds", "0", "--steps", "100000"]
    process = subprocess.Popen([SCRIPT, *options], cwd=tiny, env=environment, stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 300
    while not list(tiny.glob("results/tiny/*/record.json")) and time.monotonic() < deadline:  # of the frozen base
        time.sleep(0.5)
    process.send_signal(signal.SIGTERM)
    _, errors = process.communicate(timeout=100)
    assert process.returncode > 0
    assert "the same command runs the rest" in errors
    assert len(list(tiny.glob("results/tiny/*/record.json"))) == 1
    assert not left_behind(environment["SLURM_JOB_ID"])


def test_outside_of_a_job_a_sentence_says_how_to_start_it(tmp_path: Path) -> None:
    environment = {key: value for key, value in os.environ.items() if not key.startswith("SLURM")}
    done = subprocess.run([SCRIPT], cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode != 0
    assert "start this script by sbatch" in done.stderr
