"""On real workers: one dies and its trial goes on from a checkpoint, one hangs and is ended, the others end as ever."""

from __future__ import annotations

from pathlib import Path
from subprocess import CompletedProcess

import pytest

from mosld_bench.records.frame import load
from mosld_bench.records.store import Store
from tests.conftest import REPOSITORY, bench
from tests.trial.test_execute import losses

pytestmark = pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::DeprecationWarning")

#: Both keep nothing from step to step. The second one sleeps in a library, so that no other thread of Python runs.
METHODS = """
import ctypes
import os
import pathlib

from mosld_bench.methods.builtin import PeftMethod
from mosld_bench.methods.registry import register

FLAG = pathlib.Path(__file__).with_suffix(".died")


@register("dies")
class Dies(PeftMethod):
    def after_step(self, model, step, steps):
        if step == 3 and not FLAG.exists():
            FLAG.touch()
            os._exit(1)


@register("hangs")
class Hangs(PeftMethod):
    def before_step(self, model):
        ctypes.PyDLL(None).sleep(100_000)
"""


def run(tiny: Path, *methods: str, options: tuple[str, ...]) -> CompletedProcess[str]:
    """The study with ``methods``, on two workers."""
    (tiny / "faulty.py").write_text(METHODS)
    lora = (tiny / "methods" / "lora.yaml").read_text()
    for name in ("dies", "hangs"):
        (tiny / "methods" / f"{name}.yaml").write_text(lora.replace("method: peft", f"method: {name}"))
    words = ("run", "tiny", "--methods", ",".join(methods), "--plugin", "faulty", "--root", str(tiny), "--cpus", "2")
    return bench(*words, *options, cwd=tiny, PYTHONPATH=f"{tiny}:{REPOSITORY}", timeout=550)


@pytest.mark.slow
def test_a_dead_worker_s_trial_goes_on_from_its_checkpoint(tiny: Path) -> None:
    done = run(tiny, "dies", "lora", options=("--checkpoint-minutes", "0.000001"))
    assert done.returncode == 0, done.stdout + done.stderr
    store = Store(tiny / "results")
    frame = load(tiny / "results", "tiny").set_index(["recipe", "task"])["value"]
    assert frame.loc["dies"].to_dict() == frame.loc["lora"].to_dict()
    dies, lora = (
        next(record for record in store.records("tiny") if record.trial.recipe.name == name)
        for name in ("dies", "lora")
    )
    assert losses(dies) == losses(lora)
    assert dies.meta_info["continued_from_step"] in {1, 2}
    assert f"{dies.trial_id}: goes on from its checkpoint after step" in done.stdout
    assert [path for path in (tiny / "results").rglob("*") if path.name.startswith(".")] == []


@pytest.mark.slow
def test_a_trial_that_hangs_in_a_library_is_ended_with_its_worker(tiny: Path) -> None:
    done = run(tiny, "hangs", "lora", options=("--time-limit", "1"))
    assert done.returncode == 1, done.stdout + done.stderr
    ((trial, error),) = Store(tiny / "results").failures("tiny").items()
    assert trial.startswith("hangs-")
    assert error.startswith("It took longer than --time-limit allows, 1 min, and was ended. It hung in a library")
    assert set(load(tiny / "results", "tiny")["recipe"]) == {"base", "lora"}
    assert "hung in a library" in (tiny / "reports" / "tiny" / "index.html").read_text()
