"""What a user is told while trials run."""

from __future__ import annotations

import io
import re

import pytest
from rich.console import Console

from mosld_bench.records.record import Judgement, Record, Unscored
from mosld_bench.scheduling import ProgressDisplay, progress
from mosld_bench.scheduling.progress_table import short_name
from mosld_bench.spec.trial import Domain, Trial
from mosld_bench.trial.execute import failed
from mosld_bench.trial.session import Progress
from tests.support.synthetic import RECIPES, make_record, make_study, make_trials

STUDY = make_study(seeds=[0, 1, 2, 3])
LONG, FIRST, SECOND, UNPRICED = make_trials(STUDY, [RECIPES["lora"]])[:4]
HOURS = {LONG.id: 5.0, FIRST.id: 1.0, SECOND.id: 3.0, UNPRICED.id: 0.0}


class Clock:
    """In place of the module `time`: shows the seconds that a test sets."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 0.0
        monkeypatch.setattr(progress, "time", self)

    def monotonic(self) -> float:
        return self.now


def record_of(trial: Trial, seconds: float) -> Record:
    record = make_record(trial, STUDY)
    return record.model_copy(update={"meta_info": {**record.meta_info, "seconds": seconds}})


def test_time_left_goes_by_what_trials_are_estimated_to_take(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two workers. A long trial comes first; one has no estimate and counts as the mean of the others, 3 hours."""
    clock, output = Clock(monkeypatch), io.StringIO()
    display = ProgressDisplay(HOURS, Console(file=output, width=200))
    for trial in (LONG, FIRST):
        display.show(Progress(trial.id, "training"))
    assert display.time_left() == "?"
    clock.now = 1000.0
    display.finish(record_of(FIRST, 1000))  # 1,000 s an hour: 4,000 s of the long one beside 3,000 and 3,000 of others
    assert display.time_left() == "1:40:00"
    display.show(Progress(SECOND.id, "training"))
    clock.now = 4000.0
    display.finish(record_of(SECOND, 3000))  # 1,000 s of the long one on one worker, 3,000 of the last on the other
    assert display.time_left() == "0:50:00"
    display.show(Progress(UNPRICED.id, "training"))
    display.finish(failed(UNPRICED, "Traceback\nOops: early", {}).record)  # tells nothing of the pace
    assert display.time_left() == "0:16:40"
    clock.now = 9000.0
    assert display.time_left() == "0:15:00", "the long one is late: a tenth of its time so far on top"
    display.finish(record_of(LONG, 9000))
    assert display.time_left() == "0:00:00"
    assert f"[3/4] {UNPRICED.id}  FAILED: Oops: early" in output.getvalue()


def test_trials_that_are_planned_later_are_waited_for_as_well(monkeypatch: pytest.MonkeyPatch) -> None:
    clock, output = Clock(monkeypatch), io.StringIO()
    display = ProgressDisplay({FIRST.id: 1.0}, Console(file=output, width=200))
    display.show(Progress(FIRST.id, "training"))
    clock.now = 1000.0
    display.finish(record_of(FIRST, 1000))
    assert display.time_left() == "0:00:00"
    display.expect({SECOND.id: 2.0, UNPRICED.id: 0.0})  # without an estimate as much as the first ones on average
    assert display.time_left() == "0:50:00"
    display.finish(record_of(SECOND, 2000))
    assert f"[2/3] {SECOND.id}" in output.getvalue()


def test_what_a_search_has_stopped_is_told_with_its_reason() -> None:
    record = make_record(FIRST, STUDY)
    assert record.train_info is not None
    lost = Judgement(step=40, loss=1.23456, rivals=(1.0, 1.1, 1.2), goes_on=False)
    info = record.train_info.model_copy(update={"steps": 40, "judged": (lost,)})
    stopped = record.model_copy(update={"status": "stopped", "metrics": (), "train_info": info})
    told = "stopped after 40 steps: its validation loss 1.235 is in the worse half"
    assert progress._result(stopped) == told
    info = info.model_copy(update={"judged": (), "diverged": "The loss became nan at step 40 of 200."})
    diverged = progress._result(stopped.model_copy(update={"train_info": info}))
    assert diverged == "stopped after 40 steps: The loss became nan at step 40 of 200."


def test_without_a_terminal_every_phase_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    Clock(monkeypatch)
    output = io.StringIO()
    with ProgressDisplay(HOURS, Console(file=output, width=200)) as display:
        for step in range(3):
            display.show(Progress(FIRST.id, "training", step, 3, 1.25))
        display.show(Progress(FIRST.id, "scoring"))
        display.finish(record_of(FIRST, 12.0))
    first, second, third = output.getvalue().splitlines()
    assert (first, second) == (f"  {FIRST.id}: training", f"  {FIRST.id}: scoring")
    assert third.startswith(f"[1/4] {FIRST.id}  in-domain ")
    assert "  12.0 s  left " in third


def test_a_terminal_has_a_table_of_what_runs_and_what_ended_last(monkeypatch: pytest.MonkeyPatch) -> None:
    clock, output = Clock(monkeypatch), io.StringIO()
    display = ProgressDisplay(HOURS, Console(file=output, width=200, force_terminal=True))
    display.show(Progress(LONG.id, "training", 7, 90, 1.25))
    display.finish(failed(FIRST, "Oops", {"seconds": 3.0}).record)
    clock.now = 42.0
    printer = Console(file=io.StringIO(), width=200, record=True)
    printer.print(display._table())
    text = " ".join(printer.export_text().replace("│", " ").split())
    assert "1 of 4 trials done, 1 failed, left ?" in text
    assert f"{FIRST.id} FAILED: Oops 3 s" in text
    assert f"{LONG.id} training 7/90 1.250 42 s" in text


NAMES = ("hydralora-no-dropout-mixture-lora-r32-s2-fc38e68d", "lora-single-commonsense_qa-60k-s0-0d42aeb4")


@pytest.mark.parametrize("width", [40, 60, 80, 120])
def test_numbers_are_whole_at_every_width(width: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Columns drop out and names shorten instead; the seed of a trial is told at each."""
    clock = Clock(monkeypatch)
    printer = Console(file=io.StringIO(), width=width, record=True)
    display = ProgressDisplay(dict.fromkeys(NAMES, 1.0) | HOURS, printer)
    display.show(Progress(NAMES[0], "training", 1234, 12000, 1.25))
    display.show(Progress(NAMES[1], "scoring"))
    for trial, seconds in ((FIRST, 12.0), (SECOND, 3456.0)):
        display.finish(record_of(trial, seconds))
    clock.now = 4321.0
    printer.export_text()
    printer.print(display._table())
    lines = printer.export_text().splitlines()
    assert max(map(len, lines)) <= width
    text = "\n".join(lines)
    assert re.findall(r"(\d+) s\b", text) == ["12", "3456", "4321", "4321"]
    result = progress._result(record_of(FIRST, 12.0))
    assert re.findall(r"in-domain \S+%", text) == [result, progress._result(record_of(SECOND, 1.0))]
    assert re.search(r"-s2\b", text)
    assert re.search(r"-s0\b", text)
    shown = {"1234/12000": width > 40, "1.250": width > 60, NAMES[0]: width == 120}
    assert {part: part in text for part in shown} == shown
    assert "1234/" not in text.replace("1234/12000", "")


def test_a_trial_is_called_by_what_tells_it_apart() -> None:
    assert short_name(NAMES[0], 60) == NAMES[0]
    assert short_name(NAMES[0], 40) == "hydralora-no-dropout-mixture-lora-r32-s2"
    assert short_name(NAMES[0], 20) == "hydralora-no…-r32-s2"
    for room in range(1, 40):
        assert len(short_name(NAMES[0], room)) == room


def test_workers_that_get_ready_are_told_on_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    clock, output = Clock(monkeypatch), io.StringIO()
    with ProgressDisplay(HOURS, Console(file=output, width=60, force_terminal=True)):
        clock.now = 7.0
    assert "no trial yet" in output.getvalue()
    assert "workers get ready" in output.getvalue()


def test_where_nothing_runs_a_terminal_shows_nothing() -> None:
    output = io.StringIO()
    with ProgressDisplay({}, Console(file=output, force_terminal=True)):
        pass
    assert output.getvalue() == ""


def test_a_result_is_told_on_the_scale_of_its_metrics() -> None:
    """A mean of shares in per cent, one of perplexities as it is, of both none; what came to no number by its name."""
    record = make_record(FIRST, STUDY, values=dict.fromkeys(STUDY.in_domain, 0.685))
    assert progress._result(record) == "in-domain 68.5%"
    worse = [
        m.model_copy(update={"metric": "perplexity,none", "value": 12.5, "higher_is_better": False})
        for m in record.metrics
    ]
    assert progress._result(record.model_copy(update={"metrics": tuple(worse)})) == "in-domain 12.50"
    mixed = record.model_copy(update={"metrics": (*record.metrics[:2], *worse[2:])})
    assert progress._result(mixed) == "finished"
    lost = Unscored(
        task=STUDY.in_domain[0], role=Domain.IN, metric="acc,none", primary=True, higher_is_better=True, reason="inf"
    )
    assert record.eval_info is not None
    info = record.eval_info.model_copy(update={"unscored": (lost,)})
    told = progress._result(record.model_copy(update={"metrics": record.metrics[2:], "eval_info": info}))
    assert told == f"finished; no acc of {STUDY.in_domain[0]}"
