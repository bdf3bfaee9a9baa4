"""A whole answer early: rounds of seeds, a report after each, and one at an interruption."""

from __future__ import annotations

import errno
import io
import os
import random
import re
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any, ClassVar

import pytest
from pypdf import PdfReader
from rich.console import Console

from mosld_bench import pipeline
from mosld_bench.errors import BenchError, LostError
from mosld_bench.records.lock import HeldError
from mosld_bench.records.record import Outcome
from mosld_bench.records.store import Store
from mosld_bench.scheduling import Options, Plan, RunWatcher, check_places, make_plan, rounds
from mosld_bench.spec.study import Study
from mosld_bench.spec.trial import PlannedTrial
from mosld_bench.spec.workspace import Workspace
from mosld_bench.trial.execute import failed
from tests.conftest import REPOSITORY
from tests.reporting.reading import read_csv
from tests.support.synthetic import make_record

pytestmark = pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::DeprecationWarning")


class Finisher:
    """An executor whose trials finish at once, but for those of ``fails``; keeps in ``events`` what happens."""

    def __init__(self, study: Study, *, stop_at: int | None = None, fails: Sequence[int] = ()) -> None:
        self.events: list[str] = []
        self.ran: list[PlannedTrial] = []
        self._study, self._stop_at, self._fails = study, stop_at, fails

    def run(self, planned: Sequence[PlannedTrial], watcher: RunWatcher) -> Iterator[Outcome]:
        for number, member in enumerate(planned):
            if number == self._stop_at:
                raise KeyboardInterrupt
            while Call.threads:
                Call.threads.pop().join()
            self.events.append("trial")
            self.ran.append(member)
            outcome = Outcome(make_record(member.trial, self._study))
            yield failed(member.trial, "Oops", {}) if number in self._fails else outcome

    def ended(self) -> Iterator[Outcome]:
        return iter(())

    def close(self) -> None:
        self.events.append("closed")


class Call:
    """In place of a call in the background: done before the next trial, with the error that the test says."""

    events: list[str]
    error: str | None = None
    threads: ClassVar[list[threading.Thread]] = []

    def __init__(self, function: Any, *words: Any, done: Callable[[str | None], None], **options: Any) -> None:
        assert (function.func, words, options) == (pipeline.report, (), {})
        assert function.keywords["preliminary"] is True
        self.events.append(f"report of {len(function.keywords['trials'])}")
        self.threads.append(threading.Thread(target=done, args=(self.error,)))
        self.threads[-1].start()

    def stop(self) -> None:
        self.events.append("stopped")


@pytest.fixture
def planned(tiny: Path, monkeypatch: pytest.MonkeyPatch) -> Plan:
    """Two recipes and the base, three seeds: seven trials in rounds of three, two and two."""
    monkeypatch.setattr(rounds, "WORTH_SECONDS", 0.0)
    monkeypatch.setattr(pipeline, "find_overlaps", lambda *words: ())
    study = Study.load(tiny / "reports" / "tiny" / "study.yaml", {"seeds": [4, 0, 2]})
    return make_plan(study, Workspace(tiny, tiny))


def run(plan: Plan, root: Path, finisher: Finisher, monkeypatch: pytest.MonkeyPatch) -> tuple[int, str]:
    """The exit code of a run on ``finisher``, and what it printed."""
    monkeypatch.setattr(pipeline, "make_executor", lambda *words, **options: finisher)
    monkeypatch.setattr(pipeline, "_report_and_print", lambda *words: finisher.events.append("final report"))
    monkeypatch.setattr(pipeline, "BackgroundCall", type("Noted", (Call,), {"events": finisher.events}))
    output = io.StringIO()
    code = pipeline.run(plan, Workspace(root, root), Console(file=output, width=300), Options(executor="inline"))
    return code, output.getvalue()


def test_one_seed_of_every_row_comes_first_the_longest_first(planned: Plan) -> None:
    order = planned.in_rounds(planned.planned)
    assert {m.trial.recipe.name for m in order[:3]} == {"base", "lora", "mosld"}
    assert {m.trial.seed for m in order[:3] if m.trial.recipe.name != "base"} == {4}
    assert [m.trial.seed for m in order[3:]] == [0, 0, 2, 2]
    hours = planned.hours(planned.planned)
    for part in (order[:3], order[3:5], order[5:]):
        assert part == planned.longest_first(part)
        assert [hours[m.trial.id] for m in part] == sorted((hours[m.trial.id] for m in part), reverse=True)
    assert sorted(m.trial.id for m in order) == sorted(m.trial.id for m in planned.planned)
    assert planned.in_rounds(order[::2]) == [m for m in order if m in order[::2]], "also of what is missing"


def test_a_report_is_made_after_every_round_but_the_last(
    planned: Plan, tiny: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    finisher = Finisher(planned.study)
    code, printed = run(planned, tiny, finisher, monkeypatch)
    assert code == 0
    first, other = ["trial"] * 3, ["trial"] * 2
    assert finisher.events == [*first, "report of 7", *other, "report of 7", *other, "closed", "final report"]
    assert finisher.ran == planned.in_rounds(planned.planned)
    told = re.findall(r"report so far, of (.*): (.*)", printed)
    assert told == [(f"{done} of 7 trials", str(tiny / "reports" / "tiny" / "report.pdf")) for done in (3, 5)]


def test_what_a_report_says_no_to_does_not_lose_the_run(
    planned: Plan, tiny: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A failed trial ends its round as well; of it there is no record to count."""
    monkeypatch.setattr(Call, "error", "No record counts.")
    finisher = Finisher(planned.study, fails=[1])
    code, printed = run(planned, tiny, finisher, monkeypatch)
    assert code == 1
    assert re.findall(r"no report of (.*): (.*)", printed) == [
        (f"{done} of 7 trials", "No record counts.") for done in (2, 4)
    ]
    assert finisher.events[-1] == "final report"


def test_a_run_that_is_resumed_counts_what_there_is(planned: Plan, tiny: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = Store(tiny / "results")
    for member in planned.in_rounds(planned.planned)[:4]:
        record = make_record(member.trial, planned.study)
        store.write(Outcome(record.model_copy(update={"size": member.fit, "meta_info": {}})))
    finisher = Finisher(planned.study)
    _, printed = run(planned, tiny, finisher, monkeypatch)
    assert "7 trials, 4 recorded, 3 to run" in printed
    assert finisher.events == ["trial", "report of 7", "trial", "trial", "closed", "final report"]
    assert "report so far, of 5 of 7 trials" in printed


def test_an_interruption_leaves_a_report_of_what_there_is(
    planned: Plan, tiny: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def report(*words: Any, preliminary: bool, **options: Any) -> Path:
        finisher.events.append("report here")
        assert preliminary
        if error:
            raise error
        return Path("report.pdf")

    for stop_at, error, end in (
        (4, None, ["closed", "report here"]),
        (4, BenchError("No record counts."), ["closed", "report here"]),
        (0, None, ["closed"]),
    ):
        finisher, output = Finisher(planned.study, stop_at=stop_at), io.StringIO()
        monkeypatch.setattr(pipeline, "make_executor", lambda *words, **options: finisher)  # noqa: B023
        monkeypatch.setattr(pipeline, "report", report)
        monkeypatch.setattr(pipeline, "BackgroundCall", lambda *words, **options: None)
        console, options = Console(file=output, width=300), Options(executor="inline", overwrite="always")
        with pytest.raises(KeyboardInterrupt):
            pipeline.run(planned, Workspace(tiny, tiny), console, options)
        assert finisher.events == ["trial"] * stop_at + end
        if stop_at:
            told = "no report: No record counts." if error else "report so far, of 4 of 7 trials: report.pdf"
            assert told in output.getvalue()


def test_what_had_ended_at_an_interruption_is_recorded(
    planned: Plan, tiny: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Ending(Finisher):
        def ended(self) -> Iterator[Outcome]:
            assert self.events[-1] == "trial", "before workers are stopped"
            yield Outcome(make_record(planned.in_rounds(planned.planned)[-1].trial, planned.study))

    finisher, output = Ending(planned.study, stop_at=2), io.StringIO()
    monkeypatch.setattr(pipeline, "make_executor", lambda *words, **options: finisher)
    monkeypatch.setattr(pipeline, "report", lambda *words, **options: Path("report.pdf"))
    with pytest.raises(KeyboardInterrupt):
        pipeline.run(planned, Workspace(tiny, tiny), Console(file=output, width=300), Options(executor="inline"))
    assert len(list(Store(tiny / "results").records("tiny"))) == 3
    assert "report so far, of 3 of 7 trials: report.pdf" in output.getvalue()


def test_a_disk_that_fills_up_ends_a_run_with_a_sentence_and_what_there_is(
    planned: Plan, tiny: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    finisher, output, write = Finisher(planned.study), io.StringIO(), Store.write

    def writes(store: Store, outcome: Outcome) -> Path:
        if len(finisher.ran) == 3:
            raise OSError(errno.ENOSPC, "No space left on device", str(store.folder(outcome.record.trial)))
        return write(store, outcome)

    monkeypatch.setattr(Store, "write", writes)
    monkeypatch.setattr(pipeline, "make_executor", lambda *words, **options: finisher)
    monkeypatch.setattr(pipeline, "report", lambda *words, **options: Path("report.pdf"))
    with pytest.raises(LostError) as caught:
        pipeline.run(planned, Workspace(tiny, tiny), Console(file=output, width=300), Options(executor="inline"))
    lost = finisher.ran[-1].trial
    assert str(caught.value) == (
        f"{tiny}/results/tiny/{lost.id} cannot be written any more (No space left on device), so that {lost.id} has no "
        f"record. What was recorded before is kept: mend that, and the same command runs the rest."
    )
    assert finisher.events[-1] == "closed"
    assert "report so far, of 2 of 7 trials: report.pdf" in output.getvalue()
    assert not [path for path in tiny.rglob(".*") if "results" in path.parts]


def test_a_second_run_on_a_study_says_who_holds_it_and_does_nothing(
    planned: Plan, tiny: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    finisher, options = Finisher(planned.study), Options(executor="inline", command="mosld-bench run tiny")
    monkeypatch.setattr(pipeline, "make_executor", lambda *words, **options: finisher)
    console = Console(file=io.StringIO())
    with Store(tiny / "results").held("tiny", "mosld-bench run tiny --seeds 4,0,2"):
        with pytest.raises(HeldError, match=rf"process {os.getpid()} on this machine .* --seeds 4,0,2\)"):
            pipeline.run(planned, Workspace(tiny, tiny), console, options)
        assert finisher.events == []
    assert not (tiny / "results" / "tiny").exists()


@pytest.mark.parametrize("place", ["results", "results/tiny", "reports/elsewhere"])
def test_what_could_not_be_written_is_said_before_anything_is_read(
    planned: Plan, tiny: Path, monkeypatch: pytest.MonkeyPatch, place: str
) -> None:
    (tiny / place).parent.mkdir(parents=True, exist_ok=True)
    (tiny / place).write_text("")
    monkeypatch.setattr(pipeline, "check", lambda *words: pytest.fail("it was read"))
    options = Options(executor="inline", report_folder=tiny / "reports" / "elsewhere")
    with pytest.raises(BenchError, match=rf"Nothing can be written to .*: {tiny / place} is no folder"):
        pipeline.run(planned, Workspace(tiny, tiny), Console(file=io.StringIO()), options)


def test_what_has_no_room_is_said_before_anything_is_read(
    planned: Plan, tiny: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    free: dict[str, int] = {}
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=free.get(str(path), 10**12)))
    options, store = Options(save_adapters=True), Store(tiny / "results")
    adapters = sum(4 * member.fit.trainable for member in planned.planned)
    for folder, needed in (
        (tiny, 7 * 250_000 + adapters), (tiny / "reports", 10_000_000), (Path(tempfile.gettempdir()), 10_000_000)
    ):  # fmt: skip
        free.clear()
        free[str(folder)] = needed
        check_places(planned, store, tiny / "reports" / "tiny2", options)
        free[str(folder)] = needed - 1
        with pytest.raises(BenchError, match=r"MB free, and about .* MB are going to be written"):
            check_places(planned, store, tiny / "reports" / "tiny2", options)


def test_the_time_of_day_may_jump(planned: Plan, tiny: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Backwards and forwards, by years, at every look at it."""
    draw, finisher = random.Random(0), Finisher(planned.study)
    monkeypatch.setattr(time, "time", lambda: draw.uniform(0, 4e9))
    code, printed = run(planned, tiny, finisher, monkeypatch)
    assert code == 0
    assert len(list(Store(tiny / "results").records("tiny"))) == 7
    assert "report so far, of 5 of 7 trials" in printed


@pytest.mark.slow
def test_an_interrupted_run_says_how_to_go_on_and_goes_on_to_a_report_without_a_mark(tiny: Path) -> None:
    words = [
        "run",
        "tiny",
        "--executor",
        "inline",
        "--methods",
        "lora",
        "--seeds",
        "0,1,2,3,4,5,6",
        "--root",
        str(tiny),
    ]
    process = subprocess.Popen(
        [sys.executable, "-m", "mosld_bench", *words],
        cwd=REPOSITORY, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # which the tests' own process may ignore
    )  # fmt: skip
    assert process.stdout is not None
    for line in process.stdout:
        if line.startswith("[2/8]"):
            process.send_signal(signal.SIGINT)
            break
    out, err = process.communicate(timeout=240)
    assert process.returncode == 130, out + err
    pdf = tiny / "reports" / "tiny" / "report.pdf"
    assert re.search(rf"report so far, of [2-7] of 8 trials: {re.escape(str(pdf))}", out)
    assert all("PRELIMINARY" in page.extract_text() for page in PdfReader(pdf).pages)
    (command,) = re.findall(r"^    (.*)$", err, re.M)
    _, *rest = shlex.split(command)
    assert rest == ["-m", "mosld_bench", *words]
    done = subprocess.run(
        [sys.executable, *rest], cwd=REPOSITORY, capture_output=True, text=True, check=False, timeout=240,
        env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert re.search(r"8 trials, [2-7] recorded", done.stdout)
    assert "PRELIMINARY" not in "".join(page.extract_text() for page in PdfReader(pdf).pages)
    assert [row["in_domain_mean"] != "" for row in read_csv(tiny / "reports" / "tiny" / "tables" / "main.csv")]
