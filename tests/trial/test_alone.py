"""A trial that goes wrong stays alone: its record says why, and the trials behind it come to what they always do."""

from __future__ import annotations

import shutil
import time
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from mosld_bench.methods.builtin import PeftMethod
from mosld_bench.records.record import Record
from mosld_bench.scheduling import InlineExecutor
from mosld_bench.trial import limits
from mosld_bench.trial.device import resident
from mosld_bench.trial.limits import NO_LIMITS, Limits
from tests.conftest import STUDY
from tests.support import wrong
from tests.support.runs import prepare
from tests.trial.test_execute import losses

pytestmark = pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::DeprecationWarning")


class Fault(NamedTuple):
    """A method that goes wrong: words of the last line of the record's error, and of the traceback above, if any."""

    method: type
    reason: str
    traced: str = ""
    tries: int = 1


FAULTS = [
    Fault(wrong.AttachRaises, "raises IndexError: list index out of range", "[][1]"),
    Fault(wrong.AttachReturnsNothing, "returns nothing, and has to return the model"),
    Fault(wrong.StepRaises, "KeyError: 'out of luck'", "before_step"),
    Fault(wrong.StepLeaves, "SystemExit: I leave", "before_step"),
    Fault(wrong.NoMemory, "can't allocate memory", "torch.empty(1 << 55", tries=2),
    Fault(wrong.NotANumber, "FloatingPointError: The loss became nan at step 2 of 4"),
    Fault(wrong.NotANumberAtLast, "After training 1 of 16 trained tensors hold numbers that are none"),
    Fault(wrong.NeverEnds, "It took longer than --time-limit allows, 60 min, and was ended.", "time.sleep(0.01)"),
    Fault(wrong.SavesNothing, "gives other logits than the trained model"),
    Fault(wrong.SaveRaises, "cannot be saved and loaded again (OSError: no such tape)", "raise OSError"),
    Fault(wrong.TrainsNothing, "Training had no effect"),
]


class Watcher:
    """Keeps what it is told."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def show(self, progress: object) -> None:
        pass

    def say(self, line: str) -> None:
        self.lines.append(line)


def recorded(
    tiny: Path, methods: list[type], *, most: Limits = NO_LIMITS, retries: int = 1
) -> tuple[list[Record], list[str]]:
    """The records of a trial of each method, one after another, and what was said."""
    lora = (tiny / "methods" / "lora.yaml").read_text()
    for place, method in enumerate(methods):
        recipe = lora.replace("method: peft", f'method: "{method.__module__}:{method.__qualname__}"')
        (tiny / "methods" / f"m{place}.yaml").write_text(recipe)
    names = [f"m{place}" for place in range(len(methods))]
    _, planned, config = prepare(tiny, recipes=names, frozen_base=False, **{"train.validation_fraction": 0})
    watcher = Watcher()
    executor = InlineExecutor(replace(config, limits=most, save_adapter=False), retries=retries)
    return [outcome.record for outcome in executor.run(planned, watcher)], watcher.lines


class Clock:
    """On which hours have passed as soon as the endless loop has begun."""

    def monotonic(self) -> float:
        return time.monotonic() + 10_000 * wrong.NeverEnds.begun


@pytest.fixture(scope="module")
def sound(tiny_template: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What a sound trial comes to where nothing went wrong before it."""
    root = tmp_path_factory.mktemp("sound") / "root"
    shutil.copytree(tiny_template, root)
    (root / "reports" / "tiny" / "study.yaml").write_text(STUDY.format(model=root / "model"))
    ((record,), _) = recorded(root, [PeftMethod])
    return {"losses": losses(record), "metrics": [metric.value for metric in record.metrics]}


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.method.__name__)
def test_what_goes_wrong_is_told_and_the_next_trial_is_as_ever(
    fault: Fault, tiny: Path, sound: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "time", Clock())
    (record, after), said = recorded(tiny, [fault.method, PeftMethod], most=Limits(seconds=3600))
    error = record.error or ""
    assert record.status == "failed"
    assert fault.reason in error.strip().splitlines()[-1], error
    if fault.traced:
        assert "Traceback (most recent call last)" in error
        assert fault.traced in error
    assert [line for line in said if "trying once more" in line] == said
    assert len(said) == fault.tries - 1
    assert after.status == "finished", after.error
    assert {"losses": losses(after), "metrics": [metric.value for metric in after.metrics]} == sound


def test_a_trial_that_takes_too_much_memory_is_ended(tiny: Path) -> None:
    (record,), _ = recorded(tiny, [wrong.EatsMemory], most=Limits(bytes=resident() + 800_000_000))
    assert record.status == "failed"
    assert "GB of memory, more than --memory-limit allows" in (record.error or "").splitlines()[-1]
    assert "in before_step" in (record.error or "")


def test_want_of_memory_is_tried_again_as_often_as_asked(tiny: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wrong.NoMemoryAtFirst, "tries", 0)
    (record,), said = recorded(tiny, [wrong.NoMemoryAtFirst], retries=3)
    assert record.status == "finished"
    assert len(said) == 1
    assert said[0].endswith("; trying again")
    monkeypatch.setattr(wrong.NoMemoryAtFirst, "tries", 0)
    (record,), said = recorded(tiny, [wrong.NoMemoryAtFirst], retries=0)
    assert (record.status, said) == ("failed", [])
