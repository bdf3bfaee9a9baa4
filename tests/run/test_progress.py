"""What a user is told while trials run."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from mosld_bench.records.record import Record
from mosld_bench.run import progress as board
from mosld_bench.spec.trial import Trial
from mosld_bench.trial.execute import failed
from mosld_bench.trial.session import Progress
from tests.support.synthetic import RECIPES, make_record, make_study, make_trials

STUDY = make_study(seeds=[0, 1, 2, 3])
LONG, FIRST, SECOND, UNPRICED = make_trials(STUDY, [RECIPES["lora"]])[:4]


def done(trial: Trial, seconds: float) -> Record:
    made = make_record(trial, STUDY)
    return made.model_copy(update={"meta_info": {**made.meta_info, "seconds": seconds}})


def test_time_left_goes_by_what_trials_are_estimated_to_take(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two workers. A long trial comes first; one has no estimate and counts as the mean of the others, 3 hours."""
    now = [0.0]
    monkeypatch.setattr(board.time, "monotonic", lambda: now[0])
    said = io.StringIO()
    shown = board.ProgressDisplay(
        {LONG.id: 5, FIRST.id: 1, SECOND.id: 3, UNPRICED.id: 0}, Console(file=said, width=200)
    )
    for trial in (LONG, FIRST):
        shown.show(Progress(trial.id, "training"))
    assert shown.time_left() == "?"
    now[0] = 1000.0
    shown.finish(done(FIRST, 1000))  # 1,000 s an hour: 4,000 s of the long one beside 3,000 and 3,000 of the others
    assert shown.time_left() == "1:40:00"
    shown.show(Progress(SECOND.id, "training"))
    now[0] = 4000.0
    shown.finish(done(SECOND, 3000))  # 1,000 s of the long one on one worker, 3,000 of the last on the other
    assert shown.time_left() == "0:50:00"
    shown.show(Progress(UNPRICED.id, "training"))
    shown.finish(failed(UNPRICED, "Traceback\nOops: early", {}).record)  # says nothing of the pace
    assert shown.time_left() == "0:16:40"
    now[0] = 9000.0
    assert shown.time_left() == "0:00:00"  # the long one is late
    assert f"[3/4] {UNPRICED.id}  FAILED: Oops: early" in said.getvalue()
