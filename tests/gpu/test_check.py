"""The GPU check, as far as a machine without a GPU goes: its steps on a CPU, small, and what becomes of them."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.gpu import check, steps
from tests.gpu.results import Figure, Results
from tests.gpu.steps import STEPS, Step, Where
from tests.support.commands import python
from tests.support.repository import REPOSITORY

CHECK = REPOSITORY / "tests" / "gpu" / "check.sh"


def called(out: Path, *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [CHECK, "--dry-run", "--out", str(out), *words],
        capture_output=True, text=True, check=False, env={**os.environ, "PYTHON": sys.executable}, timeout=1200,
    )  # fmt: skip


def results(out: Path) -> dict[str, dict[str, Any]]:
    content = json.loads((out / "dry-run" / "check.json").read_text(encoding="utf-8"))
    return {result["step"]: result for result in content}


QUICK = ("device", "embedded", "plan", "rounded", "profile", "flex", "smollm2")  # of a minute in all


@pytest.mark.slow
def test_steps_leave_figures_and_are_not_run_twice(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    done = called(tmp_path, *QUICK)
    assert done.returncode == 0, (done.stderr, results(tmp_path))
    first = results(tmp_path)
    rounded = "skipped" if steps._why_not_rounded(Where(tmp_path)) else "done"
    statuses = dict.fromkeys(QUICK, "done") | {"rounded": rounded, "smollm2": "skipped"}
    assert {name: result["status"] for name, result in first.items()} == statuses
    assert done.stderr.split("\n")[:-1] == [f"{name} ..." for name in QUICK if statuses[name] == "done"]
    figures = {name: {it["quantity"]: it for it in result["figures"]} for name, result in first.items()}
    assert all(it["value"] > 0 for name in ("device", "embedded", "plan", "flex") for it in figures[name].values())
    assert "matrix product, bfloat16" in figures["device"]
    assert figures["embedded"]["trials"]["value"] == 3
    assert figures["plan"]["the same against what they took"]["value"] > 0
    (flex,) = figures["flex"].values()
    assert "largest gap" in flex["note"]
    for recipe in ("MoE-LoRA", "MoLA", "MoSLD", "MixLoRA"):
        for what in ("train", "prompt", "decode", "a training step", "a prompt", "a token"):
            assert figures["profile"][f"{recipe}: {what}"]["value"] > 0
        assert f"{recipe}: memory of a step" in figures["profile"]
        foretold = figures["profile"][f"{recipe}: memory of a step, as plan foretells it"]
        assert foretold["value"] > 0.01
        assert foretold["note"] == "of a GPU, and this is none"
    table = (tmp_path / "dry-run" / "check.md").read_text(encoding="utf-8")
    assert table.startswith("| step | quantity | value | note |\n")
    assert "| smollm2 | skipped | | needs SmolLM2-135M and its data" in table
    assert done.stdout.strip() == table.strip()
    again = called(tmp_path, *QUICK)
    assert (again.returncode, again.stderr) == (0, "")
    assert results(tmp_path) == first
    found = steps._records(
        Where(tmp_path / "dry-run"), "embedded"
    )  # of weights that are not rounded, for want of others
    monkeypatch.setattr(steps, "_records", lambda where, name: found)
    monkeypatch.setattr(steps, "_called", lambda *words: "")
    shown = {figure.quantity: figure.value for figure in steps.rounded(Where(tmp_path / "dry-run", dry=True))}
    assert 0 < shown["nf4: MoSLD: in-domain score"] <= 1
    assert shown["int8: MoSLD: training"] > 0


@pytest.mark.slow
def test_a_step_that_fails_says_why_and_the_others_go_on(tmp_path: Path) -> None:
    (tmp_path / "dry-run" / "workspace").mkdir(parents=True)  # without recipes
    done = called(tmp_path, "embedded", "plan", "device")
    assert done.returncode == 1
    outcome = results(tmp_path)
    assert outcome["embedded"]["status"] == "failed"
    assert "-m mosld_bench run embedded ended with 2" in outcome["embedded"]["error"]
    assert outcome["plan"]["status"] == "skipped"
    assert outcome["device"]["status"] == "done"


def test_a_step_that_is_not_there_is_refused(tmp_path: Path) -> None:
    done = called(tmp_path, "speling")
    assert done.returncode == 2
    assert f"there is no step speling; there are {', '.join(STEPS)}" in " ".join(done.stderr.split())


INVENTED = """#!{python}
import os, sys
sys.path.insert(0, os.getcwd())
from pathlib import Path
from tests.gpu import check
from tests.gpu.results import Figure
from tests.gpu.steps import Step, _called

LONG = '''
import signal, time
print("begins")
try:
    time.sleep(120)
except KeyboardInterrupt:
    time.sleep(1)
    print("ends in order")
'''

def quick(where):
    yield Figure("first", 1)
    yield Figure("second", 2)

def long(where):
    yield Figure("first", 1)
    _called("-c", LONG)

def wrong(where):
    yield Figure("first", 1)
    raise RuntimeError("it was wrong")

check.STEPS = {{made.__name__: Step(made.__name__, 0, made) for made in (quick, long, wrong)}}
sys.exit(check.main(sys.argv[3:]))
"""

Run = Callable[..., int]


@pytest.fixture
def invented(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Calls the check for one of the steps above; the processes of steps are started as with the real ones."""
    script = tmp_path / "python"
    script.write_text(INVENTED.format(python=sys.executable))
    script.chmod(0o700)
    monkeypatch.setattr(sys, "executable", str(script))
    monkeypatch.setattr(check, "_LAST_SECONDS", 0)
    where = Where(tmp_path / "dry-run", dry=True)
    where.folder.mkdir()

    def run(name: str, *, seconds: float = 60, again: bool = False, reason: str | None = None) -> int:
        step = Step(name, 0, _never_here, lambda where: reason)
        monkeypatch.setattr("tests.gpu.check.STEPS", {name: step})
        return check._run_all([step], where, seconds / 60, again=again)

    return run


def _never_here(where: Where) -> Iterator[Figure]:
    raise AssertionError("a step is measured in a process of its own")


def test_what_was_skipped_is_tried_again_and_what_is_done_is_not(invented: Run, tmp_path: Path) -> None:
    found = Results(tmp_path / "dry-run")
    assert invented("quick", reason="nothing to see") == 0
    assert (found.of("quick")["status"], found.of("quick")["error"]) == ("skipped", "nothing to see")
    assert invented("quick") == 0
    done = found.of("quick")
    assert done["status"] == "done"
    assert [(figure["quantity"], figure["value"]) for figure in done["figures"]] == [("first", 1), ("second", 2)]
    assert invented("quick") == 0
    assert found.of("quick") == done
    assert invented("quick", again=True, reason="nothing to see any more") == 0
    assert found.of("quick") == done


def test_what_was_measured_before_an_error_stays(invented: Run, tmp_path: Path) -> None:
    assert invented("wrong") == 1
    found = Results(tmp_path / "dry-run").of("wrong")
    assert (found["status"], found["error"]) == ("failed", "RuntimeError: it was wrong")
    assert [figure["quantity"] for figure in found["figures"]] == ["first"]


@pytest.mark.slow
def test_a_step_out_of_time_ends_in_order_and_loses_nothing(invented: Run, tmp_path: Path) -> None:
    """Neither what it said nor what it measured; and it is begun again by the next call."""
    found = Results(tmp_path / "dry-run")
    for _ in range(2):
        assert invented("long", seconds=20) == 1
        left = found.of("long")
        assert (left["status"], left["error"]) == ("left", "ran out of time")
        assert [figure["quantity"] for figure in left["figures"]] == ["first"]
        said = found.log("long").read_text()
        assert "begins\n" in said
        assert "ends in order\n" in said
    assert "| long | left | | ran out of time |\n| long | first | 1 |  |" in found.table.read_text()


def test_what_is_done_is_not_lost_to_what_is_left(tmp_path: Path) -> None:
    """Nor while it is measured again, whenever that is killed; an error counts."""
    found = Results(tmp_path)
    found.write_running("a", status="done", error="", figures=[Figure("first", 1)])
    found.end("a")
    done = found.of("a")
    found.write_running("a", figures=[Figure("first", 2)])
    assert found.of("a") == done
    found.take_up(["a", "b"])
    assert (found.of("a"), found.running("a"), found.of("b")) == (done, {}, {})
    found.write_running("a")
    found.end("a", status="failed", error="it was wrong")
    assert found.of("a")["status"] == "failed"
    found.write_running("a", figures=[Figure("first", 3)])
    found.take_up(["a"])
    assert (found.of("a")["status"], found.of("a")["error"]) == ("left", "was broken off")
    assert found.of("a")["figures"][0]["value"] == 3


def test_too_little_time_leaves_what_is_done(invented: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found, where = Results(tmp_path), Where(tmp_path)
    found.write_running("a", status="done", error="")
    found.end("a")
    step = Step("a", 60, _never_here)
    monkeypatch.setattr("tests.gpu.check.STEPS", {"a": step})
    assert check._run_all([step], where, 0.5, again=True) == 0
    assert found.of("a")["status"] == "done"


def test_nothing_is_set_that_a_user_has_not_set() -> None:
    """As the tests set it for themselves; commands that the steps call would have it."""
    names = ("OMP_NUM_THREADS", "TOKENIZERS_PARALLELISM", "HF_HUB_OFFLINE", "TQDM_DISABLE")
    code = f"import os, tests.gpu.check, tests.benchmarks.{'{}'}; print([n for n in {names} if n in os.environ])"
    env = {name: value for name, value in os.environ.items() if name not in names}
    for module in ("flex", "stacked"):
        done = python("-c", code.format(module), cwd=REPOSITORY, env=env)
        assert done.stdout.strip() == "[]", done.stderr


def trial(name: str, seconds: float = 3600.0) -> dict[str, Any]:
    return {
        "trial_id": name, "train_info": {"seconds": seconds}, "eval_info": {"seconds": 0.0}, "peak_memory_bytes": 10,
    }  # fmt: skip


def test_hours_are_compared_of_the_same_trials(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A record of another plan is left out; one that lacks ends the step."""
    probe = {"hours": 4.0, "memory": 20, "train_rate": None}
    said = json.dumps({"trials": [{"id": "a"}, {"id": "b"}], "probe": probe})
    monkeypatch.setattr(steps, "_called", lambda *words, answers: said)
    monkeypatch.setattr(steps, "_workspace", lambda where: tmp_path)
    records = [trial("a"), trial("b"), trial("other", 1e6)]
    monkeypatch.setattr(steps, "_records", lambda where, name: records)
    figures = {figure.quantity: figure.value for figure in steps.plan(Where(tmp_path))}
    assert figures["the same against what they took"] == 2
    del records[1]
    with pytest.raises(RuntimeError, match="1 of 2 planned trials have no record in the step embedded, the first b"):
        list(steps.plan(Where(tmp_path)))


VENV = """#!/usr/bin/env bash
# Stands for python3: makes an environment whose pip ends by the first installation, and says what it was called for.
if [ "$2" = venv ]; then mkdir -p "${@: -1}/bin"; cp "$0" "${@: -1}/bin/python"; fi
if [ "$2" = pip ] && [ ! -e broken ]; then touch broken; echo pip >> calls; exit 1; fi
echo "$2" >> calls
"""


def test_an_installation_that_was_broken_off_is_made_again(tmp_path: Path) -> None:
    (tmp_path / "tests" / "gpu").mkdir(parents=True)
    shutil.copy(CHECK, tmp_path / "tests" / "gpu")
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "python3").write_text(VENV)
    (tmp_path / "bin" / "python3").chmod(0o700)
    env = {name: value for name, value in os.environ.items() if name != "PYTHON"}
    env["PATH"] = f"{tmp_path / 'bin'}:{env['PATH']}"
    codes = [subprocess.run([tmp_path / "tests/gpu/check.sh"], env=env, check=False).returncode for _ in range(3)]
    assert codes == [1, 0, 0]
    calls = (tmp_path / "calls").read_text().split()
    assert calls == ["venv", "pip", "venv", "pip", "tests.gpu.check", "tests.gpu.check"]
