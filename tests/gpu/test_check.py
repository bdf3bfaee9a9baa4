"""The GPU check, as far as a machine without a GPU goes: its steps on a CPU, small, and what becomes of them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import REPOSITORY
from tests.gpu.steps import STEPS


def check(out: Path, *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [REPOSITORY / "tests" / "gpu" / "check.sh", "--dry-run", "--out", str(out), *words],
        capture_output=True, text=True, check=False, env={**os.environ, "PYTHON": sys.executable}, timeout=600,
    )  # fmt: skip


def results(out: Path) -> dict[str, dict[str, Any]]:
    content = json.loads((out / "dry-run" / "check.json").read_text(encoding="utf-8"))
    return {result["step"]: result for result in content}


@pytest.mark.slow
def test_steps_leave_figures_and_are_not_run_twice(tmp_path: Path) -> None:
    done = check(tmp_path, "device", "flex", "smollm2")
    assert done.returncode == 0, done.stderr
    assert done.stderr.split() == ["device", "...", "flex", "...", "smollm2", "..."]
    first = results(tmp_path)
    assert {name: result["status"] for name, result in first.items()} == {
        "device": "done", "flex": "done", "smollm2": "skipped",
    }  # fmt: skip
    (figure,) = first["flex"]["figures"]
    assert figure["value"] > 0
    assert "largest gap" in figure["note"]
    table = (tmp_path / "dry-run" / "check.md").read_text(encoding="utf-8")
    assert table.startswith("| step | quantity | value | note |\n")
    assert "| smollm2 | skipped | | needs SmolLM2-135M and its data" in table
    assert done.stdout.strip() == table.strip()
    again = check(tmp_path, "device", "flex", "smollm2")
    assert (again.returncode, again.stderr) == (0, "")
    assert results(tmp_path) == first


@pytest.mark.slow
def test_a_step_ends_with_the_time_and_is_begun_again_by_the_next_call(tmp_path: Path) -> None:
    started = time.monotonic()
    done = check(tmp_path, "embedded", "--minutes", "0.25")
    assert time.monotonic() - started < 60
    assert done.returncode == 1
    (left,) = results(tmp_path).values()
    assert (left["status"], left["error"]) == ("left", "ran out of time")
    assert check(tmp_path, "embedded", "--minutes", "0.25").stderr == "embedded ...\n"


@pytest.mark.slow
def test_a_step_that_fails_says_why_and_the_others_go_on(tmp_path: Path) -> None:
    (tmp_path / "dry-run" / "workspace").mkdir(parents=True)  # without recipes
    done = check(tmp_path, "embedded", "device")
    assert done.returncode == 1
    outcome = results(tmp_path)
    assert outcome["embedded"]["status"] == "failed"
    assert "-m mosld_bench run embedded ended with 2" in outcome["embedded"]["error"]
    assert outcome["device"]["status"] == "done"


def test_a_step_that_is_not_there_is_refused(tmp_path: Path) -> None:
    done = check(tmp_path, "speling")
    assert done.returncode == 2
    assert f"there is no step speling; there are {', '.join(STEPS)}" in " ".join(done.stderr.split())
