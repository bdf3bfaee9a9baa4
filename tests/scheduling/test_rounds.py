"""One seed of every row comes first, and a report is made after each round while others are to come."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from mosld_bench.background import BackgroundCall
from mosld_bench.errors import BenchError
from mosld_bench.scheduling.rounds import WORTH_SECONDS, InterimReports, Rounds, rounds_of
from mosld_bench.spec.trial import Fit, PlannedTrial
from tests.support.synthetic import RECIPES, make_study, make_trials

STUDY = make_study(seeds=[7, 3, 5])
TRIALS = make_trials(STUDY, [RECIPES["base"], RECIPES["lora"], RECIPES["mosld"]])
ROUNDS = rounds_of(TRIALS)
FIT = Fit(params={}, target=None, trainable=1, residual=None, total=1)


def test_a_round_has_one_seed_of_every_row_in_the_studys_order() -> None:
    assert set(ROUNDS.values()) == {0, 1, 2}
    for number, seed in enumerate(STUDY.seeds):
        members = [trial for trial in TRIALS if ROUNDS[trial.id] == number]
        trained = [trial for trial in members if trial.recipe.name != "base"]
        assert {trial.seed for trial in trained} == {seed}
        rows = {(trial.recipe.name, trial.condition, trial.train_on) for trial in members}
        assert len(rows) == len(members)
    assert [ROUNDS[trial.id] for trial in TRIALS if trial.recipe.name == "base"] == [0], "one row of one trial"
    firsts = {(trial.recipe.name, trial.condition, trial.train_on) for trial in TRIALS if ROUNDS[trial.id] == 0}
    assert firsts == {(trial.recipe.name, trial.condition, trial.train_on) for trial in TRIALS}


def planned(keep: Callable[[Any], bool] = lambda trial: True) -> list[PlannedTrial]:
    return [PlannedTrial(trial, FIT) for trial in TRIALS if keep(trial)]


def test_a_round_is_over_with_all_before_it_and_the_last_one_is_no_news() -> None:
    rounds = Rounds(ROUNDS, planned())
    by_round = [[trial.id for trial in TRIALS if ROUNDS[trial.id] == number] for number in range(3)]
    first, *others = by_round[0]
    assert [rounds.ended(trial) for trial in (*others, *by_round[1])] == [False] * (len(others) + len(by_round[1]))
    assert rounds.ended(first), "the second round was over before"
    assert [rounds.ended(trial) for trial in by_round[2]] == [False] * len(by_round[2])


def test_what_is_recorded_makes_no_round() -> None:
    rounds = Rounds(ROUNDS, planned(lambda trial: ROUNDS[trial.id] == 2))
    assert not any(rounds.ended(trial.id) for trial, _ in planned(lambda trial: ROUNDS[trial.id] == 2))
    left = planned(lambda trial: ROUNDS[trial.id] == 2 or (ROUNDS[trial.id] == 1 and trial.recipe.name == "lora"))
    rounds, second = Rounds(ROUNDS, left), [trial.id for trial, _ in left if ROUNDS[trial.id] == 1]
    assert [rounds.ended(trial) for trial in second] == [False] * (len(second) - 1) + [True]


class Call:
    """In place of a call in the background: over when the test says so."""

    def __init__(self, done: Callable[[str | None], None]) -> None:
        self.done, self.stopped = done, False

    def stop(self) -> None:
        self.stopped = True


def interim() -> tuple[InterimReports, list[Call], list[str]]:
    calls: list[Call] = []
    said: list[str] = []

    def begin(done: Callable[[str | None], None]) -> Any:
        calls.append(Call(done))
        return calls[-1]

    return InterimReports(Rounds(ROUNDS, planned()), begin, say=said.append, where=Path("report.pdf")), calls, said


def end_round(reports: InterimReports, number: int, seconds_left: float | None = None) -> None:
    for trial in (trial.id for trial in TRIALS if ROUNDS[trial.id] == number):
        reports.ended(trial, of=f"round {number}", seconds_left=seconds_left)


def test_one_report_is_made_at_a_time_and_the_latest_that_was_asked_for() -> None:
    reports, calls, said = interim()
    with reports:
        end_round(reports, 0)
        assert len(calls) == 1
        end_round(reports, 1)
        assert len(calls) == 1, "the first is still being made"
        calls[0].done(None)
        assert len(calls) == 2
        assert said == ["report so far, of round 0: report.pdf"]
        end_round(reports, 2)
        assert len(calls) == 2, "after the last round comes the report itself"
    assert (calls[0].stopped, calls[1].stopped) == (False, True)
    calls[1].done("no records")
    assert said[1:] == ["no report of round 1: no records"]
    assert len(calls) == 2


def test_a_report_that_another_soon_takes_the_place_of_is_not_begun() -> None:
    for seconds, expected in ((WORTH_SECONDS - 1, 0), (WORTH_SECONDS + 1, 1), (None, 1)):
        reports, calls, _ = interim()
        with reports:
            end_round(reports, 0, seconds_left=seconds)
        assert len(calls) == expected


def write(path: Path, text: str) -> None:
    """Called in another process."""
    path.write_text(text)


def refuse(kind: str) -> None:
    """Called in another process."""
    raise BenchError("Not\nlike this.") if kind == "ours" else ValueError("unheard of")


def sleep(path: Path) -> None:
    """Called in another process."""
    path.write_text("asleep")
    time.sleep(60)


@pytest.mark.parametrize(
    ("function", "words", "error"),
    [(write, ("a text",), None), (refuse, ("ours",), "Not like this."), (refuse, ("other",), "ValueError: unheard of")],
)
def test_a_function_is_called_in_another_process(
    function: Callable[..., None], words: tuple[str, ...], error: str | None, tmp_path: Path
) -> None:
    told: list[str | None] = []
    path = [tmp_path / "written"] if function is write else []
    call = BackgroundCall(function, *path, *words, done=told.append)
    call.wait()
    assert told == [error]
    assert (tmp_path / "written").exists() == (function is write)


def test_a_call_that_is_stopped_tells_nothing(tmp_path: Path) -> None:
    told: list[str | None] = []
    call = BackgroundCall(sleep, tmp_path / "begun", done=told.append)
    while call.running and not (tmp_path / "begun").exists():
        time.sleep(0.05)
    call.stop()
    assert (call.running, told) == (False, [])
