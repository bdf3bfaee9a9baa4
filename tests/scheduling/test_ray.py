"""Trials on Ray, on this machine."""

from __future__ import annotations

import fcntl
import os
import pty
import re
import shlex
import shutil
import signal
import subprocess
import sys
import termios
import time
from pathlib import Path

import pandas as pd
import pytest
from pypdf import PdfReader

from mosld_bench.errors import ResourceError
from mosld_bench.records.frame import load
from mosld_bench.scheduling.checks import local_gpus
from tests.conftest import REPOSITORY, bench
from tests.support.runs import prepare, run_inline

pytestmark = pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::DeprecationWarning")


@pytest.mark.parametrize("number", [signal.SIGTERM, pytest.param(signal.SIGHUP, marks=pytest.mark.slow)])
def test_the_end_of_a_clusters_job_is_an_interruption(number: signal.Signals, tiny: Path) -> None:
    """SIGTERM, as a scheduler sends it at a job's time limit, ends in the sentence of Ctrl-C and not in a trace."""
    words = ["run", "tiny", "--methods", "lora", "--root", str(tiny), "--cpus", "1"]
    long = subprocess.Popen(
        [sys.executable, "-m", "mosld_bench", *words, "--set", "train.steps=1000000"],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=tiny,
    )  # fmt: skip
    assert long.stdout is not None
    for line in long.stdout:
        if re.search(r"lora-mixture-\S+: training", line):
            break
    long.send_signal(number)
    out, err = long.communicate(timeout=60)
    assert long.returncode == 130
    first, _, command = err.strip().splitlines()
    assert first == "mosld-bench: interrupted; finished trials are kept, the same command runs the rest:"
    assert shlex.split(command)[1:] == ["-m", "mosld_bench", *words, "--set", "train.steps=1000000"]
    assert "report:" not in out


@pytest.mark.slow
@pytest.mark.parametrize("way", ["closed", "Ctrl-C twice"])
def test_a_terminal_that_is_closed_leaves_nothing_behind(
    way: str, tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither a process nor a folder; nor does one where Ctrl-C is pressed again before the first has ended it."""
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    driver, terminal = pty.openpty()
    words = ["run", "tiny", "--methods", "lora", "--seeds", "0,1", "--root", str(tiny), "--cpus", "1"]
    command = [sys.executable, "-m", "mosld_bench", *words, "--set", "train.steps=1000000"]
    long = subprocess.Popen(
        command, stdin=terminal, stdout=terminal, stderr=terminal, cwd=tiny, start_new_session=True,
        preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),  # its own terminal
    )  # fmt: skip
    os.close(terminal)
    seen = ""
    while "training" not in seen:
        seen += os.read(driver, 4096).decode(errors="replace")
    if way == "closed":
        os.close(driver)
    else:
        os.write(driver, b"\x03")
        time.sleep(0.2)
        os.write(driver, b"\x03")
    assert long.wait(timeout=60) == 130
    assert [path for path in tmp_path.iterdir() if path.name.startswith("mosld-")] == []
    left = subprocess.run(["pgrep", "-f", str(tmp_path)], capture_output=True, text=True, check=False).stdout.split()
    assert left == []


@pytest.mark.slow
def test_a_search_on_two_workers_comes_to_what_one_comes_to(tiny: Path) -> None:
    """Which worker is faster decides nothing; one that was broken off with one trial to go has two workers after it."""
    words = ("tune", "tiny", "--methods", "lora", "--root", str(tiny))
    found, results = tiny / "reports" / "tiny" / "tuning.yaml", tiny / "results" / "tiny-tuning"
    alone = bench(*words, "--executor", "inline")
    assert alone.returncode == 0, alone.stderr
    text = found.read_text()
    (middle,) = re.findall(r'"trial": "(lora-mixture-\S+)", "factor": 1\.0, "seed": 1000', text)
    lost = re.findall(r'"trial": "(lora-mixture-\S+)", "factor": (?:0\.25|4\.0)', text)
    for trial in [middle, *lost]:
        shutil.rmtree(results / trial)
    found.unlink()
    together = bench(*words, "--cpus", "2")
    assert together.returncode == 0, together.stderr
    assert found.read_text() == text


def test_ray_gives_the_same_numbers_and_survives_a_dead_worker(tiny: Path) -> None:
    """Two workers; a plug-in kills its process at the first try, and the trial is tried again on a new worker."""
    (tiny / "kamikaze.py").write_text(
        "import os, pathlib\n"
        "from mosld_bench.methods.builtin import PeftMethod\n"
        "from mosld_bench.methods.registry import register\n"
        "FLAG = pathlib.Path(__file__).with_suffix('.died')\n"
        "@register('kamikaze')\n"
        "class Kamikaze(PeftMethod):\n"
        "    def before_step(self, model):\n"
        "        if not FLAG.exists():\n"
        "            FLAG.touch()\n"
        "            os._exit(1)\n"
    )
    recipe = (tiny / "methods" / "lora.yaml").read_text().replace("method: peft", "method: kamikaze")
    (tiny / "methods" / "dies.yaml").write_text(recipe)
    words = ("run", "tiny", "--methods", "lora,dies", "--plugin", "kamikaze", "--root", str(tiny), "--cpus", "2")
    path = f"{tiny}:{REPOSITORY}"
    done = bench(*words, cwd=tiny, PYTHONPATH=path)
    assert done.returncode == 0, done.stderr + done.stdout
    assert "its worker died" in done.stdout
    assert "report:" in done.stdout
    frame = load(tiny / "results", "tiny").set_index(["recipe", "task"])["value"]
    assert frame.loc["dies"].to_dict() == frame.loc["lora"].to_dict()
    _, planned, config = prepare(tiny, recipes=["lora"], frozen_base=False)
    (inline,) = run_inline(planned, config, tiny / "inline")
    assert {metric.task: metric.value for metric in inline.record.metrics} == frame.loc["lora"].to_dict()
    again = bench(*words, cwd=tiny, PYTHONPATH=path)
    assert "3 recorded, 0 to run" in again.stdout
    text = "".join(page.extract_text() for page in PdfReader(tiny / "reports" / "tiny" / "report.pdf").pages)
    assert "LoRA" in text
    main = pd.read_csv(tiny / "reports" / "tiny" / "tables" / "main.csv")
    assert list(main.columns) == [
        "recipe", "setting", "budget", "trainable_parameters", "in_domain_mean", "in_domain_sd",
        "out_of_domain_mean", "out_of_domain_sd", "seeds", "copy", "count", "other",
        "in_domain_mean_verdict", "in_domain_mean_tied", "out_of_domain_mean_verdict", "out_of_domain_mean_tied",
    ]  # fmt: skip
    assert list(main["recipe"]) == ["base", "lora", "dies"]
    assert main.set_index("recipe").loc["lora", "copy"] == pytest.approx(frame.loc["lora", "copy"])


def test_more_gpus_than_there_are_is_an_error_at_once() -> None:
    with pytest.raises(ResourceError, match=r"--gpus 512 was asked for, but this machine has \d+ CUDA device"):
        local_gpus(512)
